"""Whether two fields show common glass, decided by patches that the candidate did not use."""

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
MAX_STRETCH = 1.08
SCALE_RANGE = (0.9, 1.11)


@dataclass(frozen=True, eq=False)
class FieldPair:
    """Two fields that show common glass.

    Attributes:
        first, second: their places in the list.
        matrix: 2x3, from the first field's plane to the second's, um.
        share: lower bound of the share of patches that agree.
        patches: patches side by side that were compared.
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
    """Refine a candidate by patches and judge it; `None` if the fields do not agree."""
    matrix = to_pixels(candidate.matrix, um_per_px)
    found = _matched(first, second, matrix, um_per_px, SEARCHES_UM[0])
    for search_um in SEARCHES_UM[1:]:
        fitted = _fit(found, matrix, um_per_px)
        if fitted is None or not _is_rigid(fitted):
            return None
        matrix = fitted
        found = _matched(first, second, matrix, um_per_px, search_um)
    near = found.distances <= AGREE_UM
    side_by_side = min(len(near), found.textured_um2 / PATCH_UM**2)
    if side_by_side < MIN_PATCHES:
        return None
    share = wilson_interval(float(near.mean()) * side_by_side, side_by_side)[0]
    if share < MIN_SHARE:
        return None
    in_um = to_um(matrix, um_per_px)
    return FieldPair(
        candidate.first, candidate.second, in_um, share, side_by_side, found.overlap_um2
    )


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
