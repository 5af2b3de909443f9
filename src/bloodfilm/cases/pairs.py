"""Whether two fields show common glass, decided by patches that the candidate did not use."""

import itertools
from dataclasses import dataclass

import cv2
import numpy as np

from bloodfilm.cases.candidates import CandidatePair
from bloodfilm.cases.landmarks import FieldDetail
from bloodfilm.core.arrays import Floats
from bloodfilm.evaluation.intervals import wilson_interval
from bloodfilm.registration.verify import AGREE_UM, PATCH_UM, PatchMatches, match_patches

SEARCHES_UM = (3.0, 2.5, 2.0)
"""How far patches are looked for, round by round: the map is refined between the rounds."""
LONGEST_STEP_UM = 10.0
MIN_FIT = 4
AFFINE_FIT = 12
FIT_UM = 1.0
MIN_PATCHES = 6.0
MIN_SHARE = 0.55
MIN_CORRELATION = 0.4
"""Of what both fields show: it is rarely below 0.7 for common glass, and above 0.45 for other."""
SHIFT_UM = 2.0
SAMPLE_UM = 2.5
MIN_SAMPLES = 8.0
MIN_STRIP_CORRELATION = 0.6
MIN_DEVIATIONS = 6.5
"""Where the correlation decides alone: chance reaches 5, for the best of many shifts is taken."""
FLAT = 2.0
MAX_STRETCH = 1.08
SCALE_RANGE = (0.9, 1.11)


@dataclass(frozen=True, eq=False)
class FieldPair:
    """Two fields that show common glass.

    Attributes:
        first, second: their places in the list.
        matrix: 2x3, from the first field's plane to the second's, um.
        share: lower bound of the share of patches that agree, or of the correlation.
        patches: patches side by side that were compared, or for which there would be room.
        overlap_um2: area in common.
    """

    first: int
    second: int
    matrix: Floats
    share: float
    patches: float
    overlap_um2: float

    @property
    def weight(self) -> float:
        """Strength of its evidence: the more patches agree, the higher."""
        return self.share * self.patches


def verify_pair(
    candidate: CandidatePair, first: FieldDetail, second: FieldDetail, um_per_px: float
) -> FieldPair | None:
    """Refine a candidate and judge it; `None` if the fields do not agree.

    Patches decide where there is room for them, and where there is not, in narrow strips and on
    glass with few cells, the correlation of all that both fields show.
    """
    matrix = to_pixels(candidate.matrix, um_per_px)
    found = _matched(first, second, matrix, um_per_px, SEARCHES_UM[0])
    for search_um in SEARCHES_UM[1:]:
        fitted = _fit(found, matrix, um_per_px)
        if fitted is None or not _is_rigid(fitted):
            break
        matrix = fitted
        found = _matched(first, second, matrix, um_per_px, search_um)
    else:
        near = found.distances <= AGREE_UM
        side_by_side = _side_by_side(found)
        if side_by_side >= MIN_PATCHES:
            share = wilson_interval(float(near.mean()) * side_by_side, side_by_side)[0]
            if share < MIN_SHARE or found.correlation < MIN_CORRELATION:
                return None
            in_um = to_um(matrix, um_per_px)
            return FieldPair(
                candidate.first, candidate.second, in_um, share, side_by_side, found.overlap_um2
            )
    if _side_by_side(found) >= MIN_PATCHES:
        return None
    return _by_correlation(candidate, first, second, matrix, um_per_px)


def _side_by_side(found: PatchMatches) -> float:
    return min(len(found.centres), found.textured_um2 / PATCH_UM**2)


