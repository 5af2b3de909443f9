"""Whether a case counts each cell once where real fields are photographed again in parts.

    BLOODFILM_DATA=... python benchmarks/mosaics.py [--sets bcisc chula] [--fields 6] [--cuts 8]

Fields of a set are cut into photographs that overlap by chance, in any order: each with a place,
size, turn, magnification, brightness, white balance, defocus and JPEG quality of its own. A case is
a set's photographs, analysed by the whole command with the shipped model; where each lies is known.

Printed for each set: pairs that share glass and how many of them were joined, by the width of the
strip that they share; pairs of other glass that were; cells that some photograph shows whole and
that were found there, how many of them counted once, never and more than once; and the labelled
cells among them. Fields of one patient may overlap themselves: where their photographs are joined,
the pair of fields is named, to be looked at.
"""

import argparse
import csv
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.cases.layout import overlap_um2
from bloodfilm.core.arrays import BoxArray, Floats
from bloodfilm.core.boxes import iou
from bloodfilm.core.results import AnalysisRun, CaseResult
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.warp import warp_boxes
from bloodfilm.workflows.analyze import AnalysisJob, analyze

ASPECT = {"lld40x": 0.565}
"""Width over height of a round cell in pixels, where it is not 1."""
STRIPS_UM = (6.0, 11.0, 15.0, 25.0, 1000.0)
FALSE_UM = 5.0
SAME_CELL = 0.4


@dataclass(frozen=True)
class Photograph:
    """A part of a field: the field's path, and the map (2x3) from its pixels to the field's."""

    field: Path
    matrix: Floats
    size: tuple[int, int]


def cut_up(field: Path, aspect: float, share: float, rng: np.random.Generator) -> Photograph:
    """Choose a part of a field."""
    width, height = open_image(field).shape[1::-1]
    size = round(width * share), round(height * share)
    turn, scale = np.radians(rng.uniform(-2, 2)), rng.uniform(0.98, 1.02)
    square = np.diag([1 / aspect, 1.0])  # to square pixels
    spin = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    linear = np.linalg.inv(square) @ spin @ square
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], size]) @ linear.T
    low, high = corners.min(axis=0), corners.max(axis=0)
    room = np.maximum([width, height] - (high - low), 0)
    shift = rng.uniform(0, 1, 2) * room - low
    return Photograph(field, np.column_stack([linear, shift]), size)


def take(photograph: Photograph, rng: np.random.Generator) -> bytes:
    """Return the photograph as a JPEG file."""
    whole = open_image(photograph.field)
    part = cv2.warpAffine(
        whole,
        photograph.matrix,
        photograph.size,
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    ).astype(np.float32)
    part *= rng.uniform(0.85, 1.05) * rng.uniform(0.94, 1.06, 3)
    blur = float(rng.choice([0.0, 0.0, rng.uniform(0.3, 1.5)]))
    if blur:
        part = cv2.GaussianBlur(part, (0, 0), blur)
    part += rng.normal(0, 1.5, part.shape)
    eight = np.clip(np.rint(part), 0, 255).astype(np.uint8)[..., ::-1]
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))]
    return cv2.imencode(".jpg", eight, quality)[1].tobytes()


