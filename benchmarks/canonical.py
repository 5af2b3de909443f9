"""How well the red cells give scale, pixel aspect ratio and white point, on the real data sets.

    python benchmarks/canonical.py [--data FOLDER] [--json FILE] [--every N] [--half 1|2]
    python benchmarks/canonical.py --detect [--single] [--sets chula krd ...] ...

Prints a table, one line per set (each LLD patient by itself), and writes the same as JSON. The
reference aspect ratio is 0.562 for LLD 40x and 1 elsewhere; the reference scale is the set's median
red-cell box that does not touch the edge, or what the data's description says. Nothing is tuned
here; what was chosen on one half of the slides or fields is confirmed on the other (`--half`).

With `--detect` the shipped bundle analyses each set as one folder, or field by field (`--single`),
and the table says how many of the boxed white cells it finds at IoU 0.5, how much else it calls
nucleated (right or wrong: most sets do not box every cell), and where scale and light come from.
"""

import argparse
import csv
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from bloodfilm.core.boxes import iou
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.core.results import FieldResult
from bloodfilm.formats import open_dataset
from bloodfilm.imaging.canonical import view_of
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.scale import MIN_CELLS, Group, Measurement, measure, pool
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.runner import analyze_many, by_folder

LLD_SQUEEZE = 0.562
OTHER_CAMERAS = {"chula": 52.0, "krd": None, "bcisc": None, "pig_wbc": None}
"""Sets read by the package's own readers, and what their description says of red cells, px."""
FOUND_IOU = 0.5
Boxes = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Set:
    """Images of one source, with the true pixel aspect ratio and red-cell boxes, if any.

    `diameter` is that of a red cell, px, where the set's description states it; `cells` are the
    boxed white cells, `groups` the slides of fields that are not independent.
    """

    name: str
    aspect: float
    background: tuple[int, int, int] | None = None
    images: list[Path] = field(default_factory=list)
    boxes: Callable[[Path, int, int], Boxes] | None = None
    diameter: float | None = None
    cells: dict[Path, Boxes] = field(default_factory=dict)
    groups: dict[Path, str] = field(default_factory=dict)


def yolo_boxes(path: Path, width: int, height: int, label: str = "1") -> Boxes:
    """Boxes of a class of a TXL image, px: 1 are red cells, 0 white ones."""
    table_file = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
    rows = [line.split() for line in table_file.read_text().splitlines()]
    table = np.array([r[1:5] for r in rows if r and r[0] == label], dtype=np.float64).reshape(-1, 4)
    table[:, :2] -= table[:, 2:] / 2
    return table * [width, height, width, height]


def voc_boxes(path: Path, _width: int, _height: int, label: str = "RBC") -> Boxes:
    """Boxes of a kind of cell of a BCCD image, px."""
    tree = ElementTree.parse(path.parent.parent / "Annotations" / f"{path.stem}.xml")
    rows = []
    for item in tree.iter("object"):
        if item.findtext("name") == label:
            keys = ("xmin", "ymin", "xmax", "ymax")
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{k}", "0")) for k in keys)
            rows.append((x0, y0, x1 - x0, y1 - y0))
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def collect(data: Path) -> list[Set]:
    """The sets under the data folder, LLD by patient and TXL by source."""
    sets: dict[str, Set] = {}
    for path in find_images([data / "lld40x" / "H_40X_C2" / "Images"]):
        patient = path.name.split("_")[0]
        name = f"LLD {patient}"
        sets.setdefault(name, Set(name, LLD_SQUEEZE, (163, 164, 155))).images.append(path)
    with (data / "txl_pbc" / "provenance.csv").open() as file:
        source = {row["image"]: row["source"] for row in csv.DictReader(file)}
    names = {
        "PBC": ("PBC", (255, 229, 202)),
        "Raabin-WBC(by size 575x575)": ("Raabin", (219, 186, 173)),
    }
    for path in find_images([data / "txl_pbc" / "images"]):
        if source[path.name] in names:
            name, background = names[source[path.name]]
            one = sets.setdefault(name, Set(name, 1.0, background, boxes=yolo_boxes))
            one.images.append(path)
    bccd = find_images([data / "bccd" / "JPEGImages"])
    sets["BCCD"] = Set("BCCD", 1.0, (205, 206, 199), bccd, voc_boxes)
    for name, diameter in OTHER_CAMERAS.items():
        sets[name] = other_camera(data / name, diameter)
    sets["LLD complete"] = complete_lld(data / "lld40x")
    for one in sets.values():
        if one.boxes is yolo_boxes:
            one.cells = {path: yolo_boxes(path, *size_of(path), label="0") for path in one.images}
        elif one.boxes is voc_boxes:
            one.cells = {path: voc_boxes(path, 0, 0, label="WBC") for path in one.images}
    return list(sets.values())


def other_camera(folder: Path, diameter: float | None) -> Set:
    """A set with boxed white cells, by the package's own reader."""
    fields = open_dataset(folder).fields
    cells = {f.path: boxes_of(c.box for c in f.cells if not c.ignore) for f in fields}
    groups = {f.path: f.patient or str(f.path) for f in fields}
    paths = [f.path for f in fields]
    return Set(folder.name, 1.0, None, paths, None, diameter, cells, groups)


