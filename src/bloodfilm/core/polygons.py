"""The part of a field whose cells are all known: everything, nothing, or some shapes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.errors import DataError

Point = tuple[float, float]


def _inside(polygon: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Even-odd rule for points (n, 2) and one polygon (m, 2)."""
    x, y = points[:, 0, None], points[:, 1, None]
    x1, y1 = polygon[:, 0], polygon[:, 1]
    x2, y2 = np.roll(x1, -1), np.roll(y1, -1)
    crosses = (y1 > y) != (y2 > y)
    slope = np.divide(x2 - x1, y2 - y1, out=np.zeros_like(x1), where=y2 != y1)
    return np.asarray((crosses & (x < x1 + (y - y1) * slope)).sum(axis=1) % 2 == 1)


@dataclass(frozen=True)
class Region:
    """A union of polygons in pixels; outside it nothing is known of the field.

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
        ys, xs = np.mgrid[:height, :width]
        points = (np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) * stride
        return self.contains(points).reshape(height, width)

    def transform(self, matrix: ArrayLike) -> "Region":
        """Carry the region through an affine map, a (2, 3) matrix on column points (x, y, 1)."""
        if self.polygons is None:
            return self
        m = np.asarray(matrix, dtype=np.float64)
        moved = (np.asarray(p, dtype=np.float64) @ m[:, :2].T + m[:, 2] for p in self.polygons)
        return Region(tuple(tuple((float(x), float(y)) for x, y in p) for p in moved))

    def area(self, width: int, height: int) -> float:
        """Return the known area in square pixels (overlaps once, cut to the field)."""
        if self.polygons is None:
            return float(width * height)
        return float(self.mask(width, height).sum())

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
        except (TypeError, ValueError):
            raise DataError("region: a polygon is a list of [x, y] corners") from None
