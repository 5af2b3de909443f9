"""How well annotations are carried from one photograph of a field to another.

    python benchmarks/transfer.py [--data FOLDER] [--pairs N] [--unrelated N] [--cache FOLDER]
                                  [--json FILE]

Three questions, a table each, and the same as JSON:

1. Real pairs (`lld_pairs`: one field at 100x and at 40x). Nobody knows the true map, so two
   measures that had no part in finding it: centres of red cells and nuclei, found in each
   photograph by itself and matched one to one after the map (median and 95th percentile of their
   distance; how many of those both show found a partner); and the way there and back, registered
   independently of each other (median distance from the start).
2. Rendered pairs of every two profiles, turned, shifted and mirrored at random: how many of the
   cells that both show arrive at an IoU of 0.5 or more.
3. Unrelated fields, rendered and real: how many are aligned although they should not be.
"""

import argparse
import json
import os
import pickle
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.core.boxes import iou
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.scale import measure
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.registration.align import Alignment, register
from bloodfilm.registration.pairing import by_name
from bloodfilm.registration.view import ImageCandidate
from bloodfilm.registration.warp import warp_cells
from bloodfilm.synthetic import (
    PROFILES,
    RegisteredPair,
    SceneSpec,
    ViewTransform,
    get_profile,
    render_pair,
)

Array = np.ndarray[Any, np.dtype[Any]]
PARTNER_PX = 20.0


def photograph(image: Array) -> ImageCandidate:
    return ImageCandidate(image, canonical_view(image))


def through(points: Array, matrix: Array) -> Array:
    return points @ matrix[:, :2].T + matrix[:, 2]


# ---- real pairs --------------------------------------------------------------------------------


def landmarks(image: Array) -> Array:
    """Centres (n, 2) of whole red cells and of nuclei, px."""
    found = measure(image)
    green = np.clip(255 * (1 - image[..., 1] / found.white_point[1]), 0, 255)
    # The darkest tenth of a field are red cells; nuclei take up clearly more green light.
    mask = (green > 1.3 * np.percentile(green, 90)).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats(mask)
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] > 400 and inside(stats[i])]
    return np.concatenate([found.centres, centres[large] + 0.5])


def inside(row: Array, size: int = 640) -> bool:
    x, y, w, h = row[:4]
    return bool(min(x, y) > 1 and x + w < size - 1 and y + h < size - 1)


def partners(first: Array, second: Array) -> Array:
    """Distances of points that are each other's nearest, at most `PARTNER_PX` apart."""
    gap = np.hypot(*(first[:, None] - second[None]).transpose(2, 0, 1))
    there, back = gap.argmin(axis=1), gap.argmin(axis=0)
    mutual = back[there] == np.arange(len(first))
    distance = gap[np.arange(len(first)), there]
    return distance[mutual & (distance < PARTNER_PX)]


def real_pairs(folder: Path) -> list[dict[str, Any]]:
    sources, targets = (find_images([folder / name]) for name in ("100x", "40x"))
    rows = []
    for s, t in by_name(sources, targets):
        first, second = open_image(sources[s]), open_image(targets[t])
        there = register(photograph(first), photograph(second))
        back = register(photograph(second), photograph(first))
        row = {"pair": f"{sources[s].stem} > {targets[t].stem}", "verdict": there.verdict}
        if there.matrix is not None and back.matrix is not None:
            row |= errors(first, second, there.matrix, back.matrix)
        rows.append(row | {"confidence": round(there.confidence, 4)})
    return rows


def errors(first: Array, second: Array, there: Array, back: Array) -> dict[str, Any]:
    height, width = second.shape[:2]
    moved, found = through(landmarks(first), there), landmarks(second)
    shown = ((moved > 25) & (moved < [width - 25, height - 25])).all(axis=1)
    gaps = partners(moved[shown], found)
    grid = np.stack(np.meshgrid(*[np.linspace(40, 600, 15)] * 2), axis=-1).reshape(-1, 2)
    loop = through(through(grid, there), back) - grid
    return {
        "landmarks": int(shown.sum()),
        "partners": len(gaps),
        "median_px": round(float(np.median(gaps)), 3),
        "p95_px": round(float(np.percentile(gaps, 95)), 3),
        "there_and_back_px": round(float(np.median(np.hypot(*loop.T))), 3),
    }


# ---- rendered pairs ----------------------------------------------------------------------------


