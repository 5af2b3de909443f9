"""The decoder: against a plain reference, on edge cases, and where n squared would hurt."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.boxes import nms as plain_nms
from bloodfilm.core.detections import Detections
from bloodfilm.inference.decode import cross_class_nms, decode, greedy, nms, overlapping_pairs

STRIDE = 8


def dense(kinds, h, w, objects):
    """Score and distance maps with one location per object (kind, row, column, box, score)."""
    scores = np.zeros((kinds, h, w), dtype=np.float32)
    boxes = np.ones((4, h, w), dtype=np.float32)
    for kind, i, j, (x, y, bw, bh), score in objects:
        cx, cy = (j + 0.5) * STRIDE, (i + 0.5) * STRIDE
        scores[kind, i, j] = score
        boxes[:, i, j] = (cx - x, cy - y, x + bw - cx, y + bh - cy)
    return scores, boxes


def test_boxes_come_back_where_they_were_put():
    objects = [(0, 2, 3, (10, 5, 40, 30), 0.9), (1, 9, 9, (61, 66, 25, 24), 0.7)]
    found = decode(*dense(3, 12, 12, objects), STRIDE, [0.5] * 3, 0.5)
    np.testing.assert_allclose(found.boxes, [(10, 5, 40, 30), (61, 66, 25, 24)], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)
    assert found.type_ids.tolist() == [0, 1]


def test_each_kind_has_its_own_threshold_and_meeting_it_is_enough():
    objects = [(0, 1, 1, (0, 0, 9, 9), 0.5), (1, 8, 8, (60, 60, 9, 9), 0.5)]
    maps = dense(2, 12, 12, objects)
    assert decode(*maps, STRIDE, [0.5, 0.51], 0.5).type_ids.tolist() == [0]
    assert decode(*maps, STRIDE, [0.51, 0.5], 0.5).type_ids.tolist() == [1]


def test_an_object_seen_as_two_kinds_goes_to_the_better_score():
    same = [(0, 5, 5, (20, 20, 40, 40), 0.6), (1, 5, 6, (22, 21, 40, 40), 0.8)]
    found = decode(*dense(3, 12, 12, same), STRIDE, [0.5] * 3, 0.5)
    assert found.type_ids.tolist() == [1]


def test_a_small_object_on_a_large_one_of_another_kind_stays():
    objects = [(1, 5, 5, (20, 20, 40, 40), 0.8), (2, 6, 6, (50, 50, 10, 10), 0.6)]
    found = decode(*dense(3, 12, 12, objects), STRIDE, [0.5] * 3, 0.5)
    assert sorted(found.type_ids.tolist()) == [1, 2]


def test_the_loser_of_a_quarrel_removes_nobody():
    # b loses to a (another kind), so c, which only b overlaps enough, must stay.
    boxes = np.array([(0, 0, 40, 40), (8, 0, 40, 40), (16, 0, 40, 40)], dtype=float)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 2]))
    assert nms(found, 0.5).type_ids.tolist() == [0, 2]


def settled(*objects, sure=0.5):
    """Which of (kind, x, score) stay; boxes are 40 px wide, kind 0 is the nucleated cell."""
    kinds, xs, scores = (np.array(column) for column in zip(*objects, strict=True))
    boxes = np.stack([xs, np.zeros(len(xs)), np.full(len(xs), 40.0), np.full(len(xs), 40.0)], 1)
    return np.flatnonzero(cross_class_nms(Detections(boxes, scores, kinds), 0, sure)).tolist()


def test_a_sure_nucleated_cell_has_precedence_over_a_surer_red_one():
    assert settled((1, 0.0, 0.9), (0, 2.0, 0.6)) == [1]
    assert settled((0, 2.0, 0.6), (1, 0.0, 0.9), (1, 60.0, 0.9)) == [0, 2]


def test_an_unsure_nucleated_cell_is_listed_beside_what_else_it_may_be():
    assert settled((1, 0.0, 0.9), (0, 2.0, 0.4)) == [0, 1]


def test_of_other_kinds_the_better_stays_unless_a_cell_removed_it():
    assert settled((1, 0.0, 0.7), (2, 2.0, 0.8)) == [1]
    # The platelet is better than the red cell on its right, but is itself the nucleated cell.
    assert settled((0, 0.0, 0.6), (2, 6.0, 0.9), (1, 12.0, 0.8)) == [0, 2]


def test_kinds_may_both_be_kept():
    same = [(0, 5, 5, (20, 20, 40, 40), 0.6), (1, 5, 6, (22, 21, 40, 40), 0.8)]
    found = decode(*dense(3, 12, 12, same), STRIDE, [0.5] * 3, 0.5, cross_iou=None)
    assert found.type_ids.tolist() == [1, 0]


def test_only_the_best_are_kept():
    objects = [(0, i, i, (i * 30.0, i * 30.0, 20, 20), 0.5 + i / 100) for i in range(10)]
    found = decode(*dense(1, 12, 12, objects), STRIDE, [0.1], 0.5, max_detections=3)
    np.testing.assert_allclose(found.scores, [0.59, 0.58, 0.57], atol=1e-6)


def test_what_is_no_box_and_what_is_no_number_is_left_out():
    scores, boxes = dense(1, 6, 6, [(0, 1, 1, (0, 0, 20, 20), 0.9), (0, 4, 4, (20, 20, 9, 9), 0.9)])
    boxes[:, 1, 1] = (-5, 3, 2, 3)
    scores[0, 2, 2], scores[0, 3, 3] = np.nan, 0.9
    boxes[0, 3, 3] = np.inf
    found = decode(scores, boxes, STRIDE, [0.5], 0.5)
    np.testing.assert_allclose(found.boxes, [(20, 20, 9, 9)])


def test_nothing_found_is_no_detections():
    found = decode(np.zeros((3, 4, 4)), np.ones((4, 4, 4)), STRIDE, [0.5] * 3, 0.5)
    assert len(found) == 0 and found.boxes.shape == (0, 4)


def test_maps_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="belong together"):
        decode(np.zeros((3, 4, 4)), np.ones((4, 4, 5)), STRIDE, [0.5] * 3, 0.5)
    with pytest.raises(ValueError, match="belong together"):
        decode(np.zeros((3, 4, 4)), np.ones((4, 4, 4)), STRIDE, [0.5], 0.5)


numbers = st.integers(0, 2**32 - 1)


@given(seed=numbers, n=st.integers(0, 60), iou=st.sampled_from([0.0, 0.2, 0.5, 0.7, 0.95]))
def test_greedy_keeps_exactly_what_plain_suppression_keeps(seed, n, iou):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.uniform(0, 80, (n, 2)), rng.uniform(1, 60, (n, 2))], axis=1)
    scores = np.linspace(1, 0, n)
    assert np.flatnonzero(greedy(boxes, iou)).tolist() == sorted(
        plain_nms(boxes, scores, iou).tolist()
    )


@given(seed=numbers, n=st.integers(2, 50))
def test_pairs_are_found_once_however_unlike_the_sizes(seed, n):
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(0, 6, (n, 2)))
    boxes = np.concatenate([rng.uniform(-200, 200, (n, 2)), sides], axis=1)
    first, second = overlapping_pairs(boxes, 0.3)
    from bloodfilm.core.boxes import iou

    wanted = np.argwhere(np.triu(iou(boxes, boxes) > 0.3, 1))
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == sorted(
        map(tuple, wanted.tolist())
    )


def test_a_field_of_two_thousand_red_cells_takes_little_memory():
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(50), np.arange(40)), -1).reshape(-1, 2) * 36 + 20.0
    around = np.repeat(centres, 12, axis=0) + rng.uniform(-2, 2, (24000, 2))
    boxes = np.concatenate([around - 15, np.full((24000, 2), 30.0)], axis=1)
    tracemalloc.start()
    kept = greedy(boxes, 0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert kept.sum() == 2000
    assert peak < 200e6  # all pairs would take 24000 ** 2 * 8 bytes = 4.6 GB


def test_a_heap_of_boxes_on_one_spot_is_worked_off_in_pieces():
    boxes = np.tile([(10.0, 10.0, 30.0, 30.0)], (3000, 1))
    assert np.flatnonzero(greedy(boxes, 0.5)).tolist() == [0]
