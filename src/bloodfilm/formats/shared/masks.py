"""Outlines of masks: pixels that somebody painted, as polygons."""

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Region
from bloodfilm.formats.shared.shapes import one_ring


def mask_outline(mask: NDArray[np.bool_], left: float = 0.0, top: float = 0.0) -> Region:
    """Return the outline of a mask (H, W): a polygon a connected part, holes joined by slits.

    Args:
        mask: which pixels belong to it.
        left, top: position of its upper left corner in the picture, in pixels.

    The polygons run a quarter of a pixel inside the pixels' outer edges, so that their mask is the
    one given, pixel by pixel.
    """
    doubled = np.pad(np.kron(mask, np.ones((2, 2), dtype=bool)), 1).astype(np.uint8)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [(c.reshape(-1, 2).astype(float) - 0.5) / 2 + (left, top) for c in contours]
    parents = [] if hierarchy is None else [int(row[3]) for row in hierarchy[0]]
    polygons = []
    for number, (ring, parent) in enumerate(zip(rings, parents, strict=True)):
        if parent < 0:
            holes = [rings[i] for i, above in enumerate(parents) if above == number]
            points = [[(float(x), float(y)) for x, y in r] for r in (ring, *holes)]
            polygons.append(one_ring(points))
    return Region(tuple(polygons))


def run_lengths(counts: list[int], width: int, height: int) -> NDArray[np.bool_] | None:
    """Return the mask (H, W) that runs of pixels out and in, row by row, make; `None` if none.

    >>> run_lengths([1, 2, 1], 2, 2).tolist()
    [[False, True], [True, False]]
    """
    if width <= 0 or height <= 0 or min(counts, default=-1) < 0 or sum(counts) != width * height:
        return None
    inside = np.arange(len(counts)) % 2 == 1
    return np.repeat(inside, counts).reshape(height, width)
