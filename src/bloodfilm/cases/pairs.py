"""Whether two fields show common glass, decided by patches that the candidate did not use."""

import itertools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

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
KEYPOINT_DEVIATIONS, EDGE_DEVIATIONS = 5.0, 6.0
"""Of a correlation that decides alone, for candidates by keypoints and by edges: other glass comes
near 4.7 and 5.2, for many candidates and shifts are tried."""
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
    candidate: CandidatePair,
    first: FieldDetail,
    second: FieldDetail,
    um_per_px: float,
    min_deviations: float = KEYPOINT_DEVIATIONS,
) -> FieldPair | None:
    """Refine a candidate and judge it; `None` if the fields do not agree.

    Patches decide where there is room for them, and where there is not, in narrow strips and on
    glass with few cells, the correlation of all that both fields show.

    Args:
        candidate: the pair.
        first, second: its fields.
        um_per_px: of both.
        min_deviations: of a correlation that decides; the more ways in which fields could fit
            were tried to find the candidate, the higher.
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
    return _by_correlation(candidate, (first, second), matrix, um_per_px, min_deviations)


def _side_by_side(found: PatchMatches) -> float:
    return min(len(found.centres), found.textured_um2 / PATCH_UM**2)


def _by_correlation(
    candidate: CandidatePair,
    fields: tuple[FieldDetail, FieldDetail],
    matrix: Floats,
    um_per_px: float,
    min_deviations: float,
) -> FieldPair | None:
    """Judge a candidate by the correlation of what both fields show, shifted to where it is best.

    Details are normalised over some micrometres, so each such square is one sample of a
    correlation, whose arc tangent is normally distributed (Fisher 1921). Squares count by their
    contrast: a single cell on empty glass looks like any other.
    """
    if not _is_rigid(matrix):
        return None
    best = _correlation(*_shared(*fields, matrix))
    reach = max(1, round(SHIFT_UM / um_per_px))
    for step, most in ((2, reach), (1, 1)):
        centre = matrix
        moves = range(-most, most + 1, step)
        for x, y in itertools.product(moves, moves):
            moved = centre + np.array([[0.0, 0.0, x], [0.0, 0.0, y]])
            value = _correlation(*_shared(*fields, moved))
            if value > best:
                best, matrix = value, moved
    if best < MIN_STRIP_CORRELATION:
        return None
    one, two, shared = _shared(*fields, matrix)
    samples = _samples(one, two, shared, max(1, round(SAMPLE_UM / um_per_px)))
    if samples <= MIN_SAMPLES:
        return None
    error = 1 / np.sqrt(samples - 3)
    score = np.arctanh(min(best, 0.999))
    if score < min_deviations * error:
        return None
    share = float(np.tanh(score - 1.96 * error))
    area = float(shared.sum()) * um_per_px**2
    return FieldPair(
        candidate.first,
        candidate.second,
        to_um(matrix, um_per_px),
        share,
        samples * SAMPLE_UM**2 / PATCH_UM**2,
        area,
    )


def _shared(
    first: FieldDetail, second: FieldDetail, matrix: Floats
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return what both fields show, in the second's plane: each less its mean, and where it is."""
    height, width = first.detail.shape
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]]) @ matrix.T
    frame = second.detail.shape[::-1]
    low = np.clip(np.floor(corners.min(axis=0)).astype(int), 0, frame)
    high = np.clip(np.ceil(corners.max(axis=0)).astype(int) + 1, 0, frame)
    size = int(high[0] - low[0]), int(high[1] - low[1])
    if min(size) < 2:
        nothing = np.zeros((1, 1))
        return nothing, nothing, nothing > 0
    moved = matrix - np.array([[0.0, 0.0, low[0]], [0.0, 0.0, low[1]]])
    there = (slice(low[1], high[1]), slice(low[0], high[0]))
    seen = cv2.warpAffine(first.detail, moved, size, flags=cv2.INTER_LINEAR)
    shared = (cv2.warpAffine(first.mask, moved, size) == 255) & (second.mask[there] == 255)
    count = max(int(shared.sum()), 1)
    flat = [np.where(shared, part, 0).astype(np.float64) for part in (seen, second.detail[there])]
    one, two = (np.where(shared, part - part.sum() / count, 0.0) for part in flat)
    return one, two, shared


def _correlation(one: Floats, two: Floats, shared: NDArray[np.bool_]) -> float:
    """Return the correlation of two fields less their means; 0 where one shows nothing."""
    power = float(np.square(one).sum()), float(np.square(two).sum())
    if min(power) < FLAT**2 * max(int(shared.sum()), 1):
        return 0.0
    return float((one * two).sum() / np.sqrt(power[0] * power[1]))


def _samples(one: Floats, two: Floats, shared: NDArray[np.bool_], side: int) -> float:
    """Return how many squares of a side, px, two fields share, by the contrast that they have."""
    power = np.square(one) / np.square(one).sum() + np.square(two) / np.square(two).sum()
    rows, columns = np.flatnonzero(shared.any(axis=1)), np.flatnonzero(shared.any(axis=0))
    power = power[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    power = np.pad(power, [(0, -n % side) for n in power.shape])
    height, width = (n // side for n in power.shape)
    return effective_number(power.reshape(height, side, width, side).sum(axis=(1, 3)))


def effective_number(power: NDArray[np.floating[Any]]) -> float:
    """Return the number of equal parts among which a sum is as unevenly spread as among these.

    >>> effective_number(np.array([1.0, 1.0, 1.0, 0.0]))
    3.0
    """
    squares = float(np.square(power, dtype=np.float64).sum())
    return float(power.sum(dtype=np.float64)) ** 2 / squares if squares > 0 else 0.0


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
