"""How well the red cells tell scale, squeeze and white point, on the real data sets.

    python benchmarks/canonical.py [--data FOLDER] [--json FILE] [--every N]

Prints a table, one line per set (each LLD patient by itself), and writes the same as JSON. The
reference squeeze is 0.562 for LLD 40x and 1 elsewhere; the reference scale is the set's median
red-cell box that does not touch the edge. Nothing is tuned here.
"""

import argparse
import csv
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np

from bloodfilm.imaging.canonical import view_of
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.scale import MIN_CELLS, RED_CELL_UM, Measurement, measure, pool
from bloodfilm.imaging.sources.image_file import open_image

LLD_SQUEEZE = 0.562
Boxes = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Set:
    """Images of one source, with the true squeeze and, where there are any, red-cell boxes."""

    name: str
    squeeze: float
    background: tuple[int, int, int] | None = None
    images: list[Path] = field(default_factory=list)
    boxes: Callable[[Path, int, int], Boxes] | None = None


def yolo_boxes(path: Path, width: int, height: int) -> Boxes:
    """Red-cell boxes (class 1) of a TXL image, px."""
    label = Path(str(path).replace("/images/", "/labels/")).with_suffix(".txt")
    rows = [line.split() for line in label.read_text().splitlines()]
    table = np.array([r[1:5] for r in rows if r and r[0] == "1"], dtype=np.float64).reshape(-1, 4)
    table[:, :2] -= table[:, 2:] / 2
    return table * [width, height, width, height]


def voc_boxes(path: Path, _width: int, _height: int) -> Boxes:
    """Red-cell boxes of a BCCD image, px."""
    tree = ElementTree.parse(path.parent.parent / "Annotations" / f"{path.stem}.xml")
    rows = []
    for item in tree.iter("object"):
        if item.findtext("name") == "RBC":
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
    return list(sets.values())


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
    main = pooled.groups[0]
    speaking = [m for m in measured if m.speaks]
    result: dict[str, Any] = {
        "set": one.name,
        "fields": len(measured),
        "groups": len(pooled.groups),
        "pooled_squeeze": round(main.squeeze, 4),
        "squeeze_error": round(main.squeeze - one.squeeze, 4),
        "pooled_diameter_px": round(main.diameter, 1),
        "cells_per_field": float(np.median([m.cells for m in measured])),
        "speak": share([m.speaks for m in measured]),
        "by_arcs": share([m.arcs >= MIN_CELLS for m in measured]),
        "squeeze_within_0.08": share([abs(m.squeeze - one.squeeze) < 0.08 for m in speaking]),
        "scale_within_10%_of_pooled": share(
            [abs(m.diameter / main.diameter - 1) < 0.1 for m in speaking]
        ),
        "white_point": [
            round(float(np.median(c))) for c in zip(*(m.white_point for m in measured), strict=True)
        ],
        "white_point_reference": one.background,
        "cpu_ms": round(1e3 * float(np.median(seconds)), 1),
    }
    if one.boxes:
        boxes = np.vstack(reference)
        size = float(np.sqrt(np.median(boxes[:, 2] * boxes[:, 3])))
        result["box_diameter_px"] = round(size, 1)
        result["pooled_over_box"] = round(main.diameter / size, 3)
        near = [abs(m.diameter / size - 1) < 0.1 for m in speaking]
        result["scale_within_10%_of_boxes"] = share(near)
        sides = np.median(boxes[:, 2:], axis=0)
        result["view_axes_within_10%_of_boxes"] = share([axes_right(m, sides) for m in speaking])
        arcs = [m for m in speaking if m.cells < MIN_CELLS]
        result["arcs_within_10%_of_boxes"] = share([abs(m.diameter / size - 1) < 0.1 for m in arcs])
        sure = [m for m in speaking if m.confidence >= 0.6]
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


def main() -> None:
    """Measure every set, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--every", type=int, default=1, help="use every n-th image only")
    given = parser.parse_args()
    if given.data is None:
        parser.error("name the data folder with --data or BLOODFILM_DATA")
    cv2.setNumThreads(1)
    print("".join(f"{title:>9}" for _, title in COLUMNS))
    results = []
    for one in collect(Path(given.data)):
        result = evaluate(one, given.every)
        results.append(result)
        cells = ("-" if result.get(key) is None else str(result[key]) for key, _ in COLUMNS)
        print("".join(f"{cell:>9}" for cell in cells), flush=True)
    if given.json:
        given.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
