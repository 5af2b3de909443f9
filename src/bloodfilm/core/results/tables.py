"""The table of cells: the same rows and columns in cells.csv, data frames and the report."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

from bloodfilm.core.attributes import Schema
from bloodfilm.core.csv_text import csv_line, guard
from bloodfilm.core.optional import optional
from bloodfilm.core.results.cell import CellResult
from bloodfilm.core.results.shape import CellShape

CELLS_TABLE = "cells.csv"
"""Name of the table in the folder of an analysis."""
FIXED_COLUMNS = ("image", "x", "y", "w", "h", "score", "object_type", "class", "class_score")
SHAPE_COLUMNS = (
    "area_um2",
    "nucleus_area_um2",
    "nucleus_ratio",
    "circularity",
    "nucleus_circularity",
    "lobes",
)
LAST_COLUMNS = ("issues", "diameter_um", "stain_contrast", "cell_id")


def cell_columns(attributes: Sequence[str]) -> tuple[str, ...]:
    """Return the column names for these attributes.

    >>> cell_columns(["nucleoli"])[9:11]
    ('nucleoli', 'nucleoli_probability')
    """
    pairs = (column for name in attributes for column in (name, f"{name}_probability"))
    return (*FIXED_COLUMNS, *pairs, *SHAPE_COLUMNS, *LAST_COLUMNS)


_TEXTS = frozenset({"image", "object_type", "class", "issues", "cell_id"})


def number_columns(attributes: Sequence[str]) -> frozenset[str]:
    """Return the columns that hold numbers; all others hold text.

    >>> "lobes" in number_columns(["nucleoli"]), "nucleoli" in number_columns(["nucleoli"])
    (True, False)
    """
    return frozenset(cell_columns(attributes)) - _TEXTS - frozenset(attributes)


def cell_values(image: str, cell: CellResult, attributes: Sequence[str]) -> tuple[Any, ...]:
    """Return one cell in the order of `cell_columns`; `None` where nothing is known.

    Box in pixels of the original image, one decimal; probabilities with four; micrometres with two;
    stain contrast with three. An attribute without a probable value is `None` beside the
    probability of the best one; both are `None` where the model is not trained for it, or the
    classifier does not see this object type.
    """
    values: list[Any] = []
    for name in attributes:
        answer = cell.attributes.get(name)
        if answer is None or (answer.value is None and answer.probability <= 0):
            values += [None, None]
        else:
            values += [answer.value, round(answer.probability, 4)]
    return (
        image,
        *(round(v, 1) for v in cell.box),
        round(cell.confidence, 4),
        cell.object_type,
        cell.label,
        round(cell.label_confidence, 4),
        *values,
        *_shape_values(cell.shape),
        " ".join(issue.code for issue in cell.issues),
        None if cell.diameter_um is None else round(cell.diameter_um, 2),
        None if cell.stain_contrast is None else round(cell.stain_contrast, 3),
        cell.id,
    )


def _shape_values(shape: CellShape | None) -> tuple[Any, ...]:
    """Return the measurements of an outlined cell in the order of `SHAPE_COLUMNS`."""
    if shape is None:
        return (None,) * len(SHAPE_COLUMNS)
    round_nucleus = shape.nucleus_circularity
    return (
        round(shape.area_um2, 2),
        round(shape.nucleus_area_um2, 2),
        round(shape.nucleus_ratio, 3),
        round(shape.circularity, 3),
        None if round_nucleus is None else round(round_nucleus, 3),
        shape.lobes,
    )


_FORMATS = {
    **dict.fromkeys(("x", "y", "w", "h"), ".1f"),
    "diameter_um": ".2f",
    "stain_contrast": ".3f",
    **dict.fromkeys(("area_um2", "nucleus_area_um2"), ".2f"),
    **dict.fromkeys(("nucleus_ratio", "circularity", "nucleus_circularity"), ".3f"),
}


class CellTableWriter:
    """Writes cells.csv (UTF-8, comma, one header line) row by row.

    No text in it is run by a spreadsheet (`core.csv_text`); a file name that looks like a formula
    gets `./` before it and is still the file's.
    """

    def __init__(self, file: TextIO, schema: Schema) -> None:
        """Write the header line."""
        self._names = schema.names
        self._columns = cell_columns(self._names)
        self._file = file
        self._file.write(csv_line(map(guard, self._columns)))

    def write(self, image: str, cells: Iterable[CellResult]) -> int:
        """Write one row per cell of an image; return how many."""
        name = f"./{image}" if guard(image) != image else image
        rows = 0
        for cell in cells:
            values = cell_values(name, cell, self._names)
            self._file.write(csv_line(map(_as_text, self._columns, values)))
            rows += 1
        return rows


def _as_text(column: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, _FORMATS.get(column, ".4f"))
    return guard(str(value))


def data_frame(
    images: Iterable[tuple[str, Iterable[CellResult]]], attributes: Sequence[str] | None = None
) -> Any:
    """Return a pandas DataFrame with one row per cell and the columns of cells.csv.

    Args:
        images: path and cells of every image.
        attributes: their names in order; `None` takes those that occur.
    """
    pandas = optional("pandas", install="bloodfilm[dataframe]", needed_by="to_dataframe")
    if attributes is None:
        kept = [(path, tuple(cells)) for path, cells in images]
        attributes = list(
            dict.fromkeys(n for _, cells in kept for c in cells for n in c.attributes)
        )
        images = kept
    names = tuple(attributes)
    rows: Iterator[tuple[Any, ...]] = (
        cell_values(path, cell, names) for path, cells in images for cell in cells
    )
    return pandas.DataFrame(list(rows), columns=list(cell_columns(names)))


def describe_columns(schema: Schema) -> tuple[tuple[str, str], ...]:
    """Return what each column of cells.csv holds."""
    fixed = (
        ("image", "path of the image, as given to the program"),
        ("x, y", "top left corner of the box in pixels of the original image, x right, y down"),
        ("w, h", "width and height of the box in pixels of the original image"),
        ("score", "confidence that there is such a cell, 0 to 1"),
        ("object_type", "class given by the detector: nucleated cell, red cell or platelet"),
        ("class", "deepest name in the tree of cells whose probability is high enough"),
        ("class_score", "probability of that name, 0 to 1"),
    )
    attributes = tuple(
        (
            f"{a.name}, {a.name}_probability",
            f"{a.title}: {', '.join(a.values)}; empty with a probability: not sure; "
            "both empty: the model is not trained for it, or it does not apply to this object type",
        )
        for a in schema.attributes
    )
    shape = (
        ("area_um2, nucleus_area_um2", "area inside the outline of cell and nucleus, um2"),
        ("nucleus_ratio", "area of the nucleus as a share of the cell's, 0 to 1"),
        (
            "circularity, nucleus_circularity",
            "4 pi area / perimeter^2 of the outline, 1 for a circle; empty for a nucleus that is "
            "not seen or in several pieces",
        ),
        ("lobes", "of the nucleus; 0 where none is seen"),
    )
    last = (
        ("issues", "codes of what to know before trusting the cell, separated by spaces"),
        ("diameter_um", "mean of the box's sides in micrometres; empty where the scale is unknown"),
        (
            "stain_contrast",
            "absorbance of a nucleated cell apart from the colour of its field's red cells, "
            "natural logarithm; empty where too few red cells or no colour were measured",
        ),
        ("cell_id", "identifies the cell; the same whenever the same image is analysed alike"),
    )
    return (*fixed, *attributes, *shape, *last)
