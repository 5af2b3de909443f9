"""The decoder: from dense maps to detections, on edge cases, whatever threshold is asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.inference.decode import DecodeParameters
from bloodfilm.inference.decode import decode as decode_dense

STRIDE = 8


def decode(scores, boxes, stride, thresholds, nms_iou, **more):
    parameters = DecodeParameters(stride=stride, thresholds=thresholds, nms_iou=nms_iou, **more)
    return decode_dense(scores, boxes, parameters)


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


def test_kinds_may_both_be_kept():
    same = [(0, 5, 5, (20, 20, 40, 40), 0.6), (1, 5, 6, (22, 21, 40, 40), 0.8)]
    found = decode(*dense(3, 12, 12, same), STRIDE, [0.5] * 3, 0.5, cross_iou=None)
    assert found.type_ids.tolist() == [1, 0]


def test_only_the_best_are_kept():
    objects = [(0, i, i, (i * 9.0, i * 9.0, 8, 8), 0.5 + i / 100) for i in range(10)]
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


def noisy_maps(rng, size=24):
    """Cells seen from several locations each, on a ground of low scores everywhere."""
    scores = rng.uniform(0, 0.2, (2, size, size))
    boxes = rng.uniform(8, 60, (4, size, size))
    for _ in range(6):
        kind, i, j = rng.integers(0, 2), *rng.integers(2, size - 2, 2)
        for di in (-1, 0, 1):
            for dj in (-1, 0, 1):
                scores[kind, i + di, j + dj] = rng.uniform(0.3, 1)
                off = np.array([dj, di, -dj, -di]) * STRIDE
                boxes[:, i + di, j + dj] = 24 + off + rng.uniform(-2, 2, 4)
    return scores.astype(np.float32), boxes.astype(np.float32)


@given(
    seed=st.integers(0, 2**32 - 1),
    asked=st.floats(0, 1),
    voting=st.tuples(st.floats(0.3, 0.9), st.floats(0.3, 0.9)),
    top=st.sampled_from([0, 5, 1000]),
)
def test_no_threshold_moves_a_box_that_another_threshold_also_shows(seed, asked, voting, top):
    maps = noisy_maps(np.random.default_rng(seed))

    def at(threshold):
        found = decode(
            *maps, STRIDE, [threshold] * 2, 0.5, vote_thresholds=voting, pre_nms_top_k=top
        )
        return found.take(found.scores >= np.float32(asked))

    lower, higher = at(0.0), at(asked)
    np.testing.assert_array_equal(lower.boxes, higher.boxes)  # to the last bit
    np.testing.assert_array_equal(lower.scores, higher.scores)
    np.testing.assert_array_equal(lower.type_ids, higher.type_ids)


def test_of_low_scores_only_the_best_are_looked_at(monkeypatch):
    import bloodfilm.core.boxes as module

    scores = np.full((1, 256, 256), 0.01, dtype=np.float32)
    scores[0, 3:250:8, 3:250:8] = 0.9
    boxes = np.full((4, 256, 256), 30.0, dtype=np.float32)
    compared = []
    real = module.paired_iou
    monkeypatch.setattr(module, "paired_iou", lambda a, b: (compared.append(len(a)), real(a, b))[1])
    above = decode(scores, boxes, STRIDE, [0.5], 0.5, vote_thresholds=[0.5])
    normal = sum(compared)
    compared.clear()
    every = decode(scores, boxes, STRIDE, [0.0], 0.5, vote_thresholds=[0.5], pre_nms_top_k=500)
    assert 0 < len(every) - len(above) <= 500
    np.testing.assert_array_equal(every.boxes[: len(above)], above.boxes)
    # 65,536 candidates instead of 961, and not a hundredth of the work that their pairs would be.
    assert sum(compared) < 30 * normal


@pytest.mark.parametrize("far", [3e38, 1e30, 1e6])
def test_huge_boxes_at_every_location_are_one_box_and_cheap(far, monkeypatch):
    import bloodfilm.core.boxes as module

    compared = []
    real = module.paired_iou
    monkeypatch.setattr(module, "paired_iou", lambda a, b: (compared.append(len(a)), real(a, b))[1])
    scores = np.full((3, 160, 160), 0.9, dtype=np.float32)
    boxes = np.full((4, 160, 160), far, dtype=np.float32)
    found = decode(scores, boxes, STRIDE, [0.5] * 3, 0.6)
    assert len(found) == 1 and np.isfinite(found.boxes).all()
    assert sum(compared) < 10 * scores.size


def test_boxes_smaller_than_any_cell_are_left_out():
    scores, boxes = np.full((1, 9, 9), 0.9), np.full((4, 9, 9), 1e-30)
    assert len(decode(scores, boxes, STRIDE, [0.5], 0.6)) == 0
