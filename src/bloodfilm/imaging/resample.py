"""Resample: shrink by area, enlarge by interpolation, each axis for itself."""

import cv2
import numpy as np

from bloodfilm.core.arrays import Pixels

BACKGROUND = 245


def resize(image: Pixels, width: int, height: int) -> Pixels:
    """Image (H, W, 3) resampled to width x height without aliasing.

    OpenCV's area filter silently turns into plain linear interpolation when one axis grows while
    the other shrinks, as non-square pixels require; so the axes that shrink go
    first (area), the axes that grow second (linear).
    """
    rows, columns = image.shape[:2]
    shrunk = (min(width, columns), min(height, rows))
    if shrunk != (columns, rows):
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA))
    if shrunk != (width, height):
        image = np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
    return image


def window(
    image: Pixels, centre: tuple[float, float], step: tuple[float, float], size: int
) -> tuple[Pixels, tuple[slice, slice]]:
    """Pixels of a size x size window and where in it they belong.

    `centre` is in image pixels, `step` is image pixels per window pixel, along x and y. What lies
    outside the image is left out: the returned slices (rows, columns) give the filled part.
    """
    if max(step) <= 1.0:
        return _enlarged(image, centre, step, size)
    targets, sources = [], []
    for axis, length in ((0, image.shape[1]), (1, image.shape[0])):
        start = round(centre[axis] - step[axis] * size / 2)
        stop = start + max(1, round(step[axis] * size))
        first, last = max(start, 0), min(stop, length)
        if last <= first:
            return image[:0, :0], (slice(0, 0), slice(0, 0))
        scale = size / (stop - start)
        begin = round((first - start) * scale)
        end = max(begin + 1, round((last - start) * scale))
        targets.append(slice(min(begin, size - 1), min(end, size)))
        sources.append(slice(first, last))
    patch = image[sources[1], sources[0]]
    columns, rows = targets
    return resize(patch, columns.stop - columns.start, rows.stop - rows.start), (rows, columns)


def box_step(
    sides: tuple[float, float], um_per_px: tuple[float, float], length: float
) -> tuple[float, float]:
    """Image pixels per window pixel, along x and y, of a `window` that is cut by a box.

    The box's longer side, in micrometres, is `length` window pixels long; pixels are square in um.

    Args:
        sides: width and height of the box, image pixels.
        um_per_px: of the image, along x and y.
        length: window pixels.

    >>> box_step((40, 30), (0.1, 0.1), 80)
    (0.5, 0.5)
    """
    um = max(sides[0] * um_per_px[0], sides[1] * um_per_px[1]) / length
    return um / um_per_px[0], um / um_per_px[1]


def window_region(
    where: tuple[slice, slice], centre: tuple[float, float], step: tuple[float, float], size: int
) -> tuple[float, float, float, float]:
    """Region x, y, w, h of the image that the filled part `where` of a `window` shows."""
    rows, columns = where
    x = centre[0] + (columns.start - size / 2) * step[0]
    y = centre[1] + (rows.start - size / 2) * step[1]
    return x, y, (columns.stop - columns.start) * step[0], (rows.stop - rows.start) * step[1]


def _enlarged(
    image: Pixels, centre: tuple[float, float], step: tuple[float, float], size: int
) -> tuple[Pixels, tuple[slice, slice]]:
    """`window` for steps of at most one image pixel: exact to a fraction of a pixel."""
    slices, matrix = [], np.zeros((2, 3))
    for axis, length in ((0, image.shape[1]), (1, image.shape[0])):
        start = centre[axis] - step[axis] * size / 2
        begin = int(np.clip(np.ceil(-start / step[axis] - 0.5), 0, size))
        end = int(np.clip(np.ceil((length - start) / step[axis] - 0.5), begin, size))
        slices.append(slice(begin, end))
        matrix[axis, axis] = step[axis]
        matrix[axis, 2] = start + step[axis] * (begin + 0.5) - 0.5
    columns, rows = slices
    shape = columns.stop - columns.start, rows.stop - rows.start
    if min(shape) == 0:
        return image[:0, :0], (slice(0, 0), slice(0, 0))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(image, matrix, shape, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(patch, dtype=np.uint8), (rows, columns)
