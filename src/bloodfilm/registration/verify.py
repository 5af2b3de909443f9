"""Verify an alignment by patches not used to estimate it, and refine it by ECC."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.evaluation.intervals import wilson_interval

Starts = NDArray[np.intp]

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


@dataclass(frozen=True, eq=False)
class PatchMatches:
    """Where the textured patches of an overlap are found, against where a map predicts them.

    Attributes:
        centres: (n, 2) of the patches, target pixels.
        offsets: (n, 2) from the predicted place to the best match, px; infinite without a match.
        textured_um2: area that the textured patches cover.
        overlap_um2: area that both fields show.
        correlation: of the two detail images over the overlap, -1..1.
        um_per_px: of the target.
    """

    centres: Floats
    offsets: Floats
    textured_um2: float
    overlap_um2: float
    correlation: float
    um_per_px: float

    @property
    def distances(self) -> Floats:
        """Offset of each patch, um; infinite without a match."""
        return np.asarray(np.hypot(*self.offsets.T) * self.um_per_px)


def match_patches(
    source: Pixels,
    target: Pixels,
    matrix: Floats,
    um_per_px: float,
    masks: tuple[Pixels, Pixels] | None = None,
    search_um: float = SEARCH_UM,
    longest_step_um: float = STEP_UM,
) -> PatchMatches:
    """Warp the source's detail onto the target's and locate every textured patch in it.

    Args:
        source, target: detail images (H, W).
        matrix: 2x3, from the source's pixel indices to the target's.
        um_per_px: of both.
        masks: (H, W) each, 255 where the source and the target show the film; all of both if left
            out.
        search_um: how far from its predicted place a patch is looked for.
        longest_step_um: between patches; a square overlap has `STEPS` in a row or more.
    """
    height, width = target.shape
    warped = _pixels(cv2.warpAffine(source, matrix, (width, height), flags=cv2.INTER_LINEAR))
    whole = np.full_like(source, 255) if masks is None else masks[0]
    frame = cv2.warpAffine(whole, matrix, (width, height))
    shared = _pixels(frame == 255)
    if masks is not None:
        shared &= _pixels(masks[1] == 255)
    inside = int(shared.sum())
    if inside < 4:
        nothing = np.zeros((0, 2))
        return PatchMatches(nothing, nothing, 0.0, 0.0, 0.0, um_per_px)
    a, b = warped[shared > 0].astype(np.float64), target[shared > 0].astype(np.float64)
    correlation = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
    extent = float(np.sqrt(inside)) * um_per_px
    step_um = float(np.clip(extent / STEPS, FINEST_STEP_UM, longest_step_um))
    grid = PATCH_UM, search_um, step_um
    centres, offsets, textured = _offsets(warped, target, shared, [v / um_per_px for v in grid])
    area = um_per_px**2
    return PatchMatches(centres, offsets, textured * area, inside * area, correlation, um_per_px)


def verify(source: Pixels, target: Pixels, matrix: Floats, um_per_px: float) -> AlignmentEvidence:
    """Judge a map by the textured patches of the overlap: see `match_patches`."""
    found = match_patches(source, target, matrix, um_per_px)
    distances = found.distances
    near = distances[distances <= AGREE_UM]
    return AlignmentEvidence(
        len(distances),
        len(near),
        float(np.median(near)) if len(near) else 0.0,
        found.correlation,
        found.overlap_um2,
    )


def _pixels(array: object) -> Pixels:
    return np.asarray(array, dtype=np.uint8)


def _offsets(
    warped: Pixels, target: Pixels, shared: Pixels, grid: Sequence[float]
) -> tuple[Floats, Floats, int]:
    """Centre and offset of each textured patch, px, and how many pixels they cover together.

    `grid` is the side of a patch, how far to search, and the step between patches, px.
    """
    side, reach, step = round(grid[0]), max(3, round(grid[1])), max(1, round(grid[2]))
    height, width = target.shape
    size = side + 2 * reach
    ys, xs = np.arange(0, height - size + 1, step), np.arange(0, width - size + 1, step)
    covered = np.zeros((height, width), bool)
    centres, offsets = [], []
    # Integral images give sums over windows in constant time.
    inside = _window_sums(cv2.integral(shared), ys, xs, size) == size * size
    for image, offset, length in ((target, reach, side), (warped, 0, size)):
        inside &= _spreads(image, ys + offset, xs + offset, length) >= TEXTURE
    for row, column in np.argwhere(inside).tolist():
        y, x = int(ys[row]), int(xs[column])
        patch = target[y + reach : y + reach + side, x + reach : x + reach + side]
        covered[y + reach : y + reach + side, x + reach : x + reach + side] = True
        centres.append((x + reach + (side - 1) / 2, y + reach + (side - 1) / 2))
        offsets.append(_offset(warped[y : y + size, x : x + size], patch, reach))
    shape = (-1, 2)
    return np.array(centres).reshape(shape), np.array(offsets).reshape(shape), int(covered.sum())


def _spreads(image: Pixels, ys: Starts, xs: Starts, side: int) -> Floats:
    """Return the standard deviation of every square window, by its top and left edge."""
    table, squares = cv2.integral2(image, sqdepth=cv2.CV_64F)
    mean, square = (_window_sums(t, ys, xs, side) / side**2 for t in (table, squares))
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0.0)))


def _window_sums(table: Any, ys: Starts, xs: Starts, side: int) -> Any:
    """Return the sum over every square window, from an integral image."""
    top, bottom = table[ys], table[ys + side]
    return bottom[:, xs + side] - bottom[:, xs] - top[:, xs + side] + top[:, xs]


def _offset(window: Pixels, patch: Pixels, reach: int) -> tuple[float, float]:
    """Vector in px from the centre of the window to the best match of the patch."""
    scores = np.asarray(cv2.matchTemplate(window, patch, cv2.TM_CCOEFF_NORMED))
    _, peak, _, (x, y) = cv2.minMaxLoc(scores)
    if peak < MIN_PEAK:
        return float("inf"), float("inf")
    across = x + _subpixel_peak(scores[y], x) - reach
    return across, y + _subpixel_peak(scores[:, x], y) - reach


def _subpixel_peak(scores: NDArray[np.generic], at: int) -> float:
    """Sub-pixel position of a peak, -0.5..0.5, by a parabola through three values."""
    if not 0 < at < len(scores) - 1:
        return 0.0
    before, peak, after = (float(v) for v in scores[at - 1 : at + 2])
    bend = before - 2 * peak + after
    return float(np.clip((before - after) / (2 * bend), -0.5, 0.5)) if bend < 0 else 0.0
