"""Whole pictures that are mirrored or quarter-turned copies of each other.

Augmented copies made before a split leak from one part of it into another. A picture has eight
symmetries: plain copies and those turned by 180 degrees are found in `overlaps`, the other six
here. Small pictures select the pairs, larger ones decide; brightness and contrast may differ.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.duplicates.overlaps import Grey

Pixel = TypeVar("Pixel", bound=np.generic)
SIDE = 24
MIN_ALIKE = 0.9
CHECK_SIDE = 96
MIN_NCC = 0.9
MIN_CONTRAST = 2.0
"""Grey levels; empty pictures agree whatever they show."""
BLOCK = 512
SYMMETRIES = (
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 90 degrees",
    "turned by 270 degrees",
    "mirrored along one diagonal",
    "mirrored along the other diagonal",
)


@dataclass(frozen=True, slots=True)
class SymmetricCopy:
    """Two fields of which one is the other, turned or mirrored.

    Attributes:
        first, second: the fields' numbers.
        symmetry: how the second is turned or mirrored, one of `SYMMETRIES`.
        ncc: normalised cross-correlation of the small pictures, in [-1, 1].
    """

    first: int
    second: int
    symmetry: str
    ncc: float


def symmetric(picture: NDArray[Pixel], symmetry: str) -> NDArray[Pixel]:
    """Return a picture (H, W) turned or mirrored.

    >>> symmetric(np.array([[1, 2], [3, 4]]), "mirrored left to right").tolist()
    [[2, 1], [4, 3]]
    """
    return _MOVES[symmetry](picture)


_MOVES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    SYMMETRIES[0]: lambda p: p[:, ::-1],
    SYMMETRIES[1]: lambda p: p[::-1],
    SYMMETRIES[2]: lambda p: np.rot90(p, 1),
    SYMMETRIES[3]: lambda p: np.rot90(p, 3),
    SYMMETRIES[4]: lambda p: p.T,
    SYMMETRIES[5]: lambda p: np.rot90(p, 2).T,
}


def find_symmetric_copies(quarters: Mapping[int, Grey]) -> list[SymmetricCopy]:
    """Return mirrored and turned copies among fields, by first, then second field.

    Args:
        quarters: grey picture of each field by its number, reduced; sizes may differ.
    """
    numbers = [n for n in sorted(quarters) if float(quarters[n].std()) >= MIN_CONTRAST]
    if len(numbers) < 2:
        return []
    small = np.stack([_unit(quarters[n], SIDE) for n in numbers])
    flat = small.reshape(len(numbers), -1)
    found: dict[tuple[int, int], SymmetricCopy] = {}
    for symmetry in SYMMETRIES:
        moved = np.stack([symmetric(s, symmetry) for s in small]).reshape(len(numbers), -1)
        for i, j in _alike(flat, moved):
            pair = numbers[i], numbers[j]
            if not _may_match(quarters[pair[0]], quarters[pair[1]], symmetry):
                continue
            one = _unit(quarters[pair[0]], CHECK_SIDE)
            two = symmetric(_unit(quarters[pair[1]], CHECK_SIDE), symmetry)
            ncc = float((one * two).sum())
            if ncc >= MIN_NCC and ncc > getattr(found.get(pair), "ncc", 0.0):
                found[pair] = SymmetricCopy(*pair, symmetry, ncc)
    return [found[pair] for pair in sorted(found)]


def _unit(picture: Grey, side: int) -> Floats:
    """The picture as a square of zero mean and unit length, slow changes of light taken out."""
    square = cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA).astype(np.float64)
    band = square - cv2.GaussianBlur(square, (0, 0), side / 4)
    band -= band.mean()
    length = float(np.linalg.norm(band))
    return np.asarray(band / max(length, 1e-9))


def _alike(flat: Floats, moved: Floats) -> Iterator[tuple[int, int]]:
    """Yield pairs i < j whose small pictures agree, block by block."""
    for start in range(0, len(flat), BLOCK):
        likeness = flat[start : start + BLOCK] @ moved.T
        rows, columns = np.nonzero(likeness >= MIN_ALIKE)
        for i, j in zip((rows + start).tolist(), columns.tolist(), strict=True):
            if i < j:
                yield i, j


def _may_match(one: Grey, two: Grey, symmetry: str) -> bool:
    """Whether the shapes allow it: quarter turns swap width and height."""
    height, width = two.shape
    if symmetry in SYMMETRIES[2:]:
        height, width = width, height
    return abs(np.log((one.shape[1] / one.shape[0]) / (width / height))) < 0.03
