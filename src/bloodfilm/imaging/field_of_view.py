"""The round field of an eyepiece, as phones photograph it: a bright disc on black.

The area outside the disc is not film. It is excluded from every measurement and painted in the
colour of empty glass before cells are detected.
"""

import itertools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Pixels
from bloodfilm.imaging.channels import brightest
from bloodfilm.imaging.circle_fit import fit_circle

Mask = NDArray[np.bool_]

SEARCH_SIDE = 256
MAX_DARKNESS = 0.4
"""The surround is at most this bright, as a share of the disc."""
MAX_SPILL = 0.1
"""Share of the surround that may be brighter."""
CORNERS, MIN_CORNERS = 4, 3
"""Of an image, and how many of them are dark at least."""
MIN_RADIUS = 0.3
"""Smallest radius, as a share of the shorter side."""
MAX_RESIDUAL = 0.03
"""Largest deviation of the rim from a circle, as a share of its radius."""
MIN_RIM = 24
"""Fewest pixels of rim, at `SEARCH_SIDE`, that a circle is fitted to."""
MIN_FILL = 0.85
"""Minimum share of the disc that is bright: cells are dark, but cover less."""
RIM = 0.02
"""Share of the radius by which the disc is shrunk: its rim is out of focus and coloured."""


@dataclass(frozen=True)
class RoundField:
    """A round field: centre and radius in pixels of the image."""

    x: float
    y: float
    radius: float

    def mask(self, width: int, height: int) -> Mask:
        """Which pixels (height, width) of the image belong to the field."""
        return self.mask_of((0.0, 0.0, float(width), float(height)), width, height)

    def mask_of(self, region: tuple[float, float, float, float], width: int, height: int) -> Mask:
        """Which pixels belong to the field, of a region x, y, w, h drawn at width x height."""
        x, y, w, h = region
        across = x + (np.arange(width) + 0.5) * (w / width) - self.x
        down = y + (np.arange(height) + 0.5) * (h / height) - self.y
        inside = across[None, :] ** 2 + down[:, None] ** 2 <= self.radius**2
        return np.asarray(inside)

    def cuts(self, box: tuple[float, float, float, float]) -> bool:
        """Whether a box x, y, w, h reaches over the rim.

        The box's inscribed ellipse counts, since the corners of a cell's box are empty.
        """
        x, y, w, h = box
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        across = x + w / 2 * (1 + np.cos(angle)) - self.x
        down = y + h / 2 * (1 + np.sin(angle)) - self.y
        return bool((np.hypot(across, down) > self.radius).any())

    @property
    def as_tuple(self) -> tuple[float, float, float]:
        """Centre x, y and radius."""
        return self.x, self.y, self.radius


def find_round_field(image: Pixels) -> RoundField | None:
    """The bright disc on black that an image (H, W, 3) shows; `None` for an ordinary field.

    Otsu's threshold (IEEE Trans. SMC 1979) separates surround and disc. The largest bright region
    must have a circular rim wherever it does not leave the image, fill that circle, and leave at
    least `MIN_CORNERS` corners dark.
    """
    height, width = image.shape[:2]
    factor = max(1.0, max(height, width) / SEARCH_SIDE)
    size = max(8, round(width / factor)), max(8, round(height / factor))
    if _corners_lit(image, size) > CORNERS - MIN_CORNERS:
        return None
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    brightness = brightest(np.asarray(small, dtype=np.uint8))
    levels = _levels(brightness)
    if levels is None:
        return None
    black, limit = levels
    # Otsu's threshold may lie inside a vignette: the disc ends where black begins.
    mask = np.asarray(brightness > (limit + black) / 2, dtype=np.uint8)
    circle = _rim(mask)
    if circle is None:
        return None
    x, y, radius = circle
    disc = RoundField(x, y, radius).mask(*size)
    if (
        not disc.any()
        or float(mask[disc].mean()) < MIN_FILL
        # Haze may lie on the surround, and does most where the disc leaves little of it.
        or float((brightness[~disc] > limit).mean()) > MAX_SPILL
    ):
        return None
    scale_x, scale_y = width / size[0], height / size[1]
    mean = float(np.sqrt(scale_x * scale_y))
    return RoundField(
        round(x * scale_x, 2), round(y * scale_y, 2), round(radius * mean * (1 - RIM), 2)
    )


def _corners_lit(image: Pixels, size: tuple[int, int]) -> int:
    """Return how many corners of an image, resized to (width, height), are certainly not dark.

    Most images are told from a disc on black by these few pixels. No mean of pixels is darker than
    the darkest of them.
    """
    height, width = image.shape[:2]
    across, down = (math.ceil(n / m) + 1 for n, m in zip((width, height), size, strict=True))
    sides = itertools.product((image[:down], image[-down:]), (slice(across), slice(-across, None)))
    least = (int(rows[:, columns].min(axis=(0, 1)).max()) for rows, columns in sides)
    # Nothing is brighter than 255; means are rounded.
    return sum(value > MAX_DARKNESS * 255 + 1 for value in least)


def _levels(brightness: Pixels) -> tuple[float, float] | None:
    """How bright the surround is, and may be; `None` where no black surrounds anything bright."""
    cut, _ = cv2.threshold(brightness, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark, bright = brightness[brightness <= cut], brightness[brightness > cut]
    if not len(dark) or not len(bright):
        return None
    black, limit = float(np.median(dark)), MAX_DARKNESS * float(np.median(bright))
    corners = brightness[[0, 0, -1, -1], [0, -1, 0, -1]]
    if black > limit or int((corners <= limit).sum()) < MIN_CORNERS:
        return None
    return black, limit


def _rim(mask: NDArray[np.uint8]) -> tuple[float, float, float] | None:
    """Circle x, y, radius of the largest bright part where it does not follow the image's edge."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    hull = cv2.convexHull(max(outlines, key=cv2.contourArea)).reshape(-1, 2).astype(np.float64)
    size = np.array([mask.shape[1], mask.shape[0]])
    dense = _dense(hull)
    points = dense[(dense > 1.5).all(axis=1) & (dense < size - 2.5).all(axis=1)]
    if len(points) < MIN_RIM:
        return None
    x, y, radius, _, residual = fit_circle(points)
    if residual > MAX_RESIDUAL or radius < MIN_RADIUS * size.min():
        return None
    return x + 0.5, y + 0.5, radius + 0.5


def _dense(hull: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points about a pixel apart along a closed polygon (n, 2)."""
    following = np.roll(hull, -1, axis=0)
    parts = []
    for start, end in zip(hull, following, strict=True):
        steps = max(1, int(np.hypot(*(end - start))))
        share = np.arange(steps)[:, None] / steps
        parts.append(start * (1 - share) + end * share)
    return np.vstack(parts)
