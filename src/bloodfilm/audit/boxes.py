"""Checks of boxes by their numbers alone: repeats, conflicts, slivers, edges."""

from collections.abc import Iterator, Sequence

import numpy as np

from bloodfilm.core.arrays import Bools
from bloodfilm.core.cell_table import IGNORE, MIN_CELL_SIDE, UNNAMED, CellTable
from bloodfilm.core.findings import Finding, finding_at
from bloodfilm.core.issues import Issue, Severity
from bloodfilm.duplicates.box_pairs import overlapping

EDGE = 3.0
ROUNDING = 0.5
SAME_CELL = 0.5
SAME_BOX = 0.9
EXACT = 0.02


def zero_size(table: CellTable) -> Iterator[Finding]:
    """Boxes that have no area or are no numbers."""
    box = table.box
    given = ~np.isnan(box).all(axis=1)
    for cell in np.flatnonzero(given & ~(_finite(table) & (box[:, 2:] > 0).all(axis=1))).tolist():
        x, y, w, h = box[cell]
        where = "" if np.isfinite([x, y]).all() else f" at {x:g}, {y:g}"
        message = f"the box of this {table.class_of(cell)} is {w:g} x {h:g} px{where}"
        yield finding_at(table, (cell,), Issue("zero-size", "error", message), "delete it", 1.0)


def outside(table: CellTable) -> Iterator[Finding]:
    """Boxes outside the image, and boxes that reach over its edge."""
    size = table.size[table.field]
    x, y, w, h = table.box.T
    with np.errstate(invalid="ignore"):
        over = np.max([-x, -y, x + w - size[:, 0], y + h - size[:, 1]], axis=0)
        cx, cy = x + w / 2, y + h / 2
        out = ~((cx > 0) & (cy > 0) & (cx < size[:, 0]) & (cy < size[:, 1]))
        sound = _finite(table) & (w > 0) & (h > 0) & np.isfinite(size).all(axis=1)
    for cell in np.flatnonzero(sound & (over > ROUNDING)).tolist():
        width, height = table.size[table.field[cell]].tolist()
        data = {
            "centre_inside": not out[cell],
            "px_over_edge": round(float(over[cell]), 2),
            "image_size": [width, height],
        }
        if out[cell]:
            message = f"the box's centre lies outside the {width:g} x {height:g} px image"
            issue, advice = Issue("outside", "error", message, data), "delete it"
        else:
            message = f"the box reaches {over[cell]:.3g} px over the image's edge"
            issue, advice = Issue("outside", "warning", message, data), "cut it at the edge"
        yield finding_at(table, (cell,), issue, advice, 1.0)


def slivers(table: CellTable) -> Iterator[Finding]:
    """Boxes of nucleated cells under 8 px wide or high."""
    with np.errstate(invalid="ignore"):
        side = table.box[:, 2:].min(axis=1)
        small = (side > 0) & (side < MIN_CELL_SIDE) & table.white & ~table.ignored & _finite(table)
    for cell in np.flatnonzero(small).tolist():
        message = f"the box is only {side[cell]:.3g} px across: no cell can be judged in it"
        issue = Issue("sliver", "error", message, {"side_px": round(float(side[cell]), 2)})
        yield finding_at(table, (cell,), issue, "name it `none`, or delete it", 0.95)


def cut_by_the_edge(table: CellTable) -> Iterator[Finding]:
    """Boxes of nucleated cells within 3 px of the field's edge, but inside the image."""
    size = table.size[table.field]
    x, y, w, h = table.box.T
    with np.errstate(invalid="ignore"):
        gap = np.min([x, y, size[:, 0] - x - w, size[:, 1] - y - h], axis=0)
        cut = (gap < EDGE) & (gap >= -ROUNDING) & (np.minimum(w, h) >= MIN_CELL_SIDE)
    for cell in np.flatnonzero(cut & table.white).tolist():
        px = max(float(gap[cell]), 0.0)
        message = f"the box is {px:.2g} px from the edge: the cell may be cut"
        issue = Issue("cut-by-edge", "info", message, {"px_from_edge": round(px, 2)})
        advice = "do not judge its size or shape by this box"
        yield finding_at(table, (cell,), issue, advice, 0.7)


def repeats_and_conflicts(table: CellTable) -> Iterator[Finding]:
    """Exact repeats, two boxes of one class on one cell, one box with two classes."""
    first, second, iou = overlapping(table.cells, SAME_CELL)
    for a, b, value in zip(first.tolist(), second.tolist(), iou.tolist(), strict=True):
        if table.label[a] == table.label[b]:
            yield _repeat(table, (a, b), value)
        else:
            yield _conflict(table, (a, b), value)


def _repeat(table: CellTable, pair: tuple[int, int], iou: float) -> Finding:
    a, b = pair
    name = table.class_of(a)
    data = {"class": name, "iou": round(iou, 4)}
    if float(np.abs(table.box[a] - table.box[b]).max()) < EXACT:
        differ = bool((table.codes[a] != table.codes[b]).any())
        note = "; their attributes differ" if differ else ""
        message = f"the same box with the same class ({name}) twice{note}"
        issue = Issue("exact-repeat", "error", message, data | {"attributes_differ": differ})
        return finding_at(table, pair, issue, "delete one", 1.0)
    message = f"two boxes of {name} share {iou:.0%} of their area: one cell marked twice"
    issue = Issue("same-cell-twice", "error", message, data)
    advice = "keep the box that fits better"
    return finding_at(table, pair, issue, advice, min(1.0, 0.5 + iou / 2))


def _conflict(table: CellTable, pair: tuple[int, int], iou: float) -> Finding:
    names = [table.class_of(c) for c in pair]
    message = f"one cell is named {names[0]} and {names[1]} (boxes share {iou:.0%} of their area)"
    mild = iou < SAME_BOX or IGNORE in names or UNNAMED in names or _nested(table, names)
    severity: Severity = "warning" if mild else "error"
    issue = Issue("two-classes", severity, message, {"classes": names, "iou": round(iou, 4)})
    advice = "let a morphologist decide; until then name it `none`"
    confidence = min(1.0, iou) if iou >= SAME_BOX else 0.5 * iou + 0.25
    return finding_at(table, pair, issue, advice, confidence)


def _nested(table: CellTable, names: Sequence[str]) -> bool:
    """Whether one class contains the other: one box names the cell more closely."""
    tree = table.taxonomy
    if any(name not in tree for name in names):
        return False
    return tree.is_under(names[0], names[1]) or tree.is_under(names[1], names[0])


def _finite(table: CellTable) -> Bools:
    return np.asarray(np.isfinite(table.box).all(axis=1))
