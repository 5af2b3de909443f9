"""BCCD (MIT): 364 fields with VOC boxes of white cells, red cells and platelets."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain
from bloodfilm.formats import voc
from bloodfilm.formats.shared.context import ReadOptions

# 7.5 um over red cells of 106 x 101 px, measured.
DOMAIN = Domain("BCCD", 100, squeeze=1.0, um_per_px=0.073)


def recognises(path: Path) -> bool:
    """Whether it is a VOC folder of BCCD's files."""
    return any((path / "Annotations").glob("BloodImage_*.xml"))


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read BCCD; its degenerate boxes are left out and reported."""
    boxes = voc.read(path, **options)
    fields = tuple(replace(field, domain=DOMAIN) for field in boxes)
    suspects = tuple(
        f"{field.path.name}: no white cell is boxed, though one may be there"
        for field in fields
        if not any(cell.label == "white cell" for cell in field.cells)
    )
    problems = boxes.problems + suspects
    return replace(boxes, name="BCCD", fields=fields, licence="MIT", problems=problems)