def complete_lld(folder: Path) -> Set:
    """The fields of LLD in which every white cell is boxed."""
    images = folder / "H_40X_C2" / "Images" / "train"
    complete = json.loads((folder / "complete_boxes.json").read_text())
    cells = {images / name: boxes_of(boxes["wbc"]) for name, boxes in sorted(complete.items())}
    groups = {path: path.name.split("_")[0] for path in cells}
    return Set("LLD complete", LLD_SQUEEZE, None, list(cells), None, None, cells, groups)


def boxes_of(rows: Iterable[Sequence[float] | None]) -> Boxes:
    """Boxes (n, 4) of rows, without those that have none."""
    return np.array([r for r in rows if r is not None], dtype=np.float64).reshape(-1, 4)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file."""
    height, width = open_image(path).shape[:2]
    return width, height


def half_of(one: Set, half: int) -> Set:
    """Every other slide of a set, or every other field where slides are not known."""
    slides = sorted({one.groups.get(path, path.name) for path in one.images})
    chosen = set(slides[half - 1 :: 2])
    images = [path for path in one.images if one.groups.get(path, path.name) in chosen]
    return replace(one, images=images)


def share(values: list[bool]) -> float | None:
    """Fraction that is true; None of nothing."""
    return round(float(np.mean(values)), 3) if values else None


def axes_right(measurement: Measurement, sides: Boxes) -> bool:
    """Whether the single-field view puts both sides of a median box within 10 % of 7.5 um."""
    view = view_of(measurement)
    um = sides * [view.um_per_px_x, view.um_per_px_y]
    return bool((np.abs(um / RED_CELL_UM - 1) < 0.1).all())


def evaluate(one: Set, every: int) -> dict[str, Any]:
    """All figures of one set."""
    measured: list[Measurement] = []
    reference: list[Boxes] = []
    seconds = []
    for path in one.images[::every]:
        image = open_image(path)
        start = time.thread_time()
        measured.append(measure(image))
        seconds.append(time.thread_time() - start)
        if one.boxes:
            height, width = image.shape[:2]
            b = one.boxes(path, width, height)
            whole = (b[:, :2] > 2).all(axis=1)
            whole &= (b[:, 0] + b[:, 2] < width - 2) & (b[:, 1] + b[:, 3] < height - 2)
            reference.append(b[whole])
    pooled = pool(measured)
    main = pooled.groups[0] if pooled.groups else NOTHING
    measurable = [m for m in measured if m.is_measurable]
    result: dict[str, Any] = {
        "set": one.name,
        "fields": len(measured),
        "groups": len(pooled.groups),
        "pooled_squeeze": round(main.pixel_aspect_ratio, 4),
        "squeeze_error": round(main.pixel_aspect_ratio - one.aspect, 4),
        "pooled_diameter_px": round(main.diameter, 1),
        "cells_per_field": float(np.median([m.cells for m in measured])),
        "speak": share([m.is_measurable for m in measured]),
        "by_arcs": share([m.arcs >= MIN_CELLS for m in measured]),
        "squeeze_within_0.08": share(
            [abs(m.pixel_aspect_ratio - one.aspect) < 0.08 for m in measurable]
        ),
        "scale_within_10%_of_pooled": share(
            [abs(m.diameter / main.diameter - 1) < 0.1 for m in measurable]
        ),
        "white_point": [
            round(float(np.median(c))) for c in zip(*(m.white_point for m in measured), strict=True)
        ],
        "white_point_reference": one.background,
        "light": methods(m.corrections.illumination.method for m in measured),
        "cpu_ms": round(1e3 * float(np.median(seconds)), 1),
    }
    if one.diameter is not None:
        result["box_diameter_px"] = one.diameter
        result["pooled_over_box"] = round(main.diameter / one.diameter, 3)
        near = [abs(m.diameter / one.diameter - 1) < 0.15 for m in measurable]
        result["scale_within_15%_of_description"] = share(near)
    if one.boxes:
        boxes = np.vstack(reference)
        size = float(np.sqrt(np.median(boxes[:, 2] * boxes[:, 3])))
        result["box_diameter_px"] = round(size, 1)
        result["pooled_over_box"] = round(main.diameter / size, 3)
        near = [abs(m.diameter / size - 1) < 0.1 for m in measurable]
        result["scale_within_10%_of_boxes"] = share(near)
        sides = np.median(boxes[:, 2:], axis=0)
        result["view_axes_within_10%_of_boxes"] = share([axes_right(m, sides) for m in measurable])
        arcs = [m for m in measurable if m.cells < MIN_CELLS]
        result["arcs_within_10%_of_boxes"] = share([abs(m.diameter / size - 1) < 0.1 for m in arcs])
        sure = [m for m in measurable if m.confidence >= 0.6]
        result["speak_confidence_0.6"] = round(len(sure) / len(measured), 3)
        result["sure_within_10%_of_boxes"] = share([abs(m.diameter / size - 1) < 0.1 for m in sure])
    return result


COLUMNS = (
    ("set", "set"),
    ("fields", "fields"),
    ("pooled_squeeze", "squeeze"),
    ("squeeze_error", "error"),
    ("groups", "groups"),
    ("speak", "speak"),
    ("by_arcs", "by arcs"),
    ("squeeze_within_0.08", "sq<.08"),
    ("cells_per_field", "cells"),
    ("pooled_diameter_px", "px"),
    ("box_diameter_px", "box px"),
    ("pooled_over_box", "ratio"),
    ("scale_within_10%_of_pooled", "10%pool"),
    ("scale_within_10%_of_boxes", "10%box"),
    ("arcs_within_10%_of_boxes", "arcs10%"),
    ("view_axes_within_10%_of_boxes", "view10%"),
    ("speak_confidence_0.6", "sure"),
    ("sure_within_10%_of_boxes", "sure10%"),
    ("cpu_ms", "cpu ms"),
    ("white_point", "white"),
)


NOTHING = Group(0.0, 1.0, 0.0, 0, 0, 0.0, frozenset())
DETECT_COLUMNS = (
    ("set", "set"),
    ("fields", "fields"),
    ("cells", "cells"),
    ("found", "found"),
    ("other_per_field", "other"),
    ("red_per_field", "red"),
    ("diameter_px", "px"),
    ("reference_px", "ref px"),
    ("glare", "glare"),
    ("scale", "scale"),
    ("light", "light"),
)


def methods(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, commonest first."""
    return dict(Counter(names).most_common())