def rendered(count: int, cache: Path | None) -> Iterator[tuple[str, RegisteredPair]]:
    """Pairs of every two profiles in random order; the 10x profile only as target, and smaller."""
    names = list(PROFILES)
    jobs = [(a, b) for a in names for b in names if a != "lld10x-like"]
    order = np.random.default_rng(5).permutation(len(jobs))
    for k in order[:count]:
        name = "__".join(jobs[k])
        kept = cache / f"{name}.pkl" if cache else None
        if kept and kept.exists():
            yield name, pickle.loads(kept.read_bytes())[0]
            continue
        pair, placement = draw(*jobs[k], int(k))
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(pickle.dumps((pair, placement)))
        yield name, pair


def draw(first: str, second: str, k: int) -> tuple[RegisteredPair, ViewTransform]:
    rng = np.random.default_rng([7, k])
    profiles = [get_profile(first), get_profile(second)]
    if second == "lld10x-like":
        profiles[1] = replace(profiles[1], width=256, height=256)
    extents = [min(p.width * p.um_x, p.height * p.um_per_px) for p in profiles]
    shift = 0.2 * min(extents) * rng.uniform(-1, 1, 2)
    degrees = float(rng.uniform(0, 360)) if rng.random() < 0.7 else float(rng.choice([0, 90, 180]))
    placement = ViewTransform(
        degrees, (float(shift[0]), float(shift[1])), bool(rng.random() < 0.33)
    )
    area = profiles[0].width * profiles[0].um_x * profiles[0].height * profiles[0].um_per_px
    spec = SceneSpec(whites=int(np.clip(area / 1500, 2, 6)))
    pair = render_pair(*profiles, spec=spec, placement=placement, seed=k + 100)
    return pair, placement


def arrived(pair: RegisteredPair, alignment: Alignment) -> dict[str, int]:
    """Cells both pictures show, and those carried to an IoU of 0.5; `whole`: not cut in either."""
    truths = pair.first[1], pair.second[1]
    there = {s.item.id: s for s in truths[1].visible if not s.ignore}
    sizes = [(t.width, t.height) for t in truths]
    counts = dict.fromkeys(("cells", "carried", "whole", "whole_carried", "ignored"), 0)
    carried = {}
    if alignment.aligned and alignment.matrix is not None:
        cells, _ = warp_cells(truths[0].cells, alignment.matrix, *sizes)
        carried = {c.id: c for c in cells}
    for seen in truths[0].of_kind("white", "erythroblast"):
        other = there.get(seen.item.id)
        if seen.ignore or other is None:
            continue
        got = carried.get(seen.item.id)
        good = bool(got and got.box and iou([got.box], [other.box])[0, 0] >= 0.5)
        whole = not seen.cut and not other.cut
        counts["cells"] += 1
        counts["carried"] += good
        counts["whole"] += whole
        counts["whole_carried"] += bool(whole and good and got is not None and not got.ignore)
        counts["ignored"] += bool(got is not None and got.ignore)
    return counts


def map_error(pair: RegisteredPair, alignment: Alignment) -> float:
    """Median distance, in um, from where cells truly are, over cells both show."""
    if alignment.matrix is None:
        return float("nan")
    truth = pair.second[1]
    boxes = [s.full_box for s in pair.first[1].of_kind("red", "white")]
    centres = np.array([[x + w / 2, y + h / 2] for x, y, w, h in boxes])
    right = through(centres, pair.matrix)
    shown = ((right > 0) & (right < [truth.width, truth.height])).all(axis=1)
    off = through(centres[shown], alignment.matrix) - right[shown]
    scale = np.linalg.inv(truth.matrix[:, :2])
    return float(np.median(np.hypot(*(off @ scale.T).T)))


def rendered_pairs(
    count: int, cache: Path | None
) -> tuple[list[dict[str, Any]], list[tuple[str, Array]]]:
    rows: list[dict[str, Any]] = []
    images = []
    for name, pair in rendered(count, cache):
        first, second = (photograph(picture[0]) for picture in (pair.first, pair.second))
        begin = time.process_time()
        alignment = register(first, second)
        row = {"pair": name.replace("__", " > "), "verdict": alignment.verdict}
        row |= {"mirrored": bool(np.linalg.det(pair.matrix[:, :2]) < 0)}
        row |= {"error_um": round(map_error(pair, alignment), 3), **arrived(pair, alignment)}
        row |= {"confidence": round(alignment.confidence, 4)}
        rows.append(row | {"seconds": round(time.process_time() - begin, 2)})
        images += [(f"{name} first", pair.first[0]), (f"{name} second", pair.second[0])]
    return rows, images


