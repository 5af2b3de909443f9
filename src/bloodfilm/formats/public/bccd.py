"""BCCD (MIT): 364 fields with VOC boxes of white cells, red cells and platelets."""

from dataclasses import replace
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Dataset, Domain, Field
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.formats import voc
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.parsing import read_csv

# 7.5 um over red cells of 106 x 101 px, measured.
DOMAIN = Domain("BCCD", 100, pixel_aspect_ratio=1.0, um_per_px=0.073)
TYPES = "types.csv"
WHITE_CELL = "white cell"


def recognises(path: Path) -> bool:
    """Whether it is a VOC folder of BCCD's files."""
    return any((path / "Annotations").glob("BloodImage_*.xml"))


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read BCCD; its degenerate boxes are left out and reported.

    Where `types.csv` lies beside the annotations (columns image, class), it names the white cell of
    fields that hold one; for a field with several white cells it cannot say which, and is reported.
    """
    boxes = voc.read(path, **options)
    options["taxonomy"] = boxes.taxonomy
    reading = ReadContext(Path(path), **options)
    types = _types(reading)
    fields = tuple(
        replace(_typed(reading, field, types.pop(field.path.name, None)), domain=DOMAIN)
        for field in boxes
    )
    for name in types:
        reading.report(codes.ORPHAN, reading.root / TYPES, name, "is no image of the set, left out")
    suspects = tuple(
        dataset_issue(
            codes.LOOK_AT,
            f"{field.path.name}: no white cell is boxed, though one may be there",
            file=field.path.name,
        )
        for field in fields
        if not _white_cells(reading, field)
    )
    issues = (*boxes.issues, *reading.issues, *suspects)
    return replace(boxes, name="BCCD", fields=fields, licence="MIT", issues=issues)


def _types(reading: ReadContext) -> dict[str, str]:
    """Return image name -> class of its white cell, from `types.csv`, if it is there."""
    file = reading.root / TYPES
    if not file.is_file():
        return {}
    return {row["image"]: row["class"] for row in read_csv(file, ("image", "class"))}


def _white_cells(reading: ReadContext, field: Field) -> list[int]:
    """Return the places of a field's white cells in its list of cells."""
    if WHITE_CELL not in reading.taxonomy:
        return []
    under = reading.taxonomy.is_under
    return [i for i, c in enumerate(field.cells) if c.label and under(c.label, WHITE_CELL)]


def _typed(reading: ReadContext, field: Field, name: str | None) -> Field:
    """Return the field with its one white cell named."""
    if name is None:
        return field
    white = _white_cells(reading, field)
    if len(white) != 1:
        reading.report(
            codes.NAMES_DIFFER,
            reading.root / TYPES,
            field.path.name,
            f"{name!r} is said of a field with {len(white)} boxed white cells; not used",
        )
        return field
    label, ignore = reading.label(name)
    cells = list(field.cells)
    cells[white[0]] = replace(cells[white[0]], label=label or WHITE_CELL, ignore=ignore)
    return field.with_cells(tuple(cells))
