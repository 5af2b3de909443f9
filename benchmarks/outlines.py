"""How well cells are outlined, as a user meets it: the whole analysis, with its own boxes.

    python benchmarks/outlines.py [--data FOLDER] [--bundle BUNDLE] ...

Two measurements: the Dice coefficient of whole cells against the 300 hand-drawn masks of KRD-WBC,
on which nothing was trained, and of cells and nuclei against N drawn films, whose seeds and looks
are none that training used. A boxed cell that the analysis does not find counts in the share
found, not in the Dice.
"""

import argparse
import csv
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.boxes import iou
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.inference.model import Model, load_model
from bloodfilm.synthetic import SceneSpec, render_field
from bloodfilm.synthetic.profiles import random_profile

MATCH_IOU = 0.3
DRAWN_SEED = 90_001
QUANTILES = (0.1, 0.5)

Mask = NDArray[np.bool_]


def filled(polygons: Any, shape: tuple[int, int]) -> Mask:
    """Return the mask of outlines, (H, W): the pixels whose middles lie inside."""
    mask = np.zeros(shape, np.bool_)
    for polygon in polygons:
        mask |= Region((polygon,)).mask(shape[1], shape[0])
    return mask


def dice(first: Mask, second: Mask) -> float:
    """Return the Dice coefficient of two masks."""
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else 1.0


def best(result: FieldResult, box: tuple[float, ...]) -> CellResult | None:
    """Return the outlined cell that lies on a box."""
    cells = [cell for cell in result.cells if cell.shape is not None]
    if not cells:
        return None
    overlaps = iou(np.array([c.box for c in cells]), np.array([box]))[:, 0]
    place = int(overlaps.argmax())
    return cells[place] if overlaps[place] >= MATCH_IOU else None


def on_krd(model: Model, folder: Path, every: int) -> Iterator[float | None]:
    """Yield the Dice of every boxed cell, `None` where it was not found."""
    with (folder / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::every]
    for row in rows:
        name = Path(row["image"]).name
        path = next(p for p in (folder / row["image"], folder / "images" / name) if p.exists())
        (place,) = (folder / "masks").glob(f"{path.stem}.*")
        mask = cv2.imread(str(place), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        result = model.analyze(path)
        box = tuple(float(row[k]) for k in ("x", "y", "w", "h"))
        cell = best(result, box)
        if cell is None or cell.shape is None:
            yield None
        else:
            yield dice(filled([cell.shape.outline], mask.shape[:2]), mask > 0)


def on_drawn(model: Model, fields: int) -> Iterator[tuple[float, float, float] | None]:
    """Yield Dice of cell and nucleus and the error of the nucleus's share, per whole drawn cell."""
    for number in range(fields):
        rng = np.random.default_rng([DRAWN_SEED, number])
        profile = replace(random_profile(rng, 560, 560), um_per_px=float(rng.uniform(0.08, 0.2)))
        spec = SceneSpec(whites=5, mix="even", cut=0.0)
        image, truth = render_field(profile, spec, seed=int(rng.integers(2**31)))
        result = model.analyze(image)
        for index, seen in enumerate(truth.visible):
            if seen.item.kind != "white" or seen.cut:
                continue
            cell = best(result, seen.box)
            if cell is None or cell.shape is None:
                yield None
                continue
            own, size = truth.mask(index), image.shape[:2]
            nucleus = own & truth.nuclei
            yield (
                dice(filled([cell.shape.outline], size), own),
                dice(filled(cell.shape.nucleus, size), nucleus),
                abs(cell.shape.nucleus_ratio - float(nucleus.sum() / own.sum())),
            )


def summary(values: list[float]) -> dict[str, float]:
    """Return mean and quantiles."""
    return {
        "mean": round(float(np.mean(values)), 4),
        **{f"q{int(q * 100)}": round(float(np.quantile(values, q)), 4) for q in QUANTILES},
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA", "."))
    parser.add_argument("--bundle", default=None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--drawn", type=int, default=60)
    parser.add_argument("--every", type=int, default=1)
    options = parser.parse_args()
    model = load_model(options.bundle)
    krd = list(on_krd(model, Path(options.data) / "krd", options.every))
    drawn = list(on_drawn(model, options.drawn))
    found = [d for d in drawn if d is not None]
    record = {
        "bundle": model.bundle.sha256,
        "krd": {
            "cells": len(krd),
            "found": sum(d is not None for d in krd),
            "dice": summary([d for d in krd if d is not None]),
        },
        "drawn": {
            "cells": len(drawn),
            "found": len(found),
            "dice_cell": summary([d[0] for d in found]),
            "dice_nucleus": summary([d[1] for d in found]),
            "nucleus_ratio_error": summary([d[2] for d in found]),
        },
    }
    text = json.dumps(record, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
