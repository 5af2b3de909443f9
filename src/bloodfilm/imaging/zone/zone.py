"""A zone: which part of a slide is analysed, as blocks of its film or as shapes a person drew."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Bools
from bloodfilm.core.issues import Issue
from bloodfilm.core.polygons import Region

BLOCK_UM = 128.0
"""Side of a block: it holds some hundred red cells of a monolayer."""

ZoneOrigin = Literal["found", "region", "whole"]


@dataclass(frozen=True, eq=False)
class Zone:
    """A part of a slide.

    Attributes:
        width, height: of the slide, px of level 0.
        block: width and height of a block, px.
        um_per_px: along x and y.
        origin: `found` by the film's looks, a `region` that a person gave, or the `whole` slide.
        chosen: (rows, columns) blocks that belong to the zone, wholly or, of a region, in part.
        scores: (rows, columns) in [0, 1], how much each block looks like a monolayer; `None` where
            that was not asked.
        region: the shapes of a `region`, px of level 0.
        issues: what to know of the zone.
    """

    width: int
    height: int
    block: tuple[int, int]
    um_per_px: tuple[float, float]
    origin: ZoneOrigin
    chosen: Bools
    scores: NDArray[np.float64] | None = None
    region: Region | None = None
    issues: tuple[Issue, ...] = field(default=())

    def contains(self, points: ArrayLike) -> Bools:
        """Say for each point (n, 2), px of level 0, whether it lies in the zone."""
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        if self.region is not None:
            return self.region.contains(p)
        rows, columns = self.chosen.shape
        # A centre on or beyond the edge of the slide belongs to the block at the edge.
        column = np.clip(p[:, 0] // self.block[0], 0, columns - 1).astype(np.intp)
        row = np.clip(p[:, 1] // self.block[1], 0, rows - 1).astype(np.intp)
        return np.asarray(self.chosen[row, column])

    def touches(self, x: float, y: float, width: float, height: float) -> bool:
        """Whether a block of the zone touches a rectangle, px of level 0."""
        rows, columns = self._blocks(x, y, width, height)
        return bool(self.chosen[rows, columns].any())

    def share(self, x: float, y: float, width: float, height: float) -> float:
        """Return the share of the blocks touching a rectangle that belong to the zone."""
        rows, columns = self._blocks(x, y, width, height)
        return float(self.chosen[rows, columns].mean())

    def area_mm2(self, rects: list[tuple[int, int, int, int]] | None = None) -> float:
        """Return the zone's area in square millimetres.

        Args:
            rects: count only its part in these rectangles x, y, w, h, which do not overlap.
        """
        um2 = self.um_per_px[0] * self.um_per_px[1] / 1e6
        if self.region is not None and rects is None:
            return self.region.area(self.width, self.height) * um2
        whole = [(0, 0, self.width, self.height)]
        return sum(self._area(*rect) for rect in (whole if rects is None else rects)) * um2

    def _area(self, x: int, y: int, width: int, height: int) -> float:
        """Area in px of the zone's part in a rectangle."""
        if self.region is not None:
            if self.region.polygons is None:
                return float(width * height)
            shift = np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]])
            return self.region.transform(shift).area(width, height)
        rows, columns = self._blocks(x, y, width, height)
        across = _overlaps(columns, self.block[0], x, x + width)
        down = _overlaps(rows, self.block[1], y, y + height)
        return float(down @ self.chosen[rows, columns] @ across)

    def _blocks(self, x: float, y: float, width: float, height: float) -> tuple[slice, slice]:
        bx, by = self.block
        rows = slice(int(y // by), int(-(-(y + height) // by)))
        return rows, slice(int(x // bx), int(-(-(x + width) // bx)))

    def to_geojson(self) -> dict[str, Any]:
        """Return the zone as a GeoJSON feature collection, px of level 0, as QuPath reads it.

        One annotation per connected part. A file of it can be given back as a region.
        """
        if self.region is not None and self.region.polygons is not None:
            parts = [[_closed(list(polygon))] for polygon in self.region.polygons]
        elif self.origin == "whole":
            w, h = float(self.width), float(self.height)
            parts = [[_closed([(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)])]]
        else:
            parts = [self._in_pixels(rings) for rings in outlines_of(self.chosen)]
        features = [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": rings},
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": "Zone of morphology", "color": [30, 140, 60]},
                    "isLocked": True,
                },
            }
            for rings in parts
        ]
        return {"type": "FeatureCollection", "features": features}

    def _in_pixels(self, rings: list[list[tuple[int, int]]]) -> list[list[list[float]]]:
        bx, by = self.block
        return [
            _closed(
                [(float(min(c * bx, self.width)), float(min(r * by, self.height))) for c, r in ring]
            )
            for ring in rings
        ]


def _closed(points: list[tuple[float, float]]) -> list[list[float]]:
    return [[float(x), float(y)] for x, y in (*points, points[0])]


def _overlaps(blocks: slice, side: int, first: int, last: int) -> NDArray[np.float64]:
    """Return how many pixels of [first, last) each of some blocks holds."""
    starts = np.arange(blocks.start, blocks.stop) * side
    return np.clip(np.minimum(starts + side, last) - np.maximum(starts, first), 0, None).astype(
        float
    )


def block_size(um_per_px: tuple[float, float]) -> tuple[int, int]:
    """Return width and height of a block, px."""
    return max(1, round(BLOCK_UM / um_per_px[0])), max(1, round(BLOCK_UM / um_per_px[1]))


def grid_shape(width: int, height: int, block: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the blocks of a slide."""
    return -(-height // block[1]), -(-width // block[0])


def whole_slide(width: int, height: int, um_per_px: tuple[float, float]) -> Zone:
    """Return the zone that is the whole slide."""
    block = block_size(um_per_px)
    chosen = np.ones(grid_shape(width, height, block), dtype=bool)
    return Zone(width, height, block, um_per_px, "whole", chosen, region=Region.everything())


def zone_of_region(width: int, height: int, um_per_px: tuple[float, float], region: Region) -> Zone:
    """Return the zone of shapes that a person drew, px of level 0; it may be empty.

    >>> zone = zone_of_region(1000, 800, (1.0, 1.0), Region.rect(100, 100, 200, 100))
    >>> zone.contains([(150, 150), (350, 150)]).tolist(), round(zone.area_mm2(), 4)
    ([True, False], 0.02)
    """
    if region.is_everything:
        return whole_slide(width, height, um_per_px)
    block = block_size(um_per_px)
    shape = grid_shape(width, height, block)
    chosen = np.zeros(shape, dtype=bool)
    for polygon in region.polygons or ():
        # All blocks of its bounding box that it may touch; `contains` decides for each cell.
        points = np.asarray(polygon, dtype=np.float64)
        x0, y0 = points.min(axis=0)
        x1, y1 = points.max(axis=0)
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            continue
        chosen |= _touched(points, block, shape)
    return Zone(width, height, block, um_per_px, "region", chosen, region=region)


def _touched(polygon: NDArray[np.float64], block: tuple[int, int], shape: tuple[int, int]) -> Bools:
    """Return the blocks that a polygon touches: those it fills, and those its outline crosses."""
    scaled = polygon / np.array(block)
    fine = 16
    mask = np.zeros((shape[0], shape[1]), np.uint8)
    corners = np.rint((scaled - 0.5) * (1 << 8)).astype(np.int32)
    cv2.fillPoly(mask, [corners.reshape(-1, 1, 2)], 1, lineType=cv2.LINE_8, shift=8)
    following = np.roll(scaled, -1, axis=0)
    for start, end in zip(scaled, following, strict=True):
        steps = max(2, int(np.abs(end - start).max() * fine) + 2)
        line = np.floor(np.linspace(start, end, steps)).astype(int)
        inside = (line >= 0).all(axis=1) & (line < [shape[1], shape[0]]).all(axis=1)
        mask[line[inside, 1], line[inside, 0]] = 1
    # A line that passes near a corner may be in a block that no sample fell in.
    return np.asarray(cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0)


def sampled(zone: Zone, chosen: Bools, issues: tuple[Issue, ...] = ()) -> Zone:
    """Return a zone with other blocks and further issues."""
    return replace(zone, chosen=chosen, issues=(*zone.issues, *issues))


def outlines_of(mask: Bools) -> list[list[list[tuple[int, int]]]]:
    """Return the outlines of the connected parts of a mask, along its pixels' edges.

    Returns:
        for each part its rings: the outer one, then those of its holes, as corners (column, row).

    >>> outlines_of(np.array([[True, True]]))
    [[[(0, 0), (2, 0), (2, 1), (0, 1)]]]
    """
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    parts = []
    for label in range(1, count):
        rings = _rings(np.asarray(labels == label))
        rings.sort(key=lambda ring: -abs(_signed_area(ring)))
        parts.append(rings)
    return parts


_RIGHT = {(1, 0): (0, 1), (0, 1): (-1, 0), (-1, 0): (0, -1), (0, -1): (1, 0)}


def _rings(mask: Bools) -> list[list[tuple[int, int]]]:
    """Follow the edges of a mask with the mask to the right; corners only."""
    padded = np.pad(mask, 1)
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for row, column in np.argwhere(padded):
        r, c = int(row) - 1, int(column) - 1
        sides = (
            (padded[row - 1, column], (c, r), (1, 0)),
            (padded[row, column + 1], (c + 1, r), (0, 1)),
            (padded[row + 1, column], (c + 1, r + 1), (-1, 0)),
            (padded[row, column - 1], (c, r + 1), (0, -1)),
        )
        for neighbour, start, step in sides:
            if not neighbour:
                edges.setdefault(start, []).append(step)
    rings = []
    while edges:
        start = min(edges)
        rings.append(_follow(edges, start))
    return rings


def _follow(
    edges: dict[tuple[int, int], list[tuple[int, int]]], start: tuple[int, int]
) -> list[tuple[int, int]]:
    at, step = start, edges[start][0]
    ring: list[tuple[int, int]] = []
    before = None
    while True:
        steps = edges[at]
        if before is not None:
            # Where two corners meet, the right turn stays with the same pixel.
            step = _RIGHT[before] if _RIGHT[before] in steps else steps[0]
        if step != before:
            ring.append(at)
        steps.remove(step)
        if not steps:
            del edges[at]
        before = step
        at = at[0] + step[0], at[1] + step[1]
        if at == start:
            return ring


def _signed_area(ring: list[tuple[int, int]]) -> float:
    p = np.array(ring, dtype=np.float64)
    q = np.roll(p, -1, axis=0)
    return float((p[:, 0] * q[:, 1] - q[:, 0] * p[:, 1]).sum() / 2)
