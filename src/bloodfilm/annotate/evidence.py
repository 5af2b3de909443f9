"""What to expect on an unlabelled field: from a detector's findings, or from dark spots alone."""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.annotate.planning import Evidence
from bloodfilm.core.boxes import as_boxes, centres

LEAST_SHARE = 2e-4
"""A dark spot smaller than this share of a field is dirt."""


def from_detections(
    width: int, height: int, boxes: ArrayLike, scores: ArrayLike, groups: ArrayLike
) -> Evidence:
    """Return the evidence of detections, also poor ones, on a field of a given size.

    A score p expects p cells and leaves a doubt of 4 p (1 - p): most at even odds.

    Args:
        width, height: of the field, pixels.
        boxes: (n, 4) x, y, w, h; scores: (n,) in [0, 1]; groups: (n,) e.g. kinds or classes.
    """
    p = np.asarray(scores, dtype=np.float64).reshape(-1)
    return Evidence(
        width,
        height,
        centres(as_boxes(boxes)),
        p,
        4 * p * (1 - p),
        np.asarray(groups, dtype=np.int64).reshape(-1),
    )


def dark_blobs(image: NDArray[np.uint8]) -> Evidence:
    """Return the dark, saturated spots of a field (nuclei) as evidence, without any model.

    Otsu's threshold on how much redder-bluer than green a pixel is, times how dark; spots are the
    connected pieces of it. The doubt about each is 1.
    """
    height, width = image.shape[:2]
    values = image.astype(np.float32)
    dark = 255.0 - values[..., 1]
    dye = np.maximum(values[..., 0], values[..., 2]) - values[..., 1]
    strength = cv2.GaussianBlur(dark + dye, (0, 0), max(width, height) / 300)
    scaled = cv2.normalize(strength, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)  # type: ignore[call-overload]
    # Twice: the first threshold finds cells, the second the nuclei among them.
    first, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    cells = scaled[scaled > first]
    if not len(cells):
        return Evidence(width, height)
    second, _ = cv2.threshold(cells.reshape(-1, 1), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    _, _, stats, middle = cv2.connectedComponentsWithStats((scaled > second).astype(np.uint8))
    keep = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] > LEAST_SHARE * width * height)
    keep = keep[keep > 0]
    one = np.ones(len(keep))
    return Evidence(
        width, height, np.asarray(middle[keep]), one, one, np.zeros(len(keep), dtype=np.int64)
    )