def detect(one: Set, model: Model, *, single: bool) -> dict[str, Any]:
    """What the shipped bundle finds in a set, and by which scale and light."""
    group = None if single else by_folder
    outcomes = list(analyze_many(one.images, model, workers=1, scale_group=group))
    results = [r for r in outcomes if isinstance(r, FieldResult)]
    nucleated, red = model.classified_type, model.bundle.manifest.roles.ruler
    hits = cells = others = reds = 0
    for path, outcome in zip(one.images, outcomes, strict=True):
        truth = one.cells.get(path, np.zeros((0, 4)))
        cells += len(truth)
        if isinstance(outcome, FieldResult):
            found = boxes_of(c.box for c in outcome.cells if c.object_type == nucleated)
            overlap = iou(found, truth)
            hit = int((overlap.max(axis=0, initial=0.0) >= FOUND_IOU).sum())
            hits, others = hits + hit, others + len(found) - hit
            reds += sum(c.object_type == red for c in outcome.cells)
    views = [r.view for r in results]
    sizes = [RED_CELL_UM / np.sqrt(v.um_per_px_x * v.um_per_px_y) for v in views]
    return {
        "set": one.name,
        "fields": len(outcomes),
        "failed": len(outcomes) - len(results),
        "cells": cells,
        "found": round(hits / max(cells, 1), 4),
        "other_per_field": round(others / max(len(results), 1), 2),
        "red_per_field": round(reds / max(len(results), 1), 1),
        "diameter_px": round(float(np.median(sizes)), 1),
        "reference_px": one.diameter,
        "glare": round(float(np.median([v.veiling_glare for v in views])), 2),
        "scale": methods(
            v.scale_source + (" by detector" if v.ruler == "detector" else "") for v in views
        ),
        "light": methods(v.illumination["method"] for v in views),
    }


def main() -> None:
    """Measure every set, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--every", type=int, default=1, help="use every n-th image only")
    parser.add_argument("--half", type=int, choices=(1, 2), help="every other slide or field only")
    parser.add_argument("--sets", nargs="+", help="these sets only")
    parser.add_argument("--detect", action="store_true", help="what the shipped bundle finds")
    parser.add_argument("--single", action="store_true", help="with --detect: field by field")
    parser.add_argument("--bundle", type=Path, help="with --detect: another bundle")
    given = parser.parse_args()
    if given.data is None:
        parser.error("name the data folder with --data or BLOODFILM_DATA")
    cv2.setNumThreads(1)
    sets = collect(Path(given.data))
    unknown = sorted(set(given.sets or ()) - {one.name for one in sets})
    if unknown:
        parser.error(f"no set {unknown[0]}; there are {', '.join(one.name for one in sets)}")
    if given.half:
        sets = [half_of(one, given.half) for one in sets]
    model = load_model(given.bundle, device="cpu") if given.detect else None
    columns = COLUMNS if model is None else DETECT_COLUMNS
    print("".join(f"{title:>9}" for _, title in columns))
    results = []
    for one in sets:
        if given.sets and one.name not in given.sets:
            continue
        if model is None:
            result = evaluate(one, given.every)
        elif one.cells:
            part = replace(one, images=one.images[:: given.every])
            result = detect(part, model, single=given.single)
        else:
            continue
        results.append(result)
        cells = ("-" if result.get(key) is None else str(result[key]) for key, _ in columns)
        print("".join(f" {cell:>8}" for cell in cells), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
