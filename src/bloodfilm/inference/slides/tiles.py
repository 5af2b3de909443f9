"""Divide a slide into tiles of which each owns the cells with their centre in its core.

The cores partition the slide. A tile is read with a margin around its core that is wider than the
largest cell and than what the networks see of a cell's surroundings, so that no cell is cut, lost
or counted twice at a seam, and its crop is that of the slide.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.imaging.sources.slide import Rect

MARGIN_UM = 32.0
"""A megakaryocyte aside, no cell of blood is wider than 30 um; a centre lies half of it inside."""
TILE_UM = 204.8
"""Side of a tile with its margins: what the shipped detector sees at a time."""


@dataclass(frozen=True, slots=True)
class SlideTile:
    """One tile, px of level 0.

    Attributes:
        number: of the tile, in reading order.
        core: x, y, width, height of what it owns.
        region: the same of what is read: the core and its margin, inside the slide.
        slide: width and height of the slide.
    """

    number: int
    core: Rect
    region: Rect
    slide: tuple[int, int]

    def owns(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Return which points (n, 2), px of level 0, this tile owns.

        Cores at the edge of the slide extend outwards without limit.
        """
        p = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        inside = np.ones(len(p), dtype=bool)
        for axis in (0, 1):
            first, last = self.core[axis], self.core[axis] + self.core[axis + 2]
            if first > 0:
                inside &= p[:, axis] >= first
            if last < self.slide[axis]:
                inside &= p[:, axis] < last
        return inside


def plan_slide_tiles(
    size: tuple[int, int],
    um_per_px: tuple[float, float],
    tile_um: float = TILE_UM,
    offset: tuple[int, int] = (0, 0),
) -> list[SlideTile]:
    """Return the tiles of a whole slide, in reading order.

    Args:
        size: of the slide, px.
        um_per_px: along x and y.
        tile_um: side of a tile with its margins.
        offset: px by which the grid of cores is shifted; results hardly depend on it.

    >>> tiles = plan_slide_tiles((1000, 600), (0.5, 0.5))
    >>> len(tiles), tiles[0].core, tiles[0].region
    (8, (0, 0, 281, 281), (0, 0, 345, 345))
    """
    if tile_um <= 2 * MARGIN_UM:
        raise ValueError(f"a tile of {tile_um:g} um has no core within margins of {MARGIN_UM:g} um")
    spans = []
    for length, um, shift in zip(size, um_per_px, offset, strict=True):
        margin = math.ceil(MARGIN_UM / um)
        core = max(1, math.floor(tile_um / um) - 2 * margin)
        spans.append(_spans(length, core, margin, shift % core))
    return [
        SlideTile(number, (x, y, w, h), (rx, ry, rw, rh), size)
        for number, ((y, h, ry, rh), (x, w, rx, rw)) in enumerate(
            (row, column) for row in spans[1] for column in spans[0]
        )
    ]


def _spans(length: int, core: int, margin: int, shift: int) -> list[tuple[int, int, int, int]]:
    """Start and length of each core along an axis, and of the same with its margin."""
    edges = [0, *range(shift or core, length, core), length]
    if len(edges) > 2 and edges[-1] - edges[-2] < core // 4:
        del edges[-2]  # a sliver joins its neighbour, which stays below a tile and a half
    spans = []
    for first, last in pairwise(edges):
        begin, end = max(0, first - margin), min(length, last + margin)
        spans.append((first, last - first, begin, end - begin))
    return spans
