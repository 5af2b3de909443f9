"""Draw a zone over the overview of its slide."""

import cv2
import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.imaging.resample import resize
from bloodfilm.imaging.zone.zone import Zone

LOW, HIGH = (214, 69, 65), (38, 150, 84)
"""Colours of scores 0 and 1, RGB."""
OPACITY = 0.38


def zone_picture(overview: Image, zone: Zone) -> Image:
    """Return the overview with the scores as a tint and the zone's outline; RGB, same size.

    Blocks that are empty glass are not tinted. The outline is white within black, so that it shows
    on any stain.
    """
    height, width = overview.shape[:2]
    out = overview.copy()
    across, down = width / zone.width * zone.block[0], height / zone.height * zone.block[1]
    if zone.scores is not None:
        grid = _grid(zone.scores.astype(np.float32), width, height, (across, down))[..., None]
        tint = np.array(LOW, np.float32) * (1 - grid) + np.array(HIGH, np.float32) * grid
        shown = _grid((zone.scores > 0).astype(np.float32), width, height, (across, down)) > 0.5
        mixed = out * (1 - OPACITY) + tint * OPACITY
        out = np.where(shown[..., None], mixed, out).astype(np.uint8)
    mask = _grid(zone.chosen.astype(np.float32), width, height, (across, down)) > 0.5
    if zone.region is not None and zone.region.polygons is not None:
        scale = np.array([[width / zone.width, 0, 0], [0, height / zone.height, 0]], dtype=float)
        mask = zone.region.transform(scale).mask(width, height)
    lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    thick = max(2, round(max(width, height) / 500))
    drawn = np.ascontiguousarray(out)
    cv2.drawContours(drawn, lines, -1, (20, 20, 20), 2 * thick)
    cv2.drawContours(drawn, lines, -1, (255, 255, 255), thick)
    return resize(drawn, width, height)


def _grid(values: np.ndarray, width: int, height: int, step: tuple[float, float]) -> np.ndarray:
    """Spread the values of blocks over the pixels of a picture."""
    column = np.minimum((np.arange(width) / step[0]).astype(int), values.shape[1] - 1)
    row = np.minimum((np.arange(height) / step[1]).astype(int), values.shape[0] - 1)
    return values[row[:, None], column[None, :]]
