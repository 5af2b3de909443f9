"""Warp a field's boxes and region by an affine map into another image of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core import boxes as geometry
from bloodfilm.core.arrays import Floats
from bloodfilm.core.field import Cell
from bloodfilm.core.polygons import Point, Region

EDGE_SHARE = 0.004
"""A box within this share of the image's shorter side from the edge belongs to a cut cell."""
MIN_VISIBLE_FRACTION = 0.15
MIN_AREA_PX = 1.0


@dataclass(frozen=True)
class TransferCounts:
    """Numbers of a field's cells by outcome of the transfer.

    Attributes:
        carried: transferred, whole.
        clipped: transferred, cut at the target's edge (not counted as `carried`).
        cut: transferred as `ignore`: the source's edge cuts them, so their box is incomplete.
        left: outside the target, or nearly so.
        without_box: cells without a box.
    """

    carried: int = 0
    clipped: int = 0
    cut: int = 0
    left: int = 0
    without_box: int = 0


def warp_boxes(boxes: ArrayLike, matrix: ArrayLike) -> Floats:
    """Warp boxes (n, 4) x, y, w, h by a 2x3 map: the box of the inscribed ellipse of each.

    Cells are round, so the ellipse is closer to the cell than the corners: after a rotation by
    45 degrees the box of the corners has twice the area.
    """
    b, m = geometry.as_boxes(boxes), np.asarray(matrix, dtype=np.float64)
    centres = geometry.centres(b) @ m[:, :2].T + m[:, 2]
    half = np.sqrt((b[:, 2:] / 2) ** 2 @ (m[:, :2] ** 2).T)
    return np.concatenate([centres - half, 2 * half], axis=1)


def warp_cells(
    cells: Sequence[Cell], matrix: ArrayLike, source: tuple[int, int], target: tuple[int, int]
) -> tuple[tuple[Cell, ...], TransferCounts]:
    """Warp cells of a source image into a target image, and count the outcomes.

    `source` and `target` are (width, height). Classes, attributes and identities stay.
    """
    boxed = [c for c in cells if c.box is not None]
    given = geometry.as_boxes([c.box for c in boxed if c.box is not None])
    full = warp_boxes(given, matrix)
    clipped = geometry.clip(full, *target)
    visible = geometry.area(clipped) / np.maximum(geometry.area(full), 1e-9)
    cut = _cut(given, np.asarray(matrix, dtype=np.float64), source, target)
    kept: list[Cell] = []
    tally = dict.fromkeys(("carried", "clipped", "cut", "left"), 0)
    for cell, box, share, is_cut in zip(boxed, clipped, visible, cut, strict=True):
        if share < MIN_VISIBLE_FRACTION or box[2] * box[3] < MIN_AREA_PX:
            tally["left"] += 1
            continue
        x, y, w, h = (float(v) for v in box)
        outline = None if cell.outline is None else cell.outline.transform(matrix)
        ignore = cell.ignore or bool(is_cut)
        kept.append(replace(cell, box=(x, y, w, h), ignore=ignore, outline=outline))
        tally["cut" if is_cut else "clipped" if share < 1 - 1e-6 else "carried"] += 1
    return tuple(kept), TransferCounts(**tally, without_box=len(cells) - len(boxed))


def _cut(
    boxes: Floats, matrix: Floats, source: tuple[int, int], target: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether the source's edge cuts a cell (n,) that goes on inside the target."""
    corners = geometry.to_xyxy(boxes)
    middle = geometry.centres(boxes)
    margin = [EDGE_SHARE * min(size) for size in (source, target)]
    cut = np.zeros(len(boxes), dtype=bool)
    for side in range(4):
        axis = side % 2
        edge = source[axis] if side >= 2 else 0.0
        touches = np.abs(corners[:, side] - edge) <= margin[0]
        point = middle.copy()
        point[:, axis] = corners[:, side]
        there = point @ matrix[:, :2].T + matrix[:, 2]
        limits = np.array(target, dtype=np.float64)
        inside = ((there > margin[1]) & (there < limits - margin[1])).all(axis=1)
        cut |= touches & inside
    return cut


def warp_region(
    region: Region, matrix: ArrayLike, source: tuple[int, int], target: tuple[int, int]
) -> Region:
    """The annotated part of the target: the source's region, warped and clipped to both images."""
    frame = _frame(*source)
    known = [frame] if region.polygons is None else [_clip(p, *source) for p in region.polygons]
    m = np.asarray(matrix, dtype=np.float64)
    carried = []
    for polygon in known:
        if len(polygon) < 3:
            continue
        points = np.asarray(polygon) @ m[:, :2].T + m[:, 2]
        inside = _clip([(float(x), float(y)) for x, y in points], *target)
        if len(inside) >= 3 and _area(inside) > MIN_AREA_PX:
            carried.append(tuple(inside))
    if any(_area(p) >= (1 - 1e-9) * target[0] * target[1] for p in carried):
        return Region.everything()
    return Region(tuple(carried))


def _frame(width: float, height: float) -> list[Point]:
    return [(0.0, 0.0), (float(width), 0.0), (float(width), float(height)), (0.0, float(height))]


def _area(polygon: Sequence[Point]) -> float:
    x, y = np.asarray(polygon, dtype=np.float64).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _clip(polygon: Sequence[Point], width: float, height: float) -> list[Point]:
    """A polygon cut to a frame (Sutherland & Hodgman, CACM 17, 1974)."""
    points = list(polygon)
    for axis, limit, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
        kept: list[Point] = []
        for here, after in zip(points, points[1:] + points[:1], strict=True):
            a, b = sign * (here[axis] - limit), sign * (after[axis] - limit)
            if a >= 0:
                kept.append(here)
            if (a > 0 > b) or (a < 0 < b):
                t = a / (a - b)
                x, y = (float(h + t * (n - h)) for h, n in zip(here, after, strict=True))
                # Exactly on the edge: rounding could place it slightly outside.
                kept.append((limit, y) if axis == 0 else (x, limit))
        points = kept
    return points
