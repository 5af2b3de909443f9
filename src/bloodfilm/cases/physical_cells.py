"""Which boxes of overlapping fields are one physical cell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import BoxArray, Floats
from bloodfilm.core.boxes import area, clip, iou
from bloodfilm.registration.warp import warp_boxes

SAME_CELL = 0.35
"""IoU, within the glass that both fields show, from which two boxes are one cell."""
SAME_CELL_PREDICTED = 0.2
"""The same where the map between the fields follows from a chain of others, less exactly."""
MIN_VISIBLE_FRACTION = 0.15
"""A box of which less than this lies on common glass is not compared."""


@dataclass(frozen=True, eq=False)
class Junction:
    """Two fields that overlap: from the first's plane to the second's (2x3), um."""

    first: int
    second: int
    matrix: Floats
    predicted: bool = False


def same_boxes(
    first: BoxArray,
    second: BoxArray,
    junction: Junction,
    sizes: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Return (i, j, IoU) of boxes of two fields that are one object, each box once.

    Boxes are compared as far as both fields can show them, so that a cell cut by the edge of one
    field is recognised in the other.

    Args:
        first, second: boxes of the fields, um of their own planes.
        junction: how they overlap.
        sizes: width and height of the two fields, um.
    """
    nothing = np.zeros(0, np.intp)
    if not len(first) or not len(second):
        return nothing, nothing, np.zeros(0)
    back = inverted(junction.matrix)
    moved = warp_boxes(first, junction.matrix)
    returned = warp_boxes(second, back)
    here = clip(moved, *sizes[1])
    there = clip(returned, *sizes[0])
    seen_here = area(here) >= MIN_VISIBLE_FRACTION * area(moved)
    seen_there = area(there) >= MIN_VISIBLE_FRACTION * area(returned)
    one, two = np.flatnonzero(seen_here), np.flatnonzero(seen_there)
    if not len(one) or not len(two):
        return nothing, nothing, np.zeros(0)
    likeness = iou(here[one], warp_boxes(there[two], junction.matrix))
    best_two, best_one = likeness.argmax(axis=1), likeness.argmax(axis=0)
    rows = np.arange(len(one))
    value = likeness[rows, best_two]
    least = SAME_CELL_PREDICTED if junction.predicted else SAME_CELL
    mutual = (best_one[best_two] == rows) & (value >= least)
    return one[rows[mutual]], two[best_two[mutual]], value[mutual]


def inverted(matrix: Floats) -> Floats:
    """Return the 2x3 map that undoes another."""
    whole = np.vstack([matrix, [0.0, 0.0, 1.0]])
    return np.asarray(np.linalg.inv(whole)[:2], dtype=np.float64)


def inside(boxes: BoxArray, matrix: Floats, size: tuple[float, float]) -> BoxArray:
    """Return the boxes that a field shows whole, mapped to its plane, um.

    Args:
        boxes: (n, 4) in another plane.
        matrix: 2x3, from that plane to the field's.
        size: width and height of the field, um.
    """
    moved = warp_boxes(boxes, matrix)
    low, high = moved[:, :2], moved[:, :2] + moved[:, 2:]
    return moved[((low >= 0) & (high <= np.array(size))).all(axis=1)]


def join(owner: Sequence[int], matches: Iterable[tuple[int, int, float]]) -> NDArray[np.int64]:
    """Return a number per box, the same for boxes of one object: that of its lowest box.

    The best matches are joined first, and no object ever gets two boxes of one field.

    Args:
        owner: the field of each box.
        matches: (box, box, IoU).

    >>> join([0, 1, 1], [(0, 1, 0.9), (0, 2, 0.5)]).tolist()
    [0, 0, 2]
    """
    parent = list(range(len(owner)))
    fields = {i: {field} for i, field in enumerate(owner)}

    def root(box: int) -> int:
        while parent[box] != box:
            parent[box] = parent[parent[box]]
            box = parent[box]
        return box

    for one, two, _ in sorted(matches, key=lambda m: (-m[2], m[0], m[1])):
        a, b = sorted((root(one), root(two)))
        if a != b and not fields[a] & fields[b]:
            parent[b] = a
            fields[a] |= fields.pop(b)
    return np.array([root(box) for box in range(len(owner))], dtype=np.int64)
