"""Sizes of images shown to people: true to shape, so that round cells are round."""

import math

import cv2
import numpy as np

from bloodfilm.core.arrays import Pixels

# Below this a stretch would only blur: measured aspect ratios of square pixels stray as much.
NEARLY_SQUARE = 0.03


def true_size(
    width: int, height: int, pixel_aspect_ratio: float = 1.0, longest: int | None = None
) -> tuple[int, int]:
    """Return width and height that show a field undistorted, no side longer than `longest` px.

    `pixel_aspect_ratio` is width / height of a round cell in the file. The shorter-scaled side is
    stretched, never the other shrunk, so no detail is lost before `longest` applies.
    """
    ratio = pixel_aspect_ratio
    if not math.isfinite(ratio) or ratio <= 0 or abs(ratio - 1) < NEARLY_SQUARE:
        ratio = 1.0
    wide, high = width * max(1.0, 1 / ratio), height * max(1.0, ratio)
    factor = 1.0 if longest is None else min(1.0, longest / max(wide, high))
    return max(1, round(wide * factor)), max(1, round(high * factor))


def resized(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the image at (width, height): area average where it shrinks, cubic where it grows."""
    if image.shape[1::-1] == size:
        return image
    shrinks = size[0] * size[1] < image.shape[0] * image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=how), dtype=np.uint8)
