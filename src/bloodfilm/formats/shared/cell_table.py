"""Tables of cells: a CSV file with one row per cell, its image, its class and, where drawn, a box.

Several public sets come so. What they have in common is that only the boxed cells are known: other
cells of a field may be unmarked, so a field's region is the union of its boxes and nothing more.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bloodfilm.core import Box, Cell, Domain, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.csv_text import Row
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.parsing import peek, read_csv
from bloodfilm.formats.shared.paths import is_file, split_of

TABLE = "cells.csv"
BOX = ("x", "y", "w", "h")


@dataclass(frozen=True)
class TableImage:
    """The rows of one image.

    Attributes:
        path: of the image; where it should lie, if it is missing.
        size: its (width, height); `None` if it was not asked for or cannot be read.
        rows: its rows by column, in the order of the table.
        cells: the cells of the rows that have a box.
    """

    path: Path
    size: tuple[int, int] | None
    rows: tuple[Row, ...]
    cells: tuple[Cell, ...]

    @property
    def boxed_region(self) -> Region:
        """The union of the boxes: outside it nothing is known."""
        return Region.union(Region.rect(*cell.box) for cell in self.cells if cell.box is not None)

    @property
    def split(self) -> str | None:
        """The split that the first row states."""
        return split_of(self.rows[0].get("split", ""))

    def to_field(self, domain: Domain, **more: Any) -> Field:
        """Return the image as a field of which the boxed cells alone are known.

        Args:
            domain: of the field.
            more: other attributes of `Field`, e.g. its patient.
        """
        width, height = self.size or (None, None)
        return Field(self.path, width, height, self.cells, self.boxed_region, domain, **more)

    def common(self, column: str) -> str:
        """Return the values of a column, each once, e.g. the classes of a field."""
        return ", ".join(dict.fromkeys(row[column] for row in self.rows if row[column]))


def header_of(folder: Path) -> frozenset[str]:
    """Return the column names of a folder's table; none if there is no table."""
    first = peek(folder / TABLE).decode("utf-8-sig", "replace").splitlines()[:1]
    return frozenset(name.strip() for line in first for name in line.split(","))


def read_table(
    reading: ReadContext, columns: Iterable[str], *, boxes: bool = True
) -> Iterator[TableImage]:
    """Yield the images of `cells.csv` in its order, each with all of its rows.

    Args:
        reading: the set; images are looked for below it.
        columns: those the table must have besides `image` and `class`.
        boxes: whether it has the columns x, y, w, h, in pixels; a row may leave all four empty.
    """
    file = reading.root / TABLE
    needed = ("image", "class", *columns, *(BOX if boxes else ()))
    images: dict[str, list[Row]] = {}
    for row in read_csv(file, needed):
        images.setdefault(row["image"], []).append(row)
    for name, rows in images.items():
        path = reading.find(name, near=reading.root) or reading.root / "images" / name
        size = reading.size(path) if boxes and is_file(path) else None
        found = (_cell(reading, file, row, size) for row in rows) if boxes else ()
        yield TableImage(path, size, tuple(rows), tuple(filter(None, found)))


def _cell(reading: ReadContext, file: Path, row: Row, size: tuple[int, int] | None) -> Cell | None:
    stated = [row[name].strip() for name in BOX]
    if not any(stated):
        return None
    place = f"line {row.line}"
    try:
        x, y, w, h = (float(value) for value in stated)
    except ValueError:
        reading.report(
            codes.UNUSABLE_SHAPE,
            file,
            place,
            f"box {', '.join(stated)} is not four numbers, left out",
        )
        return None
    box: Box | None = reading.box((x, y, w, h), size, file, place)
    if box is None:
        return None
    label, ignore = reading.label(row["class"])
    return Cell(box, label, ignore=ignore)
