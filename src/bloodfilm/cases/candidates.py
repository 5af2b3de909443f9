"""Which fields of a film may show common glass: by keypoints, compared all at once.

Comparing every pair of a thousand fields at full size would take hours. Here the keypoints of all
fields are compared in one go, as short vectors; two fields become a candidate pair where several of
their matches agree on one rotation and shift. What is a candidate is verified afterwards, so this
step may propose too many pairs, not too few.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.cases.landmarks import FieldLandmarks
from bloodfilm.core.arrays import Floats
from bloodfilm.core.progress import NoProgress, Progress, counter

DIMENSIONS = 24
MATCHES = 6
"""Matches that half of all keypoints get, most of them in unrelated fields."""
MIN_LIKENESS = 0.7
ROWS = 1024
PER_CELL = 1200
MAX_CELLS = 160
"""Keypoints to a cell of the inverted file, and the most cells."""
PROBES = 6
"""Cells in which the likes of a keypoint are looked for."""
KEPT = 16
"""Matches that a keypoint keeps: one that looks like thousands of others tells nothing."""
SAMPLE, ROUNDS = 64, 6
"""Vectors to a centre from which the centres are found, and how often they are refined."""
COMBINATIONS = 1_000_000
"""Matches that are held against each other at a time."""
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

_Matches = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Keypoints that ask, those that look like them, and how much."""


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
    fields: Sequence[FieldLandmarks],
    progress: Progress | None = None,
    map_: Callable[..., Iterable[Any]] = map,
) -> list[CandidatePair]:
    """Return the pairs to verify, by first, then second field, the best of a pair first.

    Args:
        fields: of one film.
        progress: follows the comparison.
        map_: `map`, or the `map` of an executor; it bears on time only.
    """
    found = [*_by_keypoints(fields, progress or NoProgress(), map_), *_by_thumbnails(fields)]
    return sorted(found, key=lambda c: (c.first, c.second, -c.votes))


def _by_keypoints(
    fields: Sequence[FieldLandmarks], progress: Progress, map_: Callable[..., Iterable[Any]]
) -> Iterator[CandidatePair]:
    """Yield pairs with matches that agree."""
    counts = [len(f.points) for f in fields]
    if np.count_nonzero(counts) < 2:
        return
    owner = np.repeat(np.arange(len(fields)), counts)
    points = np.concatenate([f.points for f in fields])
    angles = np.concatenate([f.angles for f in fields])
    vectors = _shortened(np.concatenate([f.descriptors for f in fields]))
    one, two = _matches(vectors, owner, progress, map_)
    if not len(one):
        return
    key = owner[one] * len(fields) + owner[two]
    order = np.argsort(key, kind="stable")
    one, two, key = one[order], two[order], key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    ends = np.append(starts[1:], len(key))
    count = counter(progress, "comparing pairs", len(starts))
    turn = (angles[two] - angles[one]) % (2 * np.pi)
    agreeing = _promising(points[one], points[two], turn, (starts, ends))
    for pair in agreeing.tolist():
        count(pair)
        group = slice(starts[pair], ends[pair])
        a, b = one[group], two[group]
        fitted = _agreement(points[a], points[b], turn[group])
        if fitted is not None:
            yield CandidatePair(int(owner[a[0]]), int(owner[b[0]]), *fitted)
    count(len(starts))


