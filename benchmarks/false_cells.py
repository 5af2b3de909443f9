"""White cells reported on fields that hold none.

    python benchmarks/false_cells.py [--fields 100] [--seed 77] [--bundle DIR] [--json FILE]
        [--pictures DIR]

Draws fields without white cells: spherocytes, target cells, crenated and polychromatic red cells,
elliptocytes, crystals, fibres, stain deposits, giant platelets, clumps of platelets and overlapping
red cells, in all profiles and in random stains, optics and scales. The whole analysis runs on each
field by itself. A false white cell is a cell of the classified type that is not named as something
outside the differential. The seed is not that of fields drawn for training.
"""

import argparse
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bloodfilm.core.boxes import centres
from bloodfilm.core.field import Field
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.model import Model, load_model
from bloodfilm.inference.runner import analyze_many
from bloodfilm.synthetic import write_hard_fields

OTHER = "other object"
SIDE = 160
"""Side of a picture, px."""


@dataclass(frozen=True)
class FalseCells:
    """What was reported on fields without white cells.

    Attributes:
        fields: how many; assumed_scale: of these without a measured scale.
        false_cells: white cells reported in all of them, and per 100 fields.
        on: what lies under them, commonest first; names: what they were called.
        looks: false cells by profile.
    """

    bundle: str
    fields: int
    assumed_scale: int
    false_cells: int
    per_100_fields: float
    on: dict[str, int]
    names: dict[str, int]
    looks: dict[str, int]


def false_cells(result: FieldResult, model: Model) -> list[CellResult]:
    """Return the cells of the classified type that are named as such or not named."""
    tree = model.taxonomy
    return [
        c
        for c in result.cells
        if c.object_type == model.classified_type
        and not (OTHER in tree and c.label in tree and tree.is_under(c.label, OTHER))
    ]


def under(cell: CellResult, field: Field) -> str:
    """Return what an annotated field holds where a cell was reported."""
    centre = centres(np.array([cell.box], dtype=np.float64))[0]
    names = []
    for known in field.cells:
        if known.box is not None and known.label is not None:
            x, y, w, h = known.box
            if x < centre[0] < x + w and y < centre[1] < y + h:
                names.append(known.label)
    return next((n for n in names if n != "red cell"), names[0] if names else "nothing labelled")


def picture(path: Path, cell: CellResult) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the surroundings of a cell, its box drawn."""
    image = open_image(path).copy()
    x, y, w, h = (round(v) for v in cell.box)
    cv2.rectangle(image, (x, y), (x + w, y + h), (255, 0, 0), 1)
    half = round(0.9 * max(w, h))
    cx, cy = x + w // 2, y + h // 2
    around = image[max(cy - half, 0) : cy + half, max(cx - half, 0) : cx + half]
    return np.asarray(cv2.resize(around, (SIDE, SIDE)), dtype=np.uint8)


def measure(model: Model, folder: Path, n: int, seed: int, pictures: Path | None) -> FalseCells:
    """Draw fields, analyse each by itself and count."""
    fields = write_hard_fields(folder, n, empty=True, seed=seed).fields
    on: Counter[str] = Counter()
    names: Counter[str] = Counter()
    looks: Counter[str] = Counter()
    assumed = 0
    outcomes = analyze_many([f.path for f in fields], model, workers=1, scale_group=None)
    for field, outcome in zip(fields, outcomes, strict=True):
        if not isinstance(outcome, FieldResult):
            raise SystemExit(f"{outcome.path}: {outcome.reason}")
        assumed += outcome.view.scale_source == "assumed"
        for number, cell in enumerate(false_cells(outcome, model)):
            on[under(cell, field)] += 1
            names[cell.label or "not named"] += 1
            looks[field.meta["look"]] += 1
            if pictures is not None:
                pictures.mkdir(parents=True, exist_ok=True)
                target = pictures / f"{field.path.stem}_{number}.png"
                cv2.imwrite(str(target), picture(field.path, cell)[..., ::-1])
    total = on.total()
    return FalseCells(
        model.bundle.manifest.name,
        n,
        assumed,
        total,
        round(100 * total / n, 1),
        dict(on.most_common()),
        dict(names.most_common()),
        dict(looks.most_common()),
    )


def main() -> None:
    """Measure and print; write JSON and pictures where asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fields", type=int, default=100, help="how many to draw")
    parser.add_argument("--seed", type=int, default=77, help="of the drawing")
    parser.add_argument("--bundle", type=Path, help="another bundle than the shipped one")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--pictures", type=Path, help="write a picture of each false cell here")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    model = load_model(given.bundle, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        found = measure(model, Path(folder), given.fields, given.seed, given.pictures)
    text = json.dumps(asdict(found), indent=1)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