def labelled_boxes(data: Path, name: str) -> dict[str, list[tuple[float, ...]]]:
    """Return the boxes of each image of a set."""
    found = defaultdict(list)
    with (data / name / "cells.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if "xc" in row:
                xc, yc, w, h = (float(row[k]) * 640 for k in ("xc", "yc", "w", "h"))
                found[row["image"]].append((xc - w / 2, yc - h / 2, w, h))
            elif row["x"]:
                found[row["image"]].append(tuple(float(row[k]) for k in "xywh"))
    return found


def one_set(data: Path, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Cut up fields of a set, analyse their photographs as a case, and judge it."""
    rng = np.random.default_rng([args.seed, sum(map(ord, name))])
    labels = labelled_boxes(data, name)
    paths = {p.name: p for p in (data / name).rglob("*.webp") if "mask" not in str(p)}
    usable = sorted(n for n in labels if n in paths)
    chosen = [paths[n] for n in rng.permutation(usable)[: args.fields].tolist()]
    aspect = ASPECT.get(name, 1.0)
    taken = [cut_up(p, aspect, args.share, rng) for p in chosen for _ in range(args.cuts)]
    taken = [taken[k] for k in rng.permutation(len(taken))]
    with tempfile.TemporaryDirectory() as folder:
        place = (Path(args.keep) if args.keep else Path(folder)) / f"{name}-photographs"
        place.mkdir(parents=True, exist_ok=True)
        for number, photograph in enumerate(taken):
            (place / f"{number:04}.jpg").write_bytes(take(photograph, rng))
        out = Path(args.keep) / name if args.keep else Path(folder) / "out"
        analyze(AnalysisJob(paths=[place], out=out, report=False, workers=1, existing="overwrite"))
        (case,) = AnalysisRun.read(out).cases
        return {"set": name, **judged(case, taken, labels)}


def judged(
    case: CaseResult, taken: list[Photograph], labels: dict[str, list[tuple[float, ...]]]
) -> dict[str, Any]:
    """Compare a case with where its photographs lie."""
    number = {k: int(Path(result.path).stem) for k, result in enumerate(case.fields)}
    aside = Counter(p.issues[0].code for p in case.set_aside)
    record: dict[str, Any] = {"photographs": len(case.fields), "set_aside": dict(aside)}
    return record | _joins(case, taken, number) | _cells(case, taken, number, labels)


def _joins(case: CaseResult, taken: list[Photograph], number: dict[int, int]) -> dict[str, Any]:
    rows: Counter[str] = Counter()
    false: list[str] = []
    for one, two in combinations(range(len(case.fields)), 2):
        first, second = taken[number[one]], taken[number[two]]
        a, b = case.placements[one], case.placements[two]
        if a.part is None or b.part is None:
            continue
        joined = a.part == b.part
        if first.field != second.field:
            if joined:
                false.append(f"{first.field.name} {second.field.name}")
            continue
        views = case.fields[one].view, case.fields[two].view
        um = [np.array([v.um_per_px_x, v.um_per_px_y]) for v in views]
        sizes = [(float(s[0]), float(s[1])) for s in (um[0] * first.size, um[1] * second.size)]
        pixels = np.linalg.inv(_whole(second.matrix)) @ _whole(first.matrix)
        true = np.diag([*um[1], 1]) @ pixels @ np.diag([*(1 / um[0]), 1])
        strip = overlap_um2(true[:2], sizes[0], sizes[1]) / max(min(sizes[0]), 1e-6)
        if strip <= 0:
            continue
        name = next(f"< {most:g} um" for most in STRIPS_UM if strip < most)
        rows[f"{name} pairs"] += 1
        if not joined:
            continue
        there = np.linalg.inv(_whole(b.matrix)) @ _whole(a.matrix) - pixels
        # Where the shared glass lies in the first photograph.
        corners = np.array([[0, 0, 1], [second.size[0], 0, 1], [0, second.size[1], 1]])
        corners = np.vstack([corners, [*second.size, 1]]) @ np.linalg.inv(pixels).T
        middle = np.clip(corners[:, :2], 0, first.size).mean(axis=0)
        off = float(np.hypot(*((there @ [*middle, 1])[:2] * um[1])))
        rows[f"{name} joined"] += off <= FALSE_UM
        if off > FALSE_UM:
            rows["joined at another place"] += 1
    strips = {
        f"< {most:g} um": [rows[f"< {most:g} um joined"], rows[f"< {most:g} um pairs"]]
        for most in STRIPS_UM
    }
    return {
        "joined_of_pairs": strips,
        "joined_at_another_place": rows["joined at another place"],
        "false_joins": dict(Counter(false)),
    }


def _cells(
    case: CaseResult,
    taken: list[Photograph],
    number: dict[int, int],
    labels: dict[str, list[tuple[float, ...]]],
) -> dict[str, Any]:
    """Follow each cell by where it lies in the field that was cut up."""
    at = {p.number: k for k, p in enumerate(case.placements)}
    whole = defaultdict(list)  # of each field, the boxes that a photograph shows whole
    for k, boxes in _found_whole(case):
        matrix = taken[number[k]].matrix
        if len(boxes):
            whole[taken[number[k]].field].extend(warp_boxes(boxes, matrix).tolist())
    counted = defaultdict(list)
    for cell in case.cells:
        if cell.counted:
            k = at[cell.shown.field]
            shown = next(c for c in case.fields[k].cells if c.id == cell.shown.id)
            box = warp_boxes(np.array([shown.box]), taken[number[k]].matrix)[0]
            counted[taken[number[k]].field].append(box)
    rows: Counter[str] = Counter()
    for field, listed in whole.items():
        cells = _distinct(np.array(listed))
        shown = np.array(counted.get(field, [])).reshape(-1, 4)
        times = _times(cells, shown)
        rows["cells"] += len(cells)
        rows["counted once"] += int((times == 1).sum())
        rows["lost"] += int((times == 0).sum())
        rows["counted more than once"] += int((times > 1).sum())
        true = np.array(labels[field.name]).reshape(-1, 4)
        seen = [float(iou(box[None], cells).max(initial=0.0)) >= SAME_CELL for box in true]
        times = _times(true[seen], shown)
        rows["labelled cells found"] += int(sum(seen))
        rows["labelled cells counted once"] += int((times == 1).sum())
    return dict(rows)


def _found_whole(case: CaseResult) -> Iterator[tuple[int, BoxArray]]:
    """Yield the boxes that each field that counts shows whole."""
    kind = case.model.classified
    for k, result in enumerate(case.fields):
        if case.placements[k].counted:
            margin = 1.0 / result.view.um_per_px_y
            size = np.array([result.image.width, result.image.height])
            boxes = np.array([c.box for c in result.cells if c.object_type == kind])
            boxes = boxes.reshape(-1, 4)
            inside = (boxes[:, :2] > margin) & (boxes[:, :2] + boxes[:, 2:] < size - margin)
            yield k, boxes[inside.all(axis=1)]


def _distinct(boxes: BoxArray) -> BoxArray:
    """Return one box of each group that lies at one place."""
    kept: list[int] = []
    for k in range(len(boxes)):
        if not kept or float(iou(boxes[k][None], boxes[kept]).max()) < SAME_CELL:
            kept.append(k)
    return boxes[kept]


def _times(cells: BoxArray, counted: BoxArray) -> Any:
    """Return how many counted boxes lie at the place of each cell."""
    if not len(cells) or not len(counted):
        return np.zeros(len(cells), int)
    likeness = iou(counted, cells)
    best = likeness.argmax(axis=1)[likeness.max(axis=1) >= 0.3]
    return np.bincount(best, minlength=len(cells))


def _whole(matrix: Any) -> Floats:
    return np.vstack([np.asarray(matrix, dtype=np.float64), [0.0, 0.0, 1.0]])


def main() -> None:
    """Judge all sets."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", nargs="*", default=["bcisc", "chula", "krd", "lld40x"])
    parser.add_argument("--fields", type=int, default=6, help="that are cut up, of each set")
    parser.add_argument("--cuts", type=int, default=8, help="photographs of each field")
    parser.add_argument("--share", type=float, default=0.55, help="least side of a photograph")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="folder for photographs and results")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    data = Path(os.environ["BLOODFILM_DATA"])
    records = [one_set(data, name, args) for name in args.sets]
    print(json.dumps(records, indent=1))
    if args.json:
        args.json.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()