def _shortened(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the principal components of descriptors, of unit length."""
    vectors = descriptors.astype(np.float32) / 255
    vectors -= vectors.mean(axis=0)
    values, axes = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    short = vectors @ axes[:, np.argsort(-values)[:DIMENSIONS]].astype(np.float32)
    length = np.linalg.norm(short, axis=1, keepdims=True)
    return np.asarray(short / np.maximum(length, 1e-6), dtype=np.float32)


def _matches(
    vectors: NDArray[np.float32],
    owner: NDArray[np.int64],
    progress: Progress,
    map_: Callable[..., Iterable[Any]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs of keypoints of different fields that look alike, the first field lower.

    Vectors are sorted into cells around centres, as in an inverted file (Jegou et al., PAMI 2011),
    and each is compared with those of its `PROBES` nearest cells only.
    """
    least = _least_likeness(vectors, owner)
    centres = _centres(vectors)
    cells = _nearest(vectors, centres, min(PROBES, len(centres)))
    asking_in = _by_cell(cells, len(centres))
    lying_in = _by_cell(cells[:, :1], len(centres))

    def compared(cell: int) -> list[_Matches]:
        """Return the matches of the keypoints of a cell with those that ask in it."""
        matches = []
        asking, there = asking_in[cell], lying_in[cell]
        held = np.ascontiguousarray(vectors[there].T)
        for start in range(0, len(asking), ROWS):
            rows = asking[start : start + ROWS]
            likeness = vectors[rows] @ held
            place = np.flatnonzero(likeness > least)
            row, column = np.divmod(place, len(there))
            apart = owner[rows[row]] != owner[there[column]]
            row, column, value = row[apart], column[apart], likeness.ravel()[place[apart]]
            kept = _first(row, value)
            matches.append((rows[row[kept]], there[column[kept]], value[kept]))
        return matches

    count = counter(progress, "comparing fields", len(centres))
    found: list[_Matches] = []
    for done, matches in enumerate(map_(compared, range(len(centres))), 1):
        found += matches
        count(done)
    one, two, value = (np.concatenate(side) for side in zip(*found, strict=True))
    kept = _first(one, value)
    one, two = one[kept], two[kept]
    # Keypoints are in the order of their fields. Two may each have asked for the other.
    pairs = np.sort(np.minimum(one, two) * len(vectors) + np.maximum(one, two))
    return np.divmod(pairs[np.flatnonzero(np.diff(pairs, prepend=-1))], len(vectors))


def _by_cell(cells: NDArray[np.int16], count: int) -> list[NDArray[np.int64]]:
    """Return for each of so many cells which keypoints (n, k) have it among theirs, rising."""
    order = np.argsort(cells, axis=None, kind="stable")
    ends = np.cumsum(np.bincount(cells.ravel(), minlength=count))
    return np.split(order // cells.shape[1], ends[:-1])


def _first(asking: NDArray[np.int64], likeness: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return which matches are among the `KEPT` likest of those of the same keypoint."""
    # One key for both, sorted at once: several times as fast as by one after the other.
    unlike = np.rint((1.0 - likeness.astype(np.float64)) * 2**31).astype(np.int64)
    order = np.argsort(asking * 2**32 + np.clip(unlike, 0, 2**32 - 1))
    sorted_ = asking[order]
    starts = np.flatnonzero(np.diff(sorted_, prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return order[rank < KEPT]


def _centres(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return unit vectors (k, d) around which the vectors gather: spherical k-means of a sample."""
    count = int(np.clip(len(vectors) // PER_CELL, 1, MAX_CELLS))
    sample = vectors[:: max(1, len(vectors) // (SAMPLE * count))]
    centres = sample[np.linspace(0, len(sample) - 1, count).astype(np.intp)]
    for _ in range(ROUNDS):
        nearest = _nearest(sample, centres, 1)[:, 0]
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, sample)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 1e-6, sums / np.maximum(length, 1e-6), centres)
    return centres


def _nearest(
    vectors: NDArray[np.float32], centres: NDArray[np.float32], most: int
) -> NDArray[np.int16]:
    """Return for each vector the numbers of its nearest centres, (n, most), the nearest first."""
    found = np.zeros((len(vectors), most), np.int16)
    for start in range(0, len(vectors), ROWS):
        likeness = vectors[start : start + ROWS] @ centres.T
        if most < len(centres):
            best = np.argpartition(-likeness, most - 1, axis=1)[:, :most]
        else:
            best = np.tile(np.arange(most), (len(likeness), 1))
        order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1, kind="stable")
        found[start : start + ROWS] = np.take_along_axis(best, order, axis=1)
    return found


def _least_likeness(vectors: NDArray[np.float32], owner: NDArray[np.int64]) -> float:
    """Return the likeness that `MATCHES` keypoints of other fields reach, for half of all.

    A median: what repeats in every field, and is like thousands, does not raise it.
    """
    every = max(1, len(vectors) // 512)
    reached = []
    for vector, field in zip(vectors[::every], owner[::every], strict=True):
        others = (vectors @ vector)[owner != field]
        place = max(0, len(others) - MATCHES)
        reached.append(float(np.partition(others, place)[place]))
    return max(MIN_LIKENESS, float(np.median(reached)))


def _promising(
    one: Floats, two: Floats, turn: Floats, groups: tuple[NDArray[np.intp], NDArray[np.intp]]
) -> NDArray[np.intp]:
    """Return the numbers of the groups of matches in which enough agree with one of them.

    Args:
        one, two: (n, 2) where each match lies in its two fields, um.
        turn: (n,) by which it turns, radians from 0 to 2 pi.
        groups: where the matches of each pair of fields start, and where they end.
    """
    starts, ends = groups
    sizes = ends - starts
    promising = sizes > MAX_VOTERS
    small = np.flatnonzero((sizes >= MIN_VOTES) & ~promising)
    part = np.cumsum(sizes[small].astype(np.int64) ** 2) // COMBINATIONS
    for some in np.split(small, np.flatnonzero(np.diff(part)) + 1) if len(small) else ():
        voters = np.repeat(sizes[some], sizes[some])
        # Every match of a group with every match of it.
        match = np.arange(len(voters)) - np.repeat(
            np.cumsum(sizes[some]) - sizes[some], sizes[some]
        )
        match += np.repeat(starts[some], sizes[some])
        i = np.repeat(match, voters)
        first = np.repeat(np.repeat(starts[some], sizes[some]), voters)
        j = first + np.arange(len(i)) - np.repeat(np.cumsum(voters) - voters, voters)
        votes = np.add.reduceat(_agree(one, two, turn, i, j), np.cumsum(voters) - voters, dtype=int)
        most = np.maximum.reduceat(votes, np.cumsum(sizes[some]) - sizes[some])
        promising[some] = most >= MIN_VOTES
    return np.flatnonzero(promising)


def _agree(
    one: Floats, two: Floats, turn: Floats, i: NDArray[np.intp], j: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """Return whether match j lies where match i predicts it, for each of many i and j."""
    apart = np.abs(turn[j] - turn[i])
    agrees = np.minimum(apart, 2 * np.pi - apart) < ANGLE
    kept = np.flatnonzero(agrees)
    i, j = i[kept], j[kept]
    across, down = (one[j] - one[i]).T
    cos, sin = np.cos(turn[i]), np.sin(turn[i])
    x, y = cos * across - sin * down, sin * across + cos * down
    away = np.hypot(two[i, 0] + x - two[j, 0], two[i, 1] + y - two[j, 1])
    agrees[kept] = away <= SLACK_UM + SLACK * np.hypot(across, down)
    return agrees


def _agreement(one: Floats, two: Floats, turn: Floats) -> tuple[Floats, int] | None:
    """Return the similarity that most matches agree with, and how many; `None` if too few."""
    if len(one) > MAX_VOTERS:
        kept = np.linspace(0, len(one) - 1, MAX_VOTERS).astype(np.intp)
        one, two, turn = one[kept], two[kept], turn[kept]
    i, j = np.divmod(np.arange(len(one) ** 2), len(one))
    near = _agree(one, two, turn, i, j).reshape(len(one), len(one))
    voters = np.flatnonzero(near[int(near.sum(axis=1).argmax())])
    # Keypoints at one place with two orientations are one piece of evidence.
    if len(set(map(tuple, np.round(one[voters]).tolist()))) < MIN_VOTES:
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
