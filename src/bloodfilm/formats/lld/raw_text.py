"""LLD's text labels as they stand on disk, line by line: 5, 11, 12, 15 or 16 columns, patches.

The reader lowers them to cells, the audit judges them, repair edits the lines.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bloodfilm.core import DataError
from bloodfilm.formats.lld.codes import CLASSES, Decoded, attributes_from_text, is_none
from bloodfilm.formats.lld.layout import Subset, text_files
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.parsing import read_text
from bloodfilm.formats.shared.paths import is_file
from bloodfilm.formats.shared.yolo_rows import Row, parse_rows
from bloodfilm.imaging.headers import image_size

WIDTHS = frozenset({5, 11, 12, 15, 16})
PATCH_WIDTHS = frozenset({15, 16})
PATCH_SCALE = 640  # the patch is in pixels of a 640 x 640 field
SLACK = 1.0  # pixels; labels are rounded, patches are whole pixels
USUAL_SIZE = (640, 640)

PATCH_ORDERS: dict[str, tuple[int, int, int, int]] = {
    "px1 px2 py1 py2": (0, 2, 1, 3),
    "x1 y1 x2 y2": (0, 1, 2, 3),
}
"""Both published orders of the patch columns -> where x1, y1, x2, y2 stand."""


def line_number(id: str) -> int | None:
    """Return the line, counted from 1, of an annotation's identity; `None` for one of another form.

    >>> line_number("line 3"), line_number("5")
    (3, None)
    """
    word, _, digits = id.partition(" ")
    return int(digits) if word == "line" and digits.isdecimal() else None


@dataclass(frozen=True)
class TextLabels:
    """One text label file.

    Attributes:
        subset, split: it belongs to.
        path: of the file.
        image: the image it is about, or where that should lie.
        size: (width, height) of the image; the usual one where that is not known.
        lines: as they stand; none if the file is no text.
        rows: the lines that could be read.
        faults: on the file, or on lines that could not be read.
        readable: whether the file is text.
    """

    subset: Subset
    split: str | None
    path: Path
    image: Path
    size: tuple[int, int]
    lines: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    faults: tuple[LabelFault, ...] = ()
    readable: bool = True

    @property
    def patched(self) -> tuple[Row, ...]:
        """The lines that have a patch."""
        return tuple(row for row in self.rows if _has_patch(row))

    @cached_property
    def orders(self) -> tuple[str, ...]:
        """The patch orders by which every box's centre lies in its patch."""
        patched = self.patched
        return tuple(o for o in PATCH_ORDERS if all(_fits(row, o, self.size) for row in patched))


def parse(
    subset: Subset, split: str | None, path: Path, image: Path, size: tuple[int, int] | None
) -> TextLabels:
    """Parse a text label file; what cannot be read is in its `faults`."""
    size = size or USUAL_SIZE
    try:
        lines = tuple(read_text(path).splitlines())
    except DataError as error:
        reason = str(error).removeprefix(f"{path}: ")
        fault = LabelFault("unreadable-labels", reason, outcome="; left out")
        return TextLabels(subset, split, path, image, size, faults=(fault,), readable=False)
    rows, faults = parse_rows(lines, size, WIDTHS)
    return TextLabels(subset, split, path, image, size, lines, tuple(rows), tuple(faults))


def read_folder(subset: Subset, folder: Path) -> list[TextLabels]:
    """Parse every label file of a folder of text labels, such as `txt_labels/AttriDet`."""
    found = []
    for path, split in text_files(folder):
        image = subset.find_image(f"{path.stem}.png", split)
        found.append(parse(subset, split, path, image, _size_of(image)))
    return found


def _size_of(image: Path) -> tuple[int, int] | None:
    try:
        return image_size(image) if is_file(image) else None
    except DataError:
        return None  # whoever opens it will find out why


# ---- lines -----------------------------------------------------------------------------------


def _has_patch(row: Row) -> bool:
    return 5 + len(row.rest) in PATCH_WIDTHS


def class_of(row: Row) -> str | None:
    """Return the name of a line's class; `None` for an id that LLD does not define."""
    return CLASSES.get(row.class_id)


def attributes_of(row: Row) -> Decoded:
    """Decode the attribute columns of a line."""
    columns = row.rest[4:] if _has_patch(row) else row.rest
    return attributes_from_text(columns, none=is_none(class_of(row) or ""))


# ---- patches ---------------------------------------------------------------------------------


def usual_order(files: Sequence[TextLabels]) -> tuple[str, int]:
    """Return the patch order that most files prove by fitting no other, and how many prove one."""
    proven = Counter(f.orders[0] for f in files if f.patched and len(f.orders) == 1)
    return max(PATCH_ORDERS, key=lambda order: proven[order]), proven.total()


def patch_of(row: Row, order: str, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return a line's patch as (x1, y1, x2, y2) in pixels of an image of that size."""
    x1, y1, x2, y2 = (row.rest[i] for i in PATCH_ORDERS[order])
    across, down = size[0] / PATCH_SCALE, size[1] / PATCH_SCALE
    return x1 * across, y1 * down, x2 * across, y2 * down


def _fits(row: Row, order: str, size: tuple[int, int]) -> bool:
    x1, y1, x2, y2 = patch_of(row, order, size)
    x, y = row.box[0] + row.box[2] / 2, row.box[1] + row.box[3] / 2
    inside = x1 - SLACK <= x <= x2 + SLACK and y1 - SLACK <= y <= y2 + SLACK
    return -math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf and inside
