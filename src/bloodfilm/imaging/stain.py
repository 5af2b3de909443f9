"""Absorbance of a cell apart from the colour of the red cells of its field.

Red cells change colour from film to film, from salmon to slate blue, and a dark slate one is easily
taken for a nucleus. But within one film they all absorb the same colour, more or less of it, while
a nucleus takes up a dye of its own. So every object is compared with the red cells around it: the
part of its absorbance (Beer-Lambert) that is not along theirs is what it has beyond them.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats, Pixels

GRID = 9
"""Sampling points per side of a box."""
MIDDLE = 0.6
"""Sampled share of a box's width and height, away from its edge and neighbours."""
MIN_RED_CELLS = 5
COLOURLESS = 0.03
"""Where 95 of 100 points differ less than this from channel to channel, the picture is grey."""


def absorbance(pixels: NDArray[np.uint8], white: ArrayLike) -> Floats:
    """Natural-log absorbance of pixels (..., 3) against a background colour, RGB."""
    light = np.maximum(pixels, 1) / np.maximum(np.asarray(white, dtype=np.float64), 1.0)
    return np.asarray(-np.log(light))


def stain_contrast(
    image: Pixels,
    white: tuple[float, float, float],
    boxes: ArrayLike,
    red_cells: ArrayLike,
    certain: NDArray[np.bool_] | None = None,
) -> Floats | None:
    """Absorbance of objects apart from the colour of the field's red cells.

    Of each object the darker half of its middle counts, channel by channel its median.

    Args:
        image: the field, RGB (H, W, 3).
        white: its background colour, RGB.
        boxes: (n, 4) of the objects, x, y, w, h in pixels.
        red_cells: (m, 4) boxes of certain red cells.
        certain: (n,) which objects show, beside the red cells, whether the picture has colour; all
            if left out.

    Returns:
        (n,) absorbances, natural logarithm, at least 0: the length of what is left once the part
        along the red cells' colour is removed. `None` where it is undefined: fewer than
        `MIN_RED_CELLS` red cells, or a picture without colour.
    """
    if len(np.asarray(red_cells).reshape(-1, 4)) < MIN_RED_CELLS:
        return None
    objects, red = (_absorbances(image, white, b) for b in (boxes, red_cells))
    judged = objects if certain is None else objects[certain]
    every = np.concatenate([judged.reshape(-1, 3), red.reshape(-1, 3)])
    if _is_grey(every):
        return None
    return _apart(objects, _colour(red))


def red_cell_absorbance(
    image: Pixels, white: tuple[float, float, float], red_cells: ArrayLike
) -> Floats | None:
    """Return the absorbance (3,), natural logarithm, of the middle of a field's red cells.

    `None` where there are too few, or the picture has no colour; see `stain_contrast`.
    """
    if len(np.asarray(red_cells).reshape(-1, 4)) < MIN_RED_CELLS:
        return None
    red = _absorbances(image, white, red_cells)
    if _is_grey(red.reshape(-1, 3)):
        return None
    strength = float(np.median(np.linalg.norm(np.median(red, axis=1), axis=1)))
    return np.asarray(_colour(red) * strength)


def contrast_to(
    image: Pixels, white: tuple[float, float, float], boxes: ArrayLike, red_cell: ArrayLike
) -> Floats:
    """Return the stain contrast (n,) of objects to a known absorbance (3,) of red cells."""
    colour = np.asarray(red_cell, dtype=np.float64)
    colour = colour / max(float(np.linalg.norm(colour)), 1e-9)
    return _apart(_absorbances(image, white, boxes), colour)


def _is_grey(points: Floats) -> bool:
    """Whether absorbances (n, 3) hardly differ from channel to channel."""
    one, two, three = points.T
    highest = np.maximum(np.maximum(one, two), three)
    lowest = np.minimum(np.minimum(one, two), three)
    return bool(np.quantile(highest - lowest, 0.95) < COLOURLESS)


def _absorbances(image: Pixels, white: tuple[float, float, float], boxes: ArrayLike) -> Floats:
    """Absorbances (n, points, 3) over the middle of every box."""
    table = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return absorbance(_middles(image, table), white)


def _colour(red: Floats) -> Floats:
    """Direction (3,) of the absorbances of red cells (n, points, 3)."""
    colours = np.median(red, axis=1)
    lengths = np.linalg.norm(colours, axis=1, keepdims=True)
    colour = np.median(colours / np.maximum(lengths, 1e-9), axis=0)
    colour /= max(float(np.linalg.norm(colour)), 1e-9)
    return np.asarray(colour)


def _apart(objects: Floats, colour: Floats) -> Floats:
    """Length of what objects (n, points, 3) absorb apart from a colour, a unit vector."""
    taken = np.median(_darker_half(objects), axis=1)
    return np.asarray(np.linalg.norm(taken - (taken @ colour)[:, None] * colour, axis=1))


def darker_absorbance(image: Pixels, white: tuple[float, float, float], boxes: ArrayLike) -> Floats:
    """Return the absorbance (n, 3) of objects: the median of the darker half of their middle.

    Args:
        image: the field, RGB (H, W, 3).
        white: its background colour, RGB.
        boxes: (n, 4) of the objects, x, y, w, h in pixels.
    """
    points = absorbance_in_middles(image, white, boxes)
    return np.asarray(np.median(_darker_half(points), axis=1))


def absorbance_in_middles(
    image: Pixels, white: tuple[float, float, float], boxes: ArrayLike
) -> Floats:
    """Return the absorbance (n, GRID^2, 3) of objects on a grid over their middle.

    Arguments are those of `darker_absorbance`.
    """
    middles = _middles(image, np.asarray(boxes, dtype=np.float64).reshape(-1, 4))
    return absorbance(middles, white)


def _middles(image: Pixels, boxes: Floats) -> Pixels:
    """Pixels (n, GRID^2, 3) on a grid over the middle of every box."""
    height, width = image.shape[:2]
    places = 0.5 + (np.linspace(0, 1, GRID) - 0.5) * MIDDLE
    x = np.clip(boxes[:, :1] + boxes[:, 2:3] * places, 0, width - 1).astype(np.intp)
    y = np.clip(boxes[:, 1:2] + boxes[:, 3:] * places, 0, height - 1).astype(np.intp)
    return np.asarray(image[y[:, :, None], x[:, None, :]].reshape(len(boxes), GRID * GRID, 3))


def _darker_half(absorbances: Floats) -> Floats:
    """Of points (n, p, 3) the half that absorbs most in all."""
    order = np.argsort(-absorbances.sum(axis=2), axis=1)[:, : (absorbances.shape[1] + 1) // 2]
    return np.asarray(np.take_along_axis(absorbances, order[:, :, None], axis=1))
