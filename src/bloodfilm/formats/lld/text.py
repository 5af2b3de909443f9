"""LLD's text labels: 5, 11, 12, 15 or 16 columns; what each column is, and the patch order."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core import Cell, Region
from bloodfilm.formats.lld.codes import CLASSES, attributes_from_text, is_none
from bloodfilm.formats.shared.context import ReadContext
from bloodfilm.formats.shared.images import walk
from bloodfilm.formats.shared.yolo_rows import Row, read_rows

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


@dataclass(frozen=True)
class TextLabels:
    """One label file.

    Attributes:
        size: of its image; cells: that have a usable box; rows: how many lines could be read.
        patched: the lines that have a patch; fitting: the patch orders that fit all of them.
    """

    size: tuple[int, int]
    cells: tuple[Cell, ...]
    rows: int
    patched: tuple[Row, ...]
    fitting: tuple[str, ...]

    def order(self, usual: str) -> str:
        """Return the order its patches are read by: the usual one where both fit."""
        return usual if usual in self.fitting else self.fitting[0]

    def region(self, usual: str) -> Region:
        """Return where its cells are all known."""
        if not self.patched:
            return Region.everything()
        order = self.order(usual)
        patches = dict.fromkeys(_patch(row, order, self.size) for row in self.patched)
        return Region.union(_region(patch, self.size) for patch in patches)


def folders(subset: Path) -> list[Path]:
    """Return the folders of text labels of a subset: `txt_labels/AttriDet`, ..."""
    return [
        kind
        for base in sorted(subset.iterdir())
        if base.is_dir() and base.name.lower() == "txt_labels"
        for kind in sorted(base.iterdir())
        if kind.is_dir()
    ]


def richest(candidates: Sequence[Path]) -> Path:
    """Return the folder whose first label line has most columns."""
    return max(candidates, key=_columns)


def _columns(folder: Path) -> int:
    for place, names in walk(folder):
        for name in names:
            if name.endswith(".txt"):
                words = (place / name).read_bytes()[:4096].split(b"\n")[0].split()
                if words:
                    return len(words)
    return 0


def read_labels(reading: ReadContext, path: Path, size: tuple[int, int]) -> TextLabels | None:
    """Read one label file; `None` (reported) if it is no text or no patch order fits it."""
    rows = read_rows(reading, path, size, WIDTHS)
    if rows is None:
        return None
    patched = tuple(row for row in rows if 5 + len(row.rest) in PATCH_WIDTHS)
    cells = tuple(c for row in rows if (c := _cell(reading, path, row, size)))
    fitting = fitting_orders(patched, size)
    if patched and not fitting:
        what = "box centres lie outside the patch whichever way its columns are read; file left out"
        reading.report(path, "", what, "correct the patch columns")
        return None
    return TextLabels(size, cells, len(rows), patched, fitting)


def usual_order(reading: ReadContext, labels: Path, files: Sequence[TextLabels]) -> str:
    """Return the patch order most files prove by fitting no other, and say how sure that is."""
    patched = [file for file in files if file.patched]
    sure = Counter(file.fitting[0] for file in patched if len(file.fitting) == 1)
    usual = max(PATCH_ORDERS, key=lambda order: sure[order])
    if patched:
        orders = Counter(file.order(usual) for file in patched)
        listed = ", ".join(f"{count} files by {order}" for order, count in sorted(orders.items()))
        both = len(patched) - sure.total()
        reading.note(
            f"{reading.short(labels)}: patch columns read in {listed}"
            + (f"; {both} files fit both orders and are read as most others" if both else "")
        )
    return usual


def _patch(row: Row, order: str, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the row's patch as (x1, y1, x2, y2) in pixels of the image."""
    x1, y1, x2, y2 = (row.rest[i] for i in PATCH_ORDERS[order])
    across, down = size[0] / PATCH_SCALE, size[1] / PATCH_SCALE
    return x1 * across, y1 * down, x2 * across, y2 * down


def _region(patch: tuple[float, float, float, float], size: tuple[int, int]) -> Region:
    x1, y1, x2, y2 = patch
    if x1 <= 0 and y1 <= 0 and x2 >= size[0] and y2 >= size[1]:
        return Region.everything()
    return Region.rect(x1, y1, x2 - x1, y2 - y1)


def fitting_orders(rows: Sequence[Row], size: tuple[int, int]) -> tuple[str, ...]:
    """Return the patch orders by which every row's box centre lies in its patch."""
    return tuple(order for order in PATCH_ORDERS if _fits(rows, order, size))


def _fits(rows: Sequence[Row], order: str, size: tuple[int, int]) -> bool:
    for row in rows:
        x1, y1, x2, y2 = _patch(row, order, size)
        x, y = row.box[0] + row.box[2] / 2, row.box[1] + row.box[3] / 2
        inside = x1 - SLACK <= x <= x2 + SLACK and y1 - SLACK <= y <= y2 + SLACK
        if not (-math.inf < x1 < x2 < math.inf and -math.inf < y1 < y2 < math.inf and inside):
            return False
    return True


def _cell(reading: ReadContext, path: Path, row: Row, size: tuple[int, int]) -> Cell | None:
    box = reading.box(row.box, size, path, row.place)
    if box is None:
        return None
    name = CLASSES.get(row.class_id)
    if name is None:
        reading.report(path, row.place, f"class {row.class_id} is none of LLD's; kept unnamed")
        name = "unnamed"
    columns = row.rest[4:] if len(row.rest) in (10, 11) else row.rest
    attributes, faults = attributes_from_text(columns, none=is_none(name))
    for fault in faults:
        reading.report(path, row.place, fault)
    label, ignore = reading.label(name)
    return Cell(box, label, attributes, ignore)