# ---- unrelated pairs ---------------------------------------------------------------------------


def unrelated(
    pools: list[tuple[str, ImageCandidate]], count: int, seed: int
) -> list[dict[str, Any]]:
    """Random pairs that cannot show the same cells, as `kin` tells by their names."""
    pairs = [
        (i, j)
        for i in range(len(pools))
        for j in range(len(pools))
        if i != j and kin(pools[i][0]) != kin(pools[j][0])
    ]
    rows = []
    for i, j in random.Random(seed).sample(pairs, min(count, len(pairs))):
        alignment = register(pools[i][1], pools[j][1])
        row = {"pair": f"{pools[i][0]} > {pools[j][0]}", "verdict": alignment.verdict}
        rows.append(row | {"confidence": round(alignment.confidence, 4)})
    return rows


def kin(name: str) -> str:
    """What photographs of overlapping fields have in common."""
    parts = parse_name(name)
    if parts is None:
        return name.rpartition(" ")[0]
    return f"{parts.patient} {parts.photograph}"


def real_fields(folder: Path, count: int) -> list[tuple[str, ImageCandidate]]:
    paths = find_images([folder])
    chosen = random.Random(3).sample(paths, min(count, len(paths)))
    return [(p.name, photograph(open_image(p))) for p in chosen]


# ---- the end -----------------------------------------------------------------------------------


def table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    if not rows:
        print("  (none)")
        return
    keys = list(rows[0])
    widths = [max(len(k), *(len(str(r.get(k, ""))) for r in rows)) for k in keys]
    print("  ".join(k.ljust(w) for k, w in zip(keys, widths, strict=True)))
    for row in rows:
        print("  ".join(str(row.get(k, "")).ljust(w) for k, w in zip(keys, widths, strict=True)))


def summarise(drawn: list[dict[str, Any]]) -> dict[str, Any]:
    total = {k: sum(r[k] for r in drawn) for k in ("cells", "carried", "whole", "whole_carried")}
    return {
        "pairs": len(drawn),
        "aligned": sum(r["verdict"] == "aligned" for r in drawn),
        "cells both show": total["cells"],
        "recall of boxes at IoU 0.5": round(total["carried"] / max(total["cells"], 1), 4),
        "whole cells": total["whole"],
        "recall of whole cells": round(total["whole_carried"] / max(total["whole"], 1), 4),
        "worst map error, um": max((r["error_um"] for r in drawn), default=None),
        "lowest confidence": min((r["confidence"] for r in drawn), default=None),
    }


def false_alarms(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "pairs": len(rows),
        "aligned": sum(r["verdict"] == "aligned" for r in rows),
        "highest confidence": max((r["confidence"] for r in rows), default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA"))
    parser.add_argument("--pairs", type=int, default=72)
    parser.add_argument("--unrelated", type=int, default=110)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    result: dict[str, Any] = {"command": " ".join(["python benchmarks/transfer.py", *sys.argv[1:]])}
    if given.data:
        result["real pairs"] = real_pairs(Path(given.data) / "lld_pairs")
        table("Real pairs, 100x to 40x (errors in px of the 640 px target)", result["real pairs"])
    drawn, images = rendered_pairs(given.pairs, given.cache)
    result["rendered pairs"] = drawn
    table("Rendered pairs", drawn)
    pictures = [(name, photograph(image)) for name, image in images[:24]]
    apart = unrelated(pictures, given.unrelated, seed=1)
    summary = {"rendered": summarise(drawn), "unrelated, rendered": false_alarms(apart)}
    if given.data:
        fields = real_fields(Path(given.data) / "lld40x", 24)
        strangers = unrelated(fields, given.unrelated, seed=2)
        summary["unrelated, real"] = false_alarms(strangers)
        apart = apart + strangers
    result["unrelated"] = apart
    table("Unrelated pairs, the ten most confident", sorted(apart, key=certainty)[:10])
    result["summary"] = summary
    print("\n" + json.dumps(summary, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")


def certainty(row: dict[str, Any]) -> float:
    return -float(row["confidence"])


if __name__ == "__main__":
    main()
