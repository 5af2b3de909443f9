"""Pairs of boxes that overlap, for a million boxes at once."""

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.cell_table import CellColumns

Numbers = NDArray[np.int64]


def overlapping(cells: CellColumns, min_iou: float) -> tuple[Numbers, Numbers, NDArray[np.float64]]:
    """Return (i, j, IoU) of all pairs of cells of one field whose IoU is above `min_iou`, i < j.

    Boxes are sorted by field and left side; each is compared with its k-th follower for
    k = 1, 2, ... as long as any still begins before it ends. Boxes without area are left out.
    """
    usable = np.flatnonzero(np.isfinite(cells.box).all(axis=1) & (cells.box[:, 2:] > 0).all(axis=1))
    x, y, w, h = cells.box[usable].T
    order = np.lexsort((x, cells.field[usable]))
    usable, x, y, w, h = usable[order], x[order], y[order], w[order], h[order]
    number = cells.field[usable]
    right, area = x + w, w * h
    active = np.arange(len(usable))
    firsts, seconds, values = [], [], []
    step = 0
    while len(active):
        step += 1
        active = active[active + step < len(usable)]
        other = active + step
        near = (number[other] == number[active]) & (x[other] < right[active])
        active, other = active[near], other[near]
        across = np.minimum(right[active], right[other]) - x[other]
        low = np.maximum(y[active], y[other])
        down = np.minimum(y[active] + h[active], y[other] + h[other]) - low
        shared = across * np.clip(down, 0, None)
        iou = shared / (area[active] + area[other] - shared)
        hit = iou > min_iou
        firsts.append(usable[active[hit]])
        seconds.append(usable[other[hit]])
        values.append(iou[hit])
    if not firsts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    one, two = np.concatenate(firsts), np.concatenate(seconds)
    first, second = np.minimum(one, two), np.maximum(one, two)
    sort = np.lexsort((second, first))
    return first[sort], second[sort], np.concatenate(values)[sort]
