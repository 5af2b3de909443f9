"""Region scores of an unlabelled field: from detections, or from dark blobs without a model."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.active_learning.planning import RegionScores
from bloodfilm.core.boxes import as_boxes, centres

PURPLE = 2.0
MIN_AREA_SHARE = 2e-4
"""Dark blobs below this share of the field are discarded as dirt."""


def from_detections(
    width: int, height: int, boxes: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> RegionScores:
    """Return the scores of detections, including low-confidence ones, on a field.

    A score p stands for p expected cells and an uncertainty of 4 p (1 - p), maximal at 0.5.

    Args:
        width, height: of the field, pixels.
        boxes: (n, 4) x, y, w, h; scores: (n,) in [0, 1]; groups: (n,) e.g. kinds or classes.
    """
    p = np.asarray(scores, dtype=np.float64).reshape(-1)
    return RegionScores(
        width,
        height,
        centres(as_boxes(boxes)),
        p,
        4 * p * (1 - p),
        np.asarray(groups, dtype=np.int64).reshape(-1),
    )


def dark_blobs(image: NDArray[np.uint8]) -> RegionScores:
    """Return scores from the dark, saturated blobs of a field (nuclei), without a model.

    Nuclei are purple: they absorb green more than red and blue light, whatever the stain, while red
    cells absorb blue (pink ones) or red (slate ones) as much. Otsu's threshold on the density in
    green, against the background's, plus `PURPLE` times how far it exceeds the others; blobs are
    the connected components. The uncertainty of each is 1.
    """
    height, width = image.shape[:2]
    red, green, blue = np.moveaxis(_density(image), -1, 0)
    purple = np.maximum(green + PURPLE * (green - np.maximum(red, blue)), 0)
    strength = cv2.GaussianBlur(purple, (0, 0), max(width, height) / 300)
    scaled = cv2.normalize(strength, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    # Twice: the first threshold finds cells, the second the nuclei among them.
    first, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    cells = scaled[scaled > first]
    if not len(cells):
        return RegionScores(width, height)
    second, _ = cv2.threshold(cells.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    _, _, stats, middle = cv2.connectedComponentsWithStats((scaled > second).astype(np.uint8))
    keep = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > MIN_AREA_SHARE * width * height)
    keep = keep[keep > 0]
    one = np.ones(len(keep))
    return RegionScores(
        width, height, np.asarray(middle[keep]), one, one, np.zeros(len(keep), dtype=np.int64)
    )


def _density(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the natural logarithm of how much darker each channel is than the background's."""
    ground = np.percentile(image.reshape(-1, 3), 90, axis=0).clip(30)
    density: NDArray[np.float32] = -np.log(image.astype(np.float32).clip(4) / ground)
    return density.astype(np.float32)
