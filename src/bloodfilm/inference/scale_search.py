"""Find the scale of a field without measurable outlines by the detector's red cells.

A detector of red cells finds them, less well, at scales it was not trained for, and its boxes then
still have the size of the cells. So one window of the field is analysed at a few coarse scales,
the one with the largest area of red cells is chosen, and the scale is iterated until the size of
their boxes agrees with 7.5 um.
"""

from collections.abc import Callable

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.imaging.canonical import DETECTOR_UM, CanonicalView
from bloodfilm.imaging.channels import brightest
from bloodfilm.imaging.red_cells import absorption
from bloodfilm.imaging.scale import Measurement, with_detected

Detect = Callable[[Pixels, CanonicalView], Floats]

DIAMETERS = (9.0, 18.0, 36.0, 72.0, 144.0, 288.0)
"""Red-cell diameters that are tried, px: those between two are found at both."""
WINDOW = 17.0
"""Side of the window, in red cells: a tile of the detector."""
MIN_WINDOW = 2.5
"""Side of the smallest field that is searched, in red cells."""
COVERED = 0.4
"""Optimal share of the window covered by red cells: enough of them, with little overlap."""
MIN_FOUND = 3
MIN_COVER = 0.08
MAX_SPREAD = 0.3
SURE_FOUND, SURE_SPREAD = 10, 0.15
"""So many boxes that vary so little are red cells though they cover less, as where most of the
window is a clump."""
SIZE_RANGE = 2.0
"""Boxes that deviate more than this from the expected size are not red cells."""
STEPS = 4
AGREED = 0.08


def search_scale(image: Pixels, measurement: Measurement, detect: Detect) -> Measurement:
    """Return the measurement by detected red cells; unchanged if none are found at any scale.

    Args:
        image: the field, RGB (H, W, 3).
        measurement: by its outlines, not measurable.
        detect: returns the boxes (n, 4), x, y, w, h in px, of certain red cells in an evenly lit
            image, given a view of it.
    """
    even = measurement.corrections.apply(image)
    cover = _cover(even, measurement.white_point)
    tried = [
        _look(even, cover, measurement, detect, (diameter, diameter))
        for diameter in DIAMETERS
        if MIN_WINDOW * diameter <= min(even.shape[:2])
    ]
    found, boxes = max(tried, key=lambda t: t[0], default=(0.0, np.zeros((0, 4))))
    if found <= 0:
        return measurement
    size = 0.0, 0.0
    for _ in range(STEPS):
        before, size = size, _size(boxes)
        if max(abs(np.log(a / max(b, 1e-9))) for a, b in zip(size, before, strict=True)) < AGREED:
            return with_detected(measurement, boxes)
        found, boxes = _look(even, cover, measurement, detect, size)
        if found <= 0:
            return measurement
    return measurement


def _size(boxes: Floats) -> tuple[float, float]:
    """Median width and height, px."""
    across, down = np.median(boxes[:, 2:], axis=0).tolist()
    return float(across), float(down)


def _look(
    even: Pixels,
    cover: Floats,
    measurement: Measurement,
    detect: Detect,
    size: tuple[float, float],
) -> tuple[float, Floats]:
    """Share of a window that red cells of about a size cover, and their boxes; 0 if too few."""
    x, y, width, height = _window(cover, (even.shape[1], even.shape[0]), size)
    part = np.ascontiguousarray(even[y : y + height, x : x + width])
    view = CanonicalView(
        um_per_px_x=RED_CELL_UM / size[0],
        um_per_px_y=RED_CELL_UM / size[1],
        white_point=measurement.white_point,
        red_cells=0,
        confidence=0.0,
        scale_source="assumed",
        aspect_source="assumed",
        width=width,
        height=height,
    )
    boxes = np.asarray(detect(part, view), dtype=np.float64).reshape(-1, 4)
    ratio = np.sqrt(boxes[:, 2] * boxes[:, 3] / (size[0] * size[1]))
    edge = 2 * DETECTOR_UM / RED_CELL_UM * np.array(size)
    whole = (boxes[:, :2] > edge).all(axis=1)
    whole &= (boxes[:, :2] + boxes[:, 2:] < np.array([width, height]) - edge).all(axis=1)
    boxes = boxes[whole & (ratio < SIZE_RANGE) & (ratio > 1 / SIZE_RANGE)]
    if len(boxes) < MIN_FOUND:
        return 0.0, boxes
    covered = float((boxes[:, 2] * boxes[:, 3]).sum()) / (width * height)
    sizes = np.log(boxes[:, 2] * boxes[:, 3]) / 2
    spread = 1.4826 * float(np.median(np.abs(sizes - np.median(sizes))))
    many = covered >= MIN_COVER and spread <= MAX_SPREAD
    alike = len(boxes) >= SURE_FOUND and spread <= SURE_SPREAD
    return (covered if many or alike else 0.0), boxes


def _cover(even: Pixels, white: tuple[float, float, float]) -> Floats:
    """Integral image of the foreground on a coarse grid."""
    small = np.asarray(cv2.resize(even, (128, 128), interpolation=cv2.INTER_AREA), dtype=np.uint8)
    dark = brightest(absorption(small, white))
    level, _ = cv2.threshold(dark, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return np.asarray(cv2.integral((dark > level / 2).astype(np.uint8)), dtype=np.float64)


def _window(
    cover: Floats, field: tuple[int, int], size: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Window x, y, w, h, px, of a field (width, height), with about `COVERED` of foreground."""
    sides = [min(n, max(32, round(WINDOW * d))) for n, d in zip(field, size, strict=True)]
    grid = cover.shape[0] - 1
    best, chosen = np.inf, (0, 0)
    for row in range(5):
        for column in range(5):
            x, y = ((n - s) * k // 4 for n, s, k in zip(field, sides, (column, row), strict=True))
            left, right = (round(v / field[0] * grid) for v in (x, x + sides[0]))
            top, bottom = (round(v / field[1] * grid) for v in (y, y + sides[1]))
            held = cover[bottom, right] - cover[top, right] - cover[bottom, left] + cover[top, left]
            away = abs(held / max((right - left) * (bottom - top), 1) - COVERED)
            # The middle of a field is sharpest: it is preferred where others are hardly better.
            away += 0.02 * (abs(row - 2) + abs(column - 2))
            if away < best:
                best, chosen = away, (x, y)
    return *chosen, sides[0], sides[1]
