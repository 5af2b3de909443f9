"""The table of cells: one row a cell, the same columns in the CSV, the report and the terminal."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from bloodfilm.core.attributes import Schema
from bloodfilm.core.files import atomic_write
from bloodfilm.core.results import CellResult, FieldResult

FIXED_COLUMNS = ("image", "x", "y", "w", "h", "score", "kind", "class", "class_score")
LAST_COLUMNS = ("flags", "diameter_um", "stain_contrast")

# A spreadsheet takes a text that starts with one of these for a formula and runs it.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def cell_columns(schema: Schema) -> tuple[str, ...]:
    """Return the column names of `cells.csv` for a bundle with these attributes."""
    attributes = (column for name in schema.names for column in (name, f"{name}_probability"))
    return (*FIXED_COLUMNS, *attributes, *LAST_COLUMNS)


def cell_row(image: str, cell: CellResult, schema: Schema) -> tuple[str, ...]:
    """Return one cell as text, in the order of `cell_columns`.

    Box in pixels of the original image, one decimal; probabilities with four; micrometres with two;
    stain contrast with three.
    An attribute the model is not sure of has an empty value and the probability of its best guess;
    one it never learnt, or does not answer for this kind of cell, has both empty.
    """
    box = (f"{v:.1f}" for v in cell.box)
    attributes: list[str] = []
    for name in schema.names:
        answer = cell.attributes.get(name)
        if answer is None or (answer.value is None and answer.probability <= 0):
            attributes += ["", ""]
        else:
            attributes += [answer.value or "", f"{answer.probability:.4f}"]
    diameter = "" if cell.diameter_um is None else f"{cell.diameter_um:.2f}"
    contrast = "" if cell.stain_contrast is None else f"{cell.stain_contrast:.3f}"
    return (
        _no_formula(image),
        *box,
        f"{cell.score:.4f}",
        cell.kind,
        cell.label,
        f"{cell.label_score:.4f}",
        *attributes,
        "; ".join(cell.flags),
        diameter,
        contrast,
    )


def cells_table(fields: Iterable[FieldResult], schema: Schema) -> Iterator[tuple[str, ...]]:
    """Yield every cell's row, fields in the given order, cells by position."""
    for result in fields:
        for cell in result.cells:
            yield cell_row(result.path, cell, schema)


def write_cells_csv(path: Path, fields: Iterable[FieldResult], schema: Schema) -> int:
    """Write `cells.csv` (UTF-8, comma, one header line) whole or not at all; return its rows."""
    rows = 0
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(cell_columns(schema))
        for row in cells_table(fields, schema):
            writer.writerow(row)
            rows += 1
    return rows


def describe_columns(schema: Schema) -> tuple[tuple[str, str], ...]:
    """Return what each column of `cells.csv` holds, in plain words."""
    fixed = (
        ("image", "file the cell was found in, as it was named to the program"),
        ("x, y", "top left corner of the box, pixels of the original image, x right, y down"),
        ("w, h", "width and height of the box, pixels of the original image"),
        ("score", "how sure the program is that there is such a cell, 0 to 1"),
        ("kind", "what the detector took it for: nucleated cell, red cell or platelet"),
        ("class", "deepest name in the tree of cells that the model is sure enough of"),
        ("class_score", "probability of that name, 0 to 1"),
    )
    attributes = tuple(
        (
            f"{a.name}, {a.name}_probability",
            f"{a.title}: {', '.join(a.values)}; empty with a probability: not sure; "
            "both empty: not learnt, or not asked of this kind of cell",
        )
        for a in schema.attributes
    )
    last = (
        ("flags", "doubts in plain words, separated by “; ”"),
        ("diameter_um", "mean of the box's sides in micrometres; empty where the scale is unknown"),
        (
            "stain_contrast",
            "what a nucleated cell absorbs apart from the colour of its field's red cells, natural "
            "logarithm; empty where too few red cells, or no colour, can tell",
        ),
    )
    return (*fixed, *attributes, *last)


def _no_formula(image: str) -> str:
    """Name the same file in a way that no spreadsheet runs as a formula."""
    return f"./{image}" if image.startswith(_FORMULA_STARTS) else image
