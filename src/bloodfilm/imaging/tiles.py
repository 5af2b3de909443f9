"""Cut a large image into overlapping crops, each owning a core; the cores partition the image.

A cell belongs to the tile whose core holds its centre, and every tile includes at least `overlap`
pixels around its core (or the image's edge), so no cell is lost or counted twice at a seam.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.imaging.resample import BACKGROUND


@dataclass(frozen=True)
class Tile:
    """A crop (x, y, w, h) and the core [x0, x1) x [y0, y1) it owns, in pixels of the whole image.

    `width`, `height` are the size of the whole image.
    """

    x: int
    y: int
    w: int
    h: int
    core: tuple[int, int, int, int]
    width: int
    height: int

    def owns(self, points: ArrayLike) -> NDArray[np.bool_]:
        """Which of the points (n, 2) this tile owns.

        Cores at the image's edge extend outwards without limit, so that a box centre on or beyond
        the edge also has exactly one owner.
        """
        xy = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        x0, y0, x1, y1 = self.core
        left = -np.inf if x0 == 0 else x0
        top = -np.inf if y0 == 0 else y0
        right = np.inf if x1 == self.width else x1
        bottom = np.inf if y1 == self.height else y1
        inside = (xy[:, 0] >= left) & (xy[:, 0] < right)
        inside &= (xy[:, 1] >= top) & (xy[:, 1] < bottom)
        return inside

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """This tile's pixels: a view of `image` (H, W, ...), no copy."""
        return image[self.y : self.y + self.h, self.x : self.x + self.w]


def plan_tiles(width: int, height: int, tile: int, overlap: int) -> list[Tile]:
    """Tiles that cover a width x height image, in reading order.

    Every crop is `tile` pixels wide and high, or the whole image along an axis that is no longer
    than a tile. Raises ValueError for invalid sizes.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels cannot be tiled")
    if tile < 1 or overlap < 0 or tile - 2 * overlap < 1:
        raise ValueError(f"overlap {overlap} leaves a tile of {tile} pixels no core")
    columns = _spans(width, tile, overlap)
    rows = _spans(height, tile, overlap)
    return [
        Tile(x, y, min(tile, width), min(tile, height), (x0, y0, x1, y1), width, height)
        for y, y0, y1 in rows
        for x, x0, x1 in columns
    ]


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """(start, core start, core end) of each crop along one axis, crops evenly spread."""
    if length <= tile:
        return [(0, 0, length)]
    core = tile - 2 * overlap
    count = -(-(length - 2 * overlap) // core)
    starts = [i * (length - tile) // (count - 1) for i in range(count)]
    # The seam lies in the middle of the shared region, which is never below 2 x overlap.
    seams = [(a + tile + b) // 2 for a, b in pairwise(starts)]
    return list(zip(starts, [0, *seams], [*seams, length], strict=True))


def pad(image: NDArray[np.uint8], multiple: int) -> NDArray[np.uint8]:
    """Extend an image (H, W, 3) right and down with background to whole multiples.

    >>> pad(np.zeros((30, 64, 3), np.uint8), 32).shape
    (32, 64, 3)
    """
    height, width = image.shape[:2]
    shape = (-(-height // multiple) * multiple, -(-width // multiple) * multiple, 3)
    if shape == image.shape:
        return image
    out = np.full(shape, BACKGROUND, dtype=np.uint8)
    out[:height, :width] = image
    return out
