"""Verify an alignment by patches not used to estimate it, and refine it by ECC."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.evaluation.intervals import wilson_interval

Floats = NDArray[np.float64]
Pixels = NDArray[np.uint8]

PATCH_UM = 7.0
STEP_UM = 5.0
SEARCH_UM = 3.0
AGREE_UM = 0.75
FINEST_STEP_UM = 2.0
STEPS = 12
TEXTURE = 14.0
MIN_PEAK = 0.35
ECC_STEPS = 40
ECC_BLUR = 5


@dataclass(frozen=True)
class AlignmentEvidence:
    """Agreement of the patches in the overlap with an alignment.

    Attributes:
        patches: number of textured patches.
        agree: patches found within `AGREE_UM` of their predicted position.
        offset_um: median offset of those that agree.
        correlation: of the two detail images over the overlap, -1..1.
        overlap_um2: area shared by both fields.
    """

    patches: int
    agree: int
    offset_um: float
    correlation: float
    overlap_um2: float

    @property
    def share(self) -> float:
        """Lower bound of the 95 % interval of the share that agrees (Wilson 1927)."""
        if not self.patches:
            return 0.0
        # Patches that overlap are not independent: count at most as many as fit side by side.
        n = min(self.patches, self.overlap_um2 / PATCH_UM**2)
        return wilson_interval(self.agree / self.patches * n, n)[0]


def refine(source: Pixels, target: Pixels, matrix: Floats) -> Floats:
    """Refine a 2x3 map of pixel indices by correlation (ECC); unchanged if that fails.

    Evangelidis & Psarakis, IEEE TPAMI 30 (2008). Larger displacements are rejected.
    """
    width, height = target.shape[1], target.shape[0]
    inverse = cv2.invertAffineTransform(matrix).astype(np.float32)
    mask = np.full(source.shape, 255, np.uint8)
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, ECC_STEPS, 1e-5)
    try:
        _, found = cv2.findTransformECC(
            target, source, inverse, cv2.MOTION_AFFINE, criteria, mask, ECC_BLUR
        )
        refined = cv2.invertAffineTransform(found.astype(np.float64)).astype(np.float64)
    except cv2.error:
        return matrix
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]], np.float64)
    back = np.vstack([cv2.invertAffineTransform(matrix), [0, 0, 1]])
    moved = corners @ back.T @ refined.T - corners[:, :2]
    if not np.isfinite(refined).all() or np.abs(moved).max() > 0.1 * max(width, height):
        return matrix
    return refined


def verify(source: Pixels, target: Pixels, matrix: Floats, um_per_px: float) -> AlignmentEvidence:
    """Warp the source's detail onto the target's and locate every textured patch in it."""
    height, width = target.shape
    warped = _pixels(cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR))
    frame = cv2.warpAffine(np.full_like(source, 255), matrix, (width, height))
    shared = _pixels(frame == 255)
    inside = int(shared.sum())
    if inside < 4:
        return AlignmentEvidence(0, 0, 0.0, 0.0, 0.0)
    a, b = warped[shared > 0].astype(np.float64), target[shared > 0].astype(np.float64)
    correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
    offsets = _offsets(warped, target, shared, um_per_px)
    near = offsets[offsets <= AGREE_UM]
    return AlignmentEvidence(
        len(offsets),
        len(near),
        float(np.median(near)) if len(near) else 0.0,
        correlation,
        inside * um_per_px**2,
    )


def _pixels(array: object) -> Pixels:
    return np.asarray(array, dtype=np.uint8)


def _offsets(warped: Pixels, target: Pixels, shared: Pixels, um_per_px: float) -> Floats:
    """Offset of the best match of each patch, um; infinite without a match."""
    side, reach = round(PATCH_UM / um_per_px), max(3, round(SEARCH_UM / um_per_px))
    extent = float(np.sqrt(shared.sum())) * um_per_px
    step = max(1, round(float(np.clip(extent / STEPS, FINEST_STEP_UM, STEP_UM)) / um_per_px))
    height, width = target.shape
    # The integral image tests in constant time whether a window is in the overlap.
    table = cv2.integral(shared)
    size = side + 2 * reach
    found = []
    for y in range(0, height - size + 1, step):
        for x in range(0, width - size + 1, step):
            held = table[y + size, x + size] - table[y, x + size] - table[y + size, x] + table[y, x]
            if held < size * size:
                continue
            patch = target[y + reach : y + reach + side, x + reach : x + reach + side]
            window = warped[y : y + size, x : x + size]
            if min(float(patch.std()), float(window.std())) < TEXTURE:
                continue
            found.append(_offset(window, patch, reach) * um_per_px)
    return np.array(found)


def _offset(window: Pixels, patch: Pixels, reach: int) -> float:
    """Distance in px from the centre of the window to the best match of the patch."""
    scores = np.asarray(cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED))
    _, peak, _, (x, y) = cv2.minMaxLoc(scores)
    if peak < MIN_PEAK:
        return float("inf")
    return float(
        np.hypot(
            x + _subpixel_peak(scores[y], x) - reach, y + _subpixel_peak(scores[:, x], y) - reach
        )
    )


def _subpixel_peak(scores: NDArray[np.generic], at: int) -> float:
    """Sub-pixel position of a peak, -0.5..0.5, by a parabola through three values."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    before, peak, after = (float(v) for v in scores[at - 1 : at + 2])
    bend = before - 2 * peak + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