def _by_correlation(
    candidate: CandidatePair,
    first: FieldDetail,
    second: FieldDetail,
    matrix: Floats,
    um_per_px: float,
) -> FieldPair | None:
    """Judge a candidate by the correlation of what both fields show, shifted to where it is best.

    Details are normalised over some micrometres, so each such square is one independent sample of
    a correlation, whose arc tangent is normally distributed (Fisher 1921).
    """
    if not _is_rigid(matrix):
        return None
    best = _correlation(first, second, matrix)
    reach = max(1, round(SHIFT_UM / um_per_px))
    for step, most in ((2, reach), (1, 1)):
        centre = matrix
        moves = range(-most, most + 1, step)
        for x, y in itertools.product(moves, moves):
            moved = centre + np.array([[0.0, 0.0, x], [0.0, 0.0, y]])
            there = _correlation(first, second, moved)
            if there[0] > best[0]:
                best, matrix = there, moved
    value, area = best[0], best[1] * um_per_px**2
    samples = area / SAMPLE_UM**2
    if value < MIN_STRIP_CORRELATION or samples <= MIN_SAMPLES:
        return None
    error = 1 / np.sqrt(samples - 3)
    score = np.arctanh(min(value, 0.999))
    if score < MIN_DEVIATIONS * error:
        return None
    share = float(np.tanh(score - 1.96 * error))
    in_um = to_um(matrix, um_per_px)
    return FieldPair(candidate.first, candidate.second, in_um, share, area / PATCH_UM**2, area)


def _correlation(first: FieldDetail, second: FieldDetail, matrix: Floats) -> tuple[float, int]:
    """Return the correlation of what both fields show, and its number of pixels."""
    height, width = first.detail.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, second.detail.shape[::-1])
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, second.detail.shape[::-1])
    size = int(high[0] - low[0]), int(high[1] - low[1])
    if min(size) < 2:
        return 0.0, 0
    moved = matrix - np.array([[0.0, 0.0, low[0]], [0.0, 0.0, low[1]]])
    seen = cv2.warpAffine(first.detail, moved, size, flags=cv2.INTER_LINEAR)
    there = (slice(low[1], high[1]), slice(low[0], high[0]))
    shared = (cv2.warpAffine(first.mask, moved, size) == 255) & (second.mask[there] == 255)
    a, b = seen[shared].astype(np.float64), second.detail[there][shared].astype(np.float64)
    if len(a) < 2 or min(a.std(), b.std()) < FLAT:
        return 0.0, len(a)
    return float(np.corrcoef(a, b)[0, 1]), len(a)


def _matched(
    first: FieldDetail, second: FieldDetail, matrix: Floats, um_per_px: float, search_um: float
) -> PatchMatches:
    masks = first.mask, second.mask
    return match_patches(
        first.detail, second.detail, matrix, um_per_px, masks, search_um, LONGEST_STEP_UM
    )


def _fit(found: PatchMatches, matrix: Floats, um_per_px: float) -> Floats | None:
    """Return the map that the places of the patches agree with."""
    there = np.isfinite(found.offsets).all(axis=1)
    target = found.centres[there]
    if len(target) < MIN_FIT:
        return None
    back = cv2.invertAffineTransform(matrix)
    source = (target + found.offsets[there]) @ back[:, :2].T + back[:, 2]
    estimate = cv2.estimateAffine2D if len(target) >= AFFINE_FIT else cv2.estimateAffinePartial2D
    fitted, inliers = estimate(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=FIT_UM / um_per_px
    )
    if fitted is None or not np.isfinite(fitted).all() or int(inliers.sum()) < MIN_FIT:
        return None
    return np.asarray(fitted, dtype=np.float64)


def _is_rigid(matrix: Floats) -> bool:
    large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
    scale = float(np.sqrt(large * small))
    low, high = SCALE_RANGE
    return bool(small > 0 and large < MAX_STRETCH * small and low < scale < high)


def to_pixels(matrix: Floats, um_per_px: float) -> Floats:
    """Convert a 2x3 map of planes in um to one of pixel indices."""
    linear = matrix[:, :2]
    half = np.array([0.5, 0.5])
    shift = linear @ half + matrix[:, 2] / um_per_px - half
    return np.column_stack([linear, shift])


def to_um(matrix: Floats, um_per_px: float) -> Floats:
    """Convert a 2x3 map of pixel indices to one of planes in um: the inverse of `to_pixels`."""
    linear = matrix[:, :2]
    half = np.array([0.5, 0.5])
    return np.column_stack([linear, (matrix[:, 2] + half - linear @ half) * um_per_px])
