"""Checks of boxes by their numbers alone: repeats, conflicts, slivers, edges."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.cell_table import IGNORE, UNNAMED, Table
from bloodfilm.audit.finding import Finding, Severity
from bloodfilm.duplicates.box_pairs import overlapping

MIN_SIDE = 8.0
EDGE = 3.0
ROUNDING = 0.5
SAME_CELL = 0.5
SAME_BOX = 0.9
EXACT = 0.02


def zero_size(table: Table) -> Iterator[Finding]:
    """Boxes that have no area or are no numbers."""
    box = table.box
    given = ~np.isnan(box).all(axis=1)
    for cell in np.flatnonzero(given & ~(_finite(table) & (box[:, 2:] > 0).all(axis=1))):
        w, h = box[cell, 2:]
        what = f"the box of this {table.class_of(int(cell))} is {w:g} x {h:g} px"
        yield _of(table, "zero size", "error", (int(cell),), what, "delete it", 1.0)


def outside(table: Table) -> Iterator[Finding]:
    """Boxes outside the image, and boxes that reach over its edge."""
    size = table.size[table.field]
    x, y, w, h = table.box.T
    with np.errstate(invalid="ignore"):
        over = np.max([-x, -y, x + w - size[:, 0], y + h - size[:, 1]], axis=0)
        cx, cy = x + w / 2, y + h / 2
        out = ~((cx > 0) & (cy > 0) & (cx < size[:, 0]) & (cy < size[:, 1]))
        sound = _finite(table) & (w > 0) & (h > 0) & np.isfinite(size).all(axis=1)
    for cell in np.flatnonzero(sound & (over > ROUNDING)).tolist():
        width, height = table.size[table.field[cell]]
        if out[cell]:
            what = f"the box's centre lies outside the {width:g} x {height:g} px image"
            yield _of(table, "outside", "error", (cell,), what, "delete it", 1.0)
        else:
            what = f"the box reaches {over[cell]:.3g} px over the image's edge"
            yield _of(table, "outside", "warning", (cell,), what, "cut it at the edge", 1.0)


def slivers(table: Table) -> Iterator[Finding]:
    """Boxes of nucleated cells under 8 px wide or high."""
    with np.errstate(invalid="ignore"):
        side = table.box[:, 2:].min(axis=1)
        small = (side > 0) & (side < MIN_SIDE) & table.white & ~table.ignored & _finite(table)
    for cell in np.flatnonzero(small).tolist():
        what = f"the box is only {side[cell]:.3g} px across: no cell can be judged in it"
        yield _of(table, "sliver", "error", (cell,), what, "name it `none`, or delete it", 0.95)


def cut_by_the_edge(table: Table) -> Iterator[Finding]:
    """Boxes of nucleated cells within 3 px of the field's edge, but inside the image."""
    size = table.size[table.field]
    x, y, w, h = table.box.T
    with np.errstate(invalid="ignore"):
        gap = np.min([x, y, size[:, 0] - x - w, size[:, 1] - y - h], axis=0)
        cut = (gap < EDGE) & (gap >= -ROUNDING) & (np.minimum(w, h) >= MIN_SIDE)
    for cell in np.flatnonzero(cut & table.white).tolist():
        what = f"the box is {max(gap[cell], 0):.2g} px from the edge: the cell may be cut"
        hint = "do not judge its size or shape by this box"
        yield _of(table, "cut by the edge", "info", (cell,), what, hint, 0.7)


def repeats_and_conflicts(table: Table) -> Iterator[Finding]:
    """Exact repeats, two boxes of one class on one cell, one box with two classes."""
    first, second, iou = overlapping(table, SAME_CELL)
    for a, b, value in zip(first.tolist(), second.tolist(), iou.tolist(), strict=True):
        if table.label[a] == table.label[b]:
            yield _repeat(table, (a, b), value)
        else:
            yield _conflict(table, (a, b), value)


def _repeat(table: Table, pair: tuple[int, int], iou: float) -> Finding:
    a, b = pair
    name = table.class_of(a)
    if float(np.abs(table.box[a] - table.box[b]).max()) < EXACT:
        differ = (table.codes[a] != table.codes[b]).any()
        note = "; their attributes differ" if differ else ""
        what = f"the same box with the same class ({name}) twice{note}"
        return _of(table, "exact repeat", "error", pair, what, "delete one", 1.0)
    what = f"two boxes of {name} share {iou:.0%} of their area: one cell marked twice"
    hint = "keep the box that fits better"
    return _of(table, "same cell twice", "error", pair, what, hint, min(1.0, 0.5 + iou / 2))


def _conflict(table: Table, pair: tuple[int, int], iou: float) -> Finding:
    names = [table.class_of(c) for c in pair]
    what = f"one cell is named {names[0]} and {names[1]} (boxes share {iou:.0%} of their area)"
    mild = iou < SAME_BOX or IGNORE in names or UNNAMED in names or _nested(table, names)
    severity: Severity = "warning" if mild else "error"
    hint = "let a morphologist decide; until then name it `none`"
    sure = min(1.0, iou) if iou >= SAME_BOX else 0.5 * iou + 0.25
    return _of(table, "two classes", severity, pair, what, hint, sure)


def _nested(table: Table, names: list[str]) -> bool:
    """Whether one class holds the other: said twice, more and less closely."""
    tree = table.taxonomy
    if any(name not in tree for name in names):
        return False
    return tree.is_under(names[0], names[1]) or tree.is_under(names[1], names[0])


def _finite(table: Table) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(table.box).all(axis=1))


def _of(
    table: Table,
    kind: str,
    severity: Severity,
    cells: Sequence[int],
    what: str,
    hint: str,
    sure: float,
) -> Finding:
    return at_cells(table, Finding(kind, severity, "", what, hint, sure), cells)


def at_cells(table: Table, finding: Finding, cells: Sequence[int]) -> Finding:
    """Return the finding placed at cells of one field."""
    return replace(
        finding,
        file=table.rows[int(table.field[cells[0]])].path,
        annotations=tuple(str(table.ids[c]) for c in cells),
        boxes=tuple(table.box_of(c) for c in cells),
    )
