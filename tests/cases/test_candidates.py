"""Which fields become candidates: overlaps do, what repeats everywhere does not flood them."""

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from bloodfilm.cases import candidates
from bloodfilm.cases.candidates import MAX_VOTERS, MIN_VOTES, find_candidates
from bloodfilm.cases.landmarks import THUMBNAIL, FieldLandmarks
from bloodfilm.core.arrays import Floats

SIDE = 100.0


def landmarks(points: Floats, angles: Floats, descriptors: np.ndarray, seed: int) -> FieldLandmarks:
    picture = np.random.default_rng(seed).normal(size=THUMBNAIL**2).astype(np.float32)
    return FieldLandmarks(
        (SIDE, SIDE),
        points,
        angles,
        descriptors.astype(np.uint8),
        picture / np.linalg.norm(picture),
        str(seed),
    )


def turned(points: Floats, turn: float, shift: Floats) -> Floats:
    cos, sin = np.cos(turn), np.sin(turn)
    return points @ np.array([[cos, sin], [-sin, cos]]) + shift


def fields_with_overlaps(count: int, common: int = 12) -> tuple[list[FieldLandmarks], set]:
    """Each even field shows keypoints of the next, turned and shifted; all show common clutter."""
    rng = np.random.default_rng(5)
    clutter = rng.integers(0, 256, (6, 128))
    fields = []
    for number in range(count):
        points = rng.uniform(0, SIDE, (90, 2))
        angles = rng.uniform(-np.pi, np.pi, 90)
        descriptors = rng.integers(0, 256, (90, 128))
        descriptors[:30] = clutter[np.arange(30) % 6]
        if number % 2:
            before, turn = fields[-1], rng.uniform(-np.pi, np.pi)
            points[-common:] = turned(before.points[-common:], turn, rng.uniform(-9, 9, 2))
            angles[-common:] = before.angles[-common:] + turn
            noise = rng.integers(-6, 7, (common, 128))
            descriptors[-common:] = np.clip(before.descriptors[-common:] + noise, 0, 255)
        clutter_noise = rng.integers(-6, 7, (30, 128))
        descriptors[:30] = np.clip(descriptors[:30] + clutter_noise, 0, 255)
        fields.append(landmarks(points, angles, descriptors, number))
    return fields, {(k, k + 1) for k in range(0, count - 1, 2)}


@pytest.mark.parametrize("per_cell", [1_000_000, 60])
def test_overlaps_are_found_among_what_looks_alike_in_all_fields(monkeypatch, per_cell):
    """With one cell of the inverted file, and with many."""
    monkeypatch.setattr(candidates, "PER_CELL", per_cell)
    fields, true = fields_with_overlaps(60)
    found = find_candidates(fields)
    pairs = {(c.first, c.second) for c in found}
    assert true <= pairs
    assert len(pairs - true) < len(list(combinations(range(60), 2))) // 50
    for one in found:
        if (one.first, one.second) in true:
            first, second = fields[one.first], fields[one.second]
            moved = first.points[-12:] @ one.matrix[:, :2].T + one.matrix[:, 2]
            assert np.abs(moved - second.points[-12:]).max() < 1e-4


def test_the_same_fields_give_the_same_candidates():
    fields, _ = fields_with_overlaps(20)
    one, two = (find_candidates(fields) for _ in range(2))
    assert [(c.first, c.second, c.votes, c.matrix.tolist()) for c in one] == [
        (c.first, c.second, c.votes, c.matrix.tolist()) for c in two
    ]


def test_groups_passed_over_hold_no_agreement(monkeypatch):
    """Counting the votes of all pairs of fields at once gives what counting one by one gives."""
    monkeypatch.setattr(candidates, "COMBINATIONS", 500)
    rng = np.random.default_rng(8)
    sizes = np.array([1, 2, 3, 5, 9, 14, 30, 3, 4, MAX_VOTERS + 5] * 4)
    ends = np.cumsum(sizes)
    one = rng.uniform(0, SIDE, (ends[-1], 2))
    two = rng.uniform(0, SIDE, (ends[-1], 2))
    turn = rng.uniform(-np.pi, np.pi, ends[-1])
    for end in ends[5::10]:
        place = slice(end - 4, end)
        two[place], turn[place] = turned(one[place], 1.0, np.array([3.0, 5.0])), 1.0
    promising = candidates._promising(one, two, turn, (ends - sizes, ends)).tolist()
    assert set(range(5, 40, 10)) <= set(promising)
    for number, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        place = slice(end - size, end)
        if number not in promising:
            near = size >= MIN_VOTES and candidates._agreement(one[place], two[place], turn[place])
            assert not near


def test_no_fields_and_fields_without_keypoints_have_no_candidates():
    nothing = np.zeros((0, 2)), np.zeros(0), np.zeros((0, 128))
    assert find_candidates([]) == []
    assert find_candidates([landmarks(*nothing, seed) for seed in range(3)]) == []
    few, _ = fields_with_overlaps(2)
    assert [(c.first, c.second) for c in find_candidates([*few, landmarks(*nothing, 9)])] == [
        (0, 1)
    ]


@pytest.mark.parametrize("empty", [(0,), (1,), (0, 2)])
def test_fields_without_keypoints_leave_nothing_to_compare(empty):
    rng = np.random.default_rng(3)
    fields = []
    for number in range(3):
        count = 0 if number in empty else 40
        points, angles = rng.uniform(0, SIDE, (count, 2)), rng.uniform(-3, 3, count)
        fields.append(landmarks(points, angles, rng.integers(0, 256, (count, 128)), number))
    assert find_candidates(fields) == []


def test_fields_of_two_keypoints_each_have_no_candidates():
    rng = np.random.default_rng(4)
    fields = [
        landmarks(
            rng.uniform(0, SIDE, (2, 2)), rng.uniform(-3, 3, 2), rng.integers(0, 256, (2, 128)), k
        )
        for k in range(2)
    ]
    assert find_candidates(fields) == []


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(candidates, "PER_CELL", 60)
    fields, _ = fields_with_overlaps(30)

    def plain(found):
        return [(c.first, c.second, c.votes, c.matrix.tolist()) for c in found]

    with ThreadPoolExecutor(4) as executor:
        threaded = find_candidates(fields, None, executor.map)
    assert plain(threaded) == plain(find_candidates(fields))
    assert threaded
