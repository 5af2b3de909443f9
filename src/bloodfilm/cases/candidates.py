"""Which fields of a film may show common glass: by keypoints, compared all at once.

Comparing every pair of a thousand fields at full size would take hours. Here the keypoints of all
fields are compared in one go, as short vectors; two fields become a candidate pair where several of
their matches agree on one rotation and shift. What is a candidate is verified afterwards, so this
step may propose too many pairs, not too few.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.cases.landmarks import FieldLandmarks
from bloodfilm.core.arrays import Floats
from bloodfilm.core.progress import NoProgress, Progress, counter

DIMENSIONS = 24
MATCHES = 6.0
"""Matches that a keypoint gets among unrelated fields, on average."""
MIN_LIKENESS = 0.7
ROWS = 1024
MIN_VOTES = 3
ANGLE = np.radians(15.0)
SLACK_UM = 2.0
SLACK = 0.12
"""How far a match may lie from where another one predicts it: um, and as a share of their
distance, for keypoints' orientations are uncertain by some degrees."""
MAX_VOTERS = 160
FIT_UM = 2.0
SCALE_RANGE = (0.85, 1.18)
MIN_ALIKE = 0.6
SAME_SIZE = 0.03


@dataclass(frozen=True, eq=False)
class CandidatePair:
    """Two fields that may show common glass.

    Attributes:
        first, second: their places in the list, first < second.
        matrix: 2x3, from the first field's plane to the second's, um.
        votes: keypoint matches that agree with it; 0 where whole pictures look alike.
    """

    first: int
    second: int
    matrix: Floats
    votes: int


def find_candidates(
    fields: Sequence[FieldLandmarks], progress: Progress | None = None
) -> list[CandidatePair]:
    """Return the pairs to verify, by first, then second field, the best of a pair first."""
    found = [*_by_keypoints(fields, progress or NoProgress()), *_by_thumbnails(fields)]
    return sorted(found, key=lambda c: (c.first, c.second, -c.votes))


def _by_keypoints(fields: Sequence[FieldLandmarks], progress: Progress) -> Iterator[CandidatePair]:
    """Yield pairs with matches that agree."""
    counts = [len(f.points) for f in fields]
    if len(fields) < 2 or min(sum(counts), len(fields)) < 2:
        return
    owner = np.repeat(np.arange(len(fields)), counts)
    points = np.concatenate([f.points for f in fields])
    angles = np.concatenate([f.angles for f in fields])
    vectors = _shortened(np.concatenate([f.descriptors for f in fields]))
    one, two = _matches(vectors, owner, progress)
    key = owner[one] * len(fields) + owner[two]
    order = np.argsort(key, kind="stable")
    one, two, key = one[order], two[order], key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(key)], strict=True):
        if end - start < MIN_VOTES:
            continue
        a, b = one[start:end], two[start:end]
        fitted = _agreement(points[a], points[b], angles[b] - angles[a])
        if fitted is not None:
            yield CandidatePair(int(owner[a[0]]), int(owner[b[0]]), *fitted)


def _shortened(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the principal components of descriptors, of unit length."""
    vectors = descriptors.astype(np.float32) / 255
    vectors -= vectors.mean(axis=0)
    values, axes = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    short = vectors @ axes[:, np.argsort(-values)[:DIMENSIONS]].astype(np.float32)
    length = np.linalg.norm(short, axis=1, keepdims=True)
    return np.asarray(short / np.maximum(length, 1e-6), dtype=np.float32)


def _matches(
    vectors: NDArray[np.float32], owner: NDArray[np.int64], progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of keypoints of different fields that look alike, the first field lower."""
    least = _least_likeness(vectors, owner)
    firsts, seconds = [], []
    count = counter(progress, "comparing fields", len(vectors))
    for start in range(0, len(vectors), ROWS):
        rows = vectors[start : start + ROWS]
        # Keypoints are in the order of their fields: only those that follow need be compared.
        likeness = rows @ vectors[start:].T
        place = np.flatnonzero(likeness > least)
        row, column = np.divmod(place, likeness.shape[1])
        row, column = row + start, column + start
        apart = owner[row] < owner[column]
        firsts.append(row[apart])
        seconds.append(column[apart])
        count(min(start + ROWS, len(vectors)))
    return np.concatenate(firsts), np.concatenate(seconds)


def _least_likeness(vectors: NDArray[np.float32], owner: NDArray[np.int64]) -> float:
    """Return the likeness that `MATCHES` keypoints of other fields reach, on average."""
    sample = vectors[:: max(1, len(vectors) // 512)]
    own = owner[:: max(1, len(vectors) // 512)]
    best: list[NDArray[np.float32]] = []
    for vector, field in zip(sample, own, strict=True):
        others = (vectors @ vector)[owner != field]
        most = min(len(others), round(4 * MATCHES))
        best.append(np.partition(others, len(others) - most)[len(others) - most :])
    together = np.sort(np.concatenate(best))[::-1]
    wanted = min(len(together) - 1, round(MATCHES * len(sample)))
    return max(MIN_LIKENESS, float(together[wanted]))


def _agreement(one: Floats, two: Floats, turn: Floats) -> tuple[Floats, int] | None:
    """Return the similarity that most matches agree with, and how many; `None` if too few."""
    if len(one) > MAX_VOTERS:
        kept = np.linspace(0, len(one) - 1, MAX_VOTERS).astype(np.intp)
        one, two, turn = one[kept], two[kept], turn[kept]
    step = one[None, :, :] - one[:, None, :]
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    x = two[:, None, 0] + cos * step[:, :, 0] - sin * step[:, :, 1]
    y = two[:, None, 1] + sin * step[:, :, 0] + cos * step[:, :, 1]
    away = np.hypot(x - two[None, :, 0], y - two[None, :, 1])
    unlike = np.abs((turn[None, :] - turn[:, None] + np.pi) % (2 * np.pi) - np.pi)
    near = (away <= SLACK_UM + SLACK * np.hypot(step[:, :, 0], step[:, :, 1])) & (unlike < ANGLE)
    best = int(near.sum(axis=1).argmax())
    voters = np.flatnonzero(near[best])
    # Keypoints at one place with two orientations are one piece of evidence.
    if len(np.unique(np.round(one[voters]), axis=0)) < MIN_VOTES:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        one[voters], two[voters], method=cv2.RANSAC, ransacReprojThreshold=FIT_UM
    )
    if matrix is None or not np.isfinite(matrix).all() or int(inliers.sum()) < MIN_VOTES:
        return None
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if not SCALE_RANGE[0] < scale < SCALE_RANGE[1]:
        return None
    return np.asarray(matrix, dtype=np.float64), int(inliers.sum())


def _by_thumbnails(fields: Sequence[FieldLandmarks]) -> Iterator[CandidatePair]:
    """Yield pairs of whole pictures that look alike: copies, and planes of a focus series."""
    if len(fields) < 2:
        return
    thumbnails = np.stack([f.thumbnail for f in fields])
    sizes = np.array([f.size_um for f in fields])
    likeness = thumbnails @ thumbnails.T
    for one, two in np.argwhere(np.triu(likeness, 1) >= MIN_ALIKE).tolist():
        if np.abs(sizes[one] / sizes[two] - 1).max() <= SAME_SIZE:
            yield CandidatePair(one, two, np.eye(2, 3), 0)
