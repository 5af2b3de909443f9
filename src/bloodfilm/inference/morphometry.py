"""Measure a cell on the masks of its body and nucleus."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Floats32, Pixels

Mask = NDArray[np.bool_]
Region = tuple[slice, slice]
"""Rows and columns."""

SMALLEST_PIECE = 0.03
"""A piece of the nucleus smaller than this share of the largest one is noise."""
NECKS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Depths, as shares of the nucleus's largest inscribed radius, at which lobes may separate."""
LOBE = 0.45
"""A lobe's own inscribed radius is at least this share of the largest one."""
FEW_PARTS = 6
SIMPLE = 0.4
"""An outline's corners are left out where that moves it by no more than this, mask px."""
SHARPEST = 0.5
"""Least of 1 + the cosine of the turn at a corner; a sharper one is blunted when moved outwards."""


@dataclass(frozen=True)
class Contour:
    """The outline of one connected mask.

    Attributes:
        points: (n, 2) x, y of its corners, mask px, on the border of its pixels: the area inside
            them is that of the mask. The middle of the first pixel is (0.5, 0.5).
        area: inside it, px^2.
        perimeter: px.
        sides: longer and shorter side of the smallest rectangle around it, px.
    """

    points: Floats
    area: float
    perimeter: float
    sides: tuple[float, float]

    @property
    def circularity(self) -> float:
        """4 pi area / perimeter^2, 1 for a circle."""
        return min(1.0, 4 * np.pi * self.area / max(self.perimeter, 1e-9) ** 2)


def middle_half(rows: int, columns: int) -> Region:
    """Return the middle half of the sides of a picture."""
    return slice(rows // 4, rows - rows // 4), slice(columns // 4, columns - columns // 4)


def body_of(mask: Mask, middle: Region | None = None) -> Mask | None:
    """Return the connected part of a mask of which most lies in its middle, holes filled.

    Args:
        mask: (H, W).
        middle: rows and columns; `None` is the middle half of the sides.

    Returns:
        (H, W), or `None` where the mask has no part in the middle.
    """
    middle = middle or middle_half(*mask.shape)
    if not mask[middle].any():
        return None
    parts, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if len(parts) > 1:
        labels, _ = _components(mask)
        there = labels[middle]
        return _filled(labels == int(np.bincount(there[there > 0]).argmax()))
    full = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(full, parts, -1, 1, cv2.FILLED)
    return full.view(np.bool_)


def pieces_of(mask: Mask) -> list[Mask]:
    """Return the connected pieces of a nucleus, the largest first, without noise."""
    labels, areas = _components(mask)
    if len(areas) < 2:
        return [mask] * len(areas)
    order = np.argsort(-areas, kind="stable")
    kept = [i for i in order if areas[i] >= SMALLEST_PIECE * areas[order[0]]]
    return [labels == i + 1 for i in kept]


def contour_of(mask: Mask) -> Contour | None:
    """Return the outer outline of a connected mask; `None` where it is too small to have one."""
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not found:
        return None
    longest = max(found, key=len)
    simple = cv2.approxPolyDP(longest, SIMPLE, True).reshape(-1, 2).astype(np.float64)
    if len(simple) < 3:
        return None
    # Contours run through the middles of border pixels, half a pixel inside the mask.
    perimeter = cv2.arcLength(_smoothed(longest), True) + np.pi
    (_, sides, _) = cv2.minAreaRect(longest)
    long, short = max(sides) + 1.0, min(sides) + 1.0
    points = _on_border(simple) + 0.5
    return Contour(points, float(np.count_nonzero(mask)), perimeter, (long, short))


def _on_border(points: Floats) -> Floats:
    """Move corners (n, 2) from the middles of border pixels, as `cv2.findContours` orders them.

    A line of pixels has half of them outside: half a pixel of it where it runs along the rows, less
    where it runs aslant (Pick's theorem).

    >>> square = np.array([[0.0, 0], [0, 4], [4, 4], [4, 0]])
    >>> _on_border(square).tolist()
    [[-0.5, -0.5], [-0.5, 4.5], [4.5, 4.5], [4.5, -0.5]]
    """
    corners = points.view(np.complex128)[:, 0]
    ring = np.concatenate([corners[-1:], corners, corners[:1]])
    outwards = (ring[1:] - ring[:-1]) * 1j
    outwards /= np.abs(outwards)
    half = np.abs(outwards.view(np.float64).reshape(-1, 2)).max(axis=1) / 4
    before, after = outwards[:-1], outwards[1:]
    spread = np.maximum(1 + (after * before.conj()).real, SHARPEST)
    moved = corners + (half[1:] + half[:-1]) / spread * (after + before)
    return moved.view(np.float64).reshape(-1, 2)


def lobe_count(mask: Mask) -> int:
    """Return how many lobes a nucleus has: round parts joined by narrower bridges, or apart.

    The distance to the border is cut at several depths; the most parts that are separate at one
    depth, and large enough, are the lobes.

    >>> y, x = np.mgrid[:40, :80]
    >>> two = (np.hypot(x - 20, y - 20) < 12) | (np.hypot(x - 60, y - 20) < 12)
    >>> lobe_count(two | ((abs(y - 20) < 2) & (x > 20) & (x < 60)))
    2
    """
    if not mask.any():
        return 0
    padded = np.pad(mask[bounds(mask)], 1).view(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)
    deepest = float(depth.max())
    # Where a part is at least `LOBE` deep; each pixel of it says which part that is.
    deep = depth >= LOBE * deepest
    count, _ = cv2.connectedComponents(deep.view(np.uint8))
    several = count > 2
    most = 1
    for neck in NECKS:
        if neck < LOBE and not several:
            continue  # fewer parts are farther out
        count, labels = cv2.connectedComponents((depth > neck * deepest).view(np.uint8))
        if neck < LOBE:
            count = 1 + int(np.count_nonzero(np.bincount(labels[deep], minlength=1)[1:]))
        most = max(most, count - 1)
    return most


def mean_colour(pixels: Pixels, mask: Mask) -> tuple[int, int, int] | None:
    """Return the mean colour of pixels (H, W, 3) in a mask, `None` where it is empty."""
    if not mask.any():
        return None
    chosen = np.ascontiguousarray(mask).view(np.uint8)
    red, green, blue = (int(v) for v in np.rint(cv2.mean(pixels, chosen)[:3]))
    return red, green, blue


def _components(mask: Mask) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return labels (H, W) from 1, and the area of each."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    # Counting pixels apart is three times as fast as OpenCV's statistics, and part by part twice as
    # fast again where there are few.
    if count <= FEW_PARTS:
        areas = [np.count_nonzero(labels == part) for part in range(1, count)]
        return np.asarray(labels), np.array(areas, dtype=np.intp)
    return np.asarray(labels), np.bincount(labels.ravel())[1:]


def bounds(mask: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest box around a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _filled(mask: Mask) -> Mask:
    found, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    full = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(full, found, -1, 1, cv2.FILLED)
    return np.asarray(full > 0)


def _smoothed(chain: NDArray[Any]) -> Floats32:
    """Return a closed chain of pixels (n, 1, 2), each the mean of five, without its steps."""
    n = len(chain)
    if n < 5:
        return chain.astype(np.float32)
    sums = np.cumsum(np.concatenate([chain[-3:], chain, chain[:2]]), axis=0)
    return np.asarray((sums[5:] - sums[:n]) / np.float32(5), dtype=np.float32)
