"""The part of a field whose cells are all known: everything, nothing, or some shapes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import DataError

Point = tuple[float, float]


_PAIRS = 1 << 17  # points x edges, or rows x edges, held at once: a few megabytes
_PIXELS = 1 << 22  # pixels that `area` holds at once
_MOST_PIXELS = 1 << 26  # pixels that `area` looks at, those of each polygon counted
_MOST_CROSSINGS = 1 << 24  # rows x edges that `area` looks at


def _edges(polygon: NDArray[np.float64]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return x1, y1, y2 and dx/dy of a closed polygon's edges, without the horizontal ones."""
    x1, y1 = polygon[:, 0], polygon[:, 1]
    x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
    sloped = y1 != y2
    x1, y1, x2, y2 = x1[sloped], y1[sloped], x2[sloped], y2[sloped]
    return x1, y1, y2, (x2 - x1) / (y2 - y1)


def _inside(polygon: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Even-odd rule for points (n, 2) and one polygon (m, 2)."""
    x1, y1, y2, slope = _edges(polygon)
    inside = np.zeros(len(points), dtype=bool)
    step = max(1, _PAIRS // max(1, len(x1)))
    for start in range(0, len(points), step):
        x, y = points[start : start + step, 0, None], points[start : start + step, 1, None]
        crosses = (y1 > y) != (y2 > y)
        right = crosses & (x < x1 + (y - y1) * slope)
        inside[start : start + step] = np.count_nonzero(right, axis=1) % 2 == 1
    return inside


def _filled(
    polygon: NDArray[np.float64], left: int, top: int, shape: tuple[int, int], stride: float
) -> NDArray[np.bool_]:
    """Say for the pixels from (left, top) on whether their centres lie in a polygon.

    Every edge flips, in each row it crosses, the first pixel whose centre is not left of it; the
    flips added up along a row are the parity of the even-odd rule.
    """
    height, width = shape
    flips = np.zeros(height * width, dtype=bool)
    x1, y1, y2, slope = _edges(polygon)
    # An edge crosses the rows whose centre y has min(y1, y2) <= y < max(y1, y2), as in `_inside`.
    first = _first_centre(np.minimum(y1, y2), stride, top, height)
    count = _first_centre(np.maximum(y1, y2), stride, top, height) - first
    step = max(1, _PAIRS // max(1, height))
    for start in range(0, len(x1), step):
        some = slice(start, start + step)
        edge = np.repeat(np.arange(len(x1))[some], count[some])
        within = np.arange(len(edge)) - np.repeat(np.cumsum(count[some]) - count[some], count[some])
        rows = first[edge] + within
        y = (rows + top + 0.5) * stride
        columns = _first_centre(x1[edge] + (y - y1[edge]) * slope[edge], stride, left, width)
        seen = columns < width
        np.logical_xor.at(flips, rows[seen] * width + columns[seen], True)
    inside = flips.reshape(shape)
    return np.logical_xor.accumulate(inside, axis=1, out=inside)


def _first_centre(at: Floats, stride: float, start: int, length: int) -> NDArray[np.intp]:
    """Return the first index in [0, length] whose centre (start + i + 0.5) * stride is >= `at`."""
    guess = np.clip(np.floor(at / stride - 0.5) - start, -1, length)
    guess = guess + ((guess + start + 0.5) * stride < at)
    return np.clip(guess, 0, length).astype(np.intp)


@dataclass(frozen=True)
class Region:
    """A union of polygons in pixels; outside it nothing is known of the field.

    A polygon is filled by the even-odd rule: where it crosses itself, and in a hole that a slit
    joins to its outline, a point is outside if it is enclosed twice. Polygons add up: a point is
    in the region if it is in any of them. A pixel is in the region if its centre is.

    Attributes:
        polygons: the shapes, each three or more (x, y) corners; `None` means the whole field.
    """

    polygons: tuple[tuple[Point, ...], ...] | None = None

    def __post_init__(self) -> None:
        for polygon in self.polygons or ():
            if len(polygon) < 3 or not np.isfinite(np.asarray(polygon, dtype=float)).all():
                raise DataError("region: a polygon needs three or more finite (x, y) corners")

    @classmethod
    def everything(cls) -> "Region":
        """The whole field is annotated."""
        return cls(None)

    @classmethod
    def nothing(cls) -> "Region":
        """No part of the field is annotated."""
        return cls(())

    @classmethod
    def rect(cls, x: float, y: float, w: float, h: float) -> "Region":
        """One rectangle: its top-left corner and its size, in pixels."""
        return cls((((x, y), (x + w, y), (x + w, y + h), (x, y + h)),))

    @classmethod
    def polygon(cls, points: Iterable[Point]) -> "Region":
        """One polygon by its corners, in pixels."""
        return cls((tuple((float(x), float(y)) for x, y in points),))

    @classmethod
    def union(cls, regions: Iterable["Region"]) -> "Region":
        """Everything that any of the regions covers."""
        polygons: list[tuple[Point, ...]] = []
        for region in regions:
            if region.polygons is None:
                return cls.everything()
            polygons.extend(region.polygons)
        return cls(tuple(polygons))

    @property
    def is_everything(self) -> bool:
        """Whether the whole field is known."""
        return self.polygons is None

    @property
    def is_nothing(self) -> bool:
        """Whether no part of the field is known."""
        return self.polygons == ()

    def contains(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Say for each point (n, 2) whether it lies in the region."""
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        if self.polygons is None:
            return np.ones(len(p), dtype=bool)
        known = np.zeros(len(p), dtype=bool)
        for polygon in self.polygons:
            known |= _inside(np.asarray(polygon, dtype=np.float64), p)
        return known

    def mask(self, width: int, height: int, stride: float = 1.0) -> NDArray[np.bool_]:
        """Return the region as a boolean image, shape (height, width).

        Pixel (i, j) is known if the centre of its `stride` x `stride` cell lies in the region.
        """
        if self.polygons is None:
            return np.ones((height, width), dtype=bool)
        known = np.zeros((height, width), dtype=bool)
        self._fill(known, 0, stride)
        return known

    def _fill(self, known: NDArray[np.bool_], top: int, stride: float) -> None:
        """Set the pixels of the region in `known`, whose first row is row `top` of the field."""
        height, width = known.shape
        for corners in self.polygons or ():
            polygon = np.asarray(corners, dtype=np.float64)
            ends = np.stack([polygon.min(axis=0), polygon.max(axis=0)])
            left, right = (int(v) for v in _first_centre(ends[:, 0], stride, 0, width))
            low, high = (int(v) for v in _first_centre(ends[:, 1], stride, top, height))
            right = min(right + 1, width)
            if low < high and left < right:
                shape = high - low, right - left
                known[low:high, left:right] |= _filled(polygon, left, top + low, shape, stride)

    def transform(self, matrix: ArrayLike) -> "Region":
        """Carry the region through an affine map, a (2, 3) matrix on column points (x, y, 1)."""
        if self.polygons is None:
            return self
        m = np.asarray(matrix, dtype=np.float64)
        moved = (np.asarray(p, dtype=np.float64) @ m[:, :2].T + m[:, 2] for p in self.polygons)
        return Region(tuple(tuple((float(x), float(y)) for x, y in p) for p in moved))

    def area(self, width: int, height: int) -> float:
        """Return the known area in square pixels: the pixels whose centres lie in the region.

        Overlaps count once and what lies outside the field does not. For smooth outlines the
        figure differs from the area of the geometry by a small part of a pixel per pixel of
        outline. Only the rectangles around the polygons are looked at, in blocks of rows; where
        they hold more than 2**26 pixels, or edges cross more than 2**24 rows, every n-th pixel of
        every n-th row stands for n x n, so a field of any stated size, and a region of any number
        of corners, costs the same.
        """
        if self.polygons is None:
            return float(width * height)
        left, top, right, bottom = self._bounds(width, height)
        across, down = right - left, bottom - top
        if across <= 0 or down <= 0:
            return 0.0
        pixels, crossings = self._work(width, height)
        stride = max(
            1,
            math.ceil(math.sqrt(max(across * down, pixels) / _MOST_PIXELS)),
            math.ceil(crossings / _MOST_CROSSINGS),
        )
        inner = Region(tuple(tuple((x - left, y - top) for x, y in p) for p in self.polygons or ()))
        columns, lines = -(-across // stride), -(-down // stride)
        total = 0
        rows = max(1, _PIXELS // columns)
        for first in range(0, lines, rows):
            known = np.zeros((min(rows, lines - first), columns), dtype=bool)
            inner._fill(known, first, float(stride))
            total += int(np.count_nonzero(known))
        return float(min(total * stride**2, across * down))

    def _work(self, width: int, height: int) -> tuple[float, float]:
        """Return the pixels around each polygon, and the rows that its edges cross, in the field.

        Both are summed over the polygons: it is what filling them costs.
        """
        pixels = crossings = 0.0
        for corners in self.polygons or ():
            polygon = np.asarray(corners, dtype=np.float64).clip(0, (width, height))
            w, h = polygon.max(axis=0) - polygon.min(axis=0)
            pixels += (w + 1) * (h + 1)
            crossings += float(np.abs(np.diff(polygon[:, 1], append=polygon[:1, 1])).sum())
        return pixels, crossings

    def _bounds(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the smallest rectangle of pixels, within the field, that holds the polygons."""
        if not self.polygons:
            return 0, 0, 0, 0
        points = np.concatenate([np.asarray(p, dtype=np.float64) for p in self.polygons])
        (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
        left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
        return left, top, min(width, math.ceil(x2)), min(height, math.ceil(y2))

    def to_json(self) -> list[list[list[float]]] | None:
        """Return the polygons as plain lists, `None` for everything."""
        if self.polygons is None:
            return None
        return [[[x, y] for x, y in polygon] for polygon in self.polygons]

    @classmethod
    def from_json(cls, data: Any) -> "Region":
        """Build a region from `to_json` data; `DataError` if it is malformed."""
        if data is None:
            return cls.everything()
        if isinstance(data, Mapping):
            raise DataError("region: expected a list of polygons or null")
        try:
            return cls(tuple(tuple((float(x), float(y)) for x, y in poly) for poly in data))
        except (TypeError, ValueError, OverflowError):
            raise DataError("region: a polygon is a list of [x, y] corners") from None
