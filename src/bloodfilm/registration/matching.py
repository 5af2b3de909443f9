"""Propose alignments of two fields: feature matches and a robust affine fit."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.registration.view import Keypoints, RegisteredView

RATIO = 0.85
MAX_REPROJECTION_PX = 3.0
MIN_MATCHES = 6
ENOUGH_INLIERS = 40
MAX_ITERATIONS = 5000
MAX_STRETCH = 1.5
MAX_SCALE = 1.7
MAX_SCALE_UNKNOWN = 4.0


@dataclass(frozen=True, eq=False)
class AlignmentCandidate:
    """A proposed 2x3 map from the source view's pixel indices to the target view's.

    Attributes:
        matrix: the map; its determinant is negative for a mirrored pair.
        inliers: feature matches that agree with it.
        matches: number of feature matches.
    """

    matrix: Floats
    inliers: int
    matches: int

    @property
    def mirrored(self) -> bool:
        """Whether one of the two fields is mirrored."""
        return bool(np.linalg.det(self.matrix[:, :2]) < 0)


def match(first: Keypoints, second: Keypoints, ratio: float = RATIO) -> NDArray[np.intp]:
    """Pairs of indices (n, 2) whose best match is clearly better than the second best.

    Matching runs from the field with fewer features: most of the larger one is not in the smaller.
    """
    if len(first.points) > len(second.points):
        return match(second, first, ratio)[:, ::-1]
    if len(first.points) < 2:
        return np.zeros((0, 2), dtype=np.intp)
    # Unit vectors: the largest product is the smallest distance, so one matrix product suffices.
    near = first.descriptors @ second.descriptors.T
    best = np.argpartition(-near, 1, axis=1)[:, :2]
    values = np.take_along_axis(near, best, axis=1)
    swap = values[:, 0] < values[:, 1]
    best[swap], values[swap] = best[swap, ::-1], values[swap, ::-1]
    distance = np.sqrt(np.clip(2 - 2 * values, 0, None))
    clear = distance[:, 0] < ratio * distance[:, 1]
    return np.stack([np.flatnonzero(clear), best[clear, 0]], axis=1)


def propose_alignments(source: RegisteredView, target: RegisteredView) -> list[AlignmentCandidate]:
    """Candidates from feature matches, best first; mirrored ones where the direct fit is weak."""
    found = []
    plain = _fit(source.features, target.features)
    if plain and plausible(plain.matrix, source, target):
        found.append(plain)
    if not plain or plain.inliers < ENOUGH_INLIERS:
        mirrored = _fit(source.features, target.mirrored_features)
        if mirrored and plausible(mirrored.matrix, source, target):
            matrix = unmirror(mirrored.matrix, target.size[0])
            found.append(AlignmentCandidate(matrix, mirrored.inliers, mirrored.matches))
    return sorted(found, key=lambda p: -p.inliers)


def unmirror(matrix: Floats, width: int) -> Floats:
    """Convert a map into a mirrored image of that width to one into the original."""
    flip = np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    return np.asarray((flip @ np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2])


def _fit(first: Keypoints, second: Keypoints) -> AlignmentCandidate | None:
    """Affine map by MAGSAC++ (Barath et al., CVPR 2020) over the matches."""
    pairs = match(first, second)
    if len(pairs) < MIN_MATCHES:
        return None
    matrix, inliers = cv2.estimateAffine2D(
        first.points[pairs[:, 0]],
        second.points[pairs[:, 1]],
        method=cv2.USAC_MAGSAC,
        ransacReprojThreshold=MAX_REPROJECTION_PX,
        maxIters=MAX_ITERATIONS,
        confidence=0.999,
    )
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return AlignmentCandidate(
        np.asarray(matrix, dtype=np.float64), int(np.sum(inliers)), len(pairs)
    )


def plausible(matrix: Floats, source: RegisteredView, target: RegisteredView) -> bool:
    """Whether the map of two canonical fields is close enough to a rotation and shift.

    Scale and pixel aspect ratio measured on red cells are within some 15 % per field; assumed
    ones may be off by more.
    """
    large, small = np.linalg.svd(matrix[:, :2], compute_uv=False)
    known = source.known_scale and target.known_scale
    limit = MAX_SCALE if known else MAX_SCALE_UNKNOWN
    scale = float(np.sqrt(large * small))
    return bool(small > 0 and large < MAX_STRETCH * small and 1 / limit < scale < limit)
