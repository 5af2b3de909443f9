"""Where the fields of a film lie: pairs that agree, joined to parts of connected glass."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from bloodfilm.cases.pairs import FieldPair
from bloodfilm.core.arrays import Floats

CONTRADICTION_UM = 8.0
"""A pair that contradicts stronger ones by more than this is left out."""
MIN_OVERLAP_UM2 = 30.0

Size = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where fields lie.

    Attributes:
        parts: of each field, the number of its part, in the order of their first fields.
        matrices: of each field, 3x3, from its plane to that of its part, um; the plane of a part
            is that of its first field.
        pairs: those that the layout rests on or agrees with, by first, then second field.
        left_out: those that contradict stronger ones.
    """

    parts: tuple[int, ...]
    matrices: tuple[Floats, ...]
    pairs: tuple[FieldPair, ...]
    left_out: tuple[FieldPair, ...] = ()

    def between(self, first: int, second: int) -> Floats:
        """Return the map (2x3) from the first field's plane to the second's, of one part."""
        return np.asarray((np.linalg.inv(self.matrices[second]) @ self.matrices[first])[:2])


def lay_out(sizes: Sequence[Size], pairs: Sequence[FieldPair]) -> Layout:
    """Join fields by their pairs, the best supported first.

    Args:
        sizes: width and height of every field, um.
        pairs: verified, of fields given by their places in `sizes`.
    """
    owner = list(range(len(sizes)))
    members = {i: [i] for i in owner}
    matrices: list[Floats] = [np.eye(3) for _ in sizes]
    kept, left_out = [], []
    for pair in sorted(pairs, key=lambda p: (-p.weight, p.first, p.second)):
        one, two = owner[pair.first], owner[pair.second]
        step = _whole(pair.matrix)
        if one != two:
            # Fields of the smaller part move into the plane of the larger.
            join = np.asarray(
                matrices[pair.first] @ np.linalg.inv(step) @ np.linalg.inv(matrices[pair.second]),
                dtype=np.float64,
            )
            if len(members[one]) < len(members[two]):
                one, two, join = two, one, np.asarray(np.linalg.inv(join), dtype=np.float64)
            for field in members.pop(two):
                owner[field] = one
                matrices[field] = np.asarray(join @ matrices[field], dtype=np.float64)
                members[one].append(field)
        elif _contradiction(pair, step, matrices, sizes) > CONTRADICTION_UM:
            left_out.append(pair)
            continue
        kept.append(pair)
    return _numbered(owner, matrices, kept, left_out)


def _contradiction(
    pair: FieldPair, step: Floats, matrices: Sequence[Floats], sizes: Sequence[Size]
) -> float:
    """Return how far a pair lies from where the layout so far has it, um."""
    predicted = np.linalg.inv(matrices[pair.second]) @ matrices[pair.first]
    width, height = sizes[pair.second]
    back = np.linalg.inv(step)
    corners = (back @ _corners(width, height).T)[:2].T
    wide, high = sizes[pair.first]
    middle = np.clip(corners, 0, [wide, high]).mean(axis=0)
    point = np.array([*middle, 1.0])
    return float(np.hypot(*((step - predicted) @ point)[:2]))


def _numbered(
    owner: Sequence[int],
    matrices: Sequence[Floats],
    kept: list[FieldPair],
    left_out: list[FieldPair],
) -> Layout:
    """Number the parts and give each the plane of its first field."""
    numbers: dict[int, int] = {}
    origin: dict[int, Floats] = {}
    for field, part in enumerate(owner):
        if part not in numbers:
            numbers[part] = len(numbers)
            origin[part] = np.asarray(np.linalg.inv(matrices[field]), dtype=np.float64)
    moved = tuple(origin[part] @ matrices[field] for field, part in enumerate(owner))
    kept.sort(key=lambda p: (p.first, p.second))
    return Layout(tuple(numbers[p] for p in owner), moved, tuple(kept), tuple(left_out))


def overlap_um2(matrix: Floats, first: Size, second: Size) -> float:
    """Return the area that two fields have in common, um2, given the map between their planes.

    >>> overlap_um2(np.array([[1, 0, -60], [0, 1, 0]]), (100, 50), (100, 50))
    2000.0
    """
    moved = (_corners(*first) @ np.asarray(matrix, dtype=np.float64)[:2].T).astype(np.float32)
    frame = _corners(*second)[:, :2].astype(np.float32)
    area, _ = cv2.intersectConvexConvex(moved, frame)
    return round(float(area), 3)


def predicted_pairs(layout: Layout, sizes: Sequence[Size]) -> Iterator[tuple[int, int, Floats]]:
    """Yield (first, second, map) of fields that overlap by the layout and are no pair of it."""
    known = {(p.first, p.second) for p in layout.pairs}
    centres = np.array(
        [(m @ [w / 2, h / 2, 1.0])[:2] for m, (w, h) in zip(layout.matrices, sizes, strict=True)]
    ).reshape(-1, 2)
    reach = np.array([np.hypot(w, h) / 2 for w, h in sizes])
    parts = np.array(layout.parts)
    for first in range(len(sizes)):
        away = np.hypot(*(centres[first + 1 :] - centres[first]).T)
        near = (away < reach[first] + reach[first + 1 :]) & (parts[first + 1 :] == parts[first])
        for second in (np.flatnonzero(near) + first + 1).tolist():
            if (first, second) in known:
                continue
            matrix = layout.between(first, second)
            if overlap_um2(matrix, sizes[first], sizes[second]) >= MIN_OVERLAP_UM2:
                yield first, second, matrix


def _corners(width: float, height: float) -> Floats:
    return np.array([[0.0, 0.0, 1.0], [width, 0.0, 1.0], [width, height, 1.0], [0.0, height, 1.0]])


def _whole(matrix: Floats) -> Floats:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])
