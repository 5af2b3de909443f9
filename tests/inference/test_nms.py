"""Suppression, voting and what is settled between types."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.detections import Detections
from bloodfilm.inference.nms import below, best_of_each, box_voting, cross_class_nms, nms


def test_a_suppressed_detection_suppresses_no_other():
    # b loses to a (another type), so c, which only b overlaps enough, must stay.
    boxes = np.array([(0, 0, 40, 40), (8, 0, 40, 40), (16, 0, 40, 40)], dtype=float)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7]), np.array([0, 1, 2]))
    assert nms(found, 0.5).type_ids.tolist() == [0, 2]


def settled(*objects, sure=0.5):
    """Which of (type, x, score) stay; boxes are 40 px wide, type 0 is preferred."""
    types, xs, scores = (np.array(column) for column in zip(*objects, strict=True))
    boxes = np.stack([xs, np.zeros(len(xs)), np.full(len(xs), 40.0), np.full(len(xs), 40.0)], 1)
    found = Detections(boxes, scores, types)
    return np.flatnonzero(cross_class_nms(found, 0, scores >= sure)).tolist()


def test_a_sure_nucleated_cell_has_precedence_over_a_surer_red_one():
    assert settled((1, 0.0, 0.9), (0, 2.0, 0.6)) == [1]
    assert settled((0, 2.0, 0.6), (1, 0.0, 0.9), (1, 60.0, 0.9)) == [0, 2]


def test_an_unsure_nucleated_cell_is_listed_beside_what_else_it_may_be():
    assert settled((1, 0.0, 0.9), (0, 2.0, 0.4)) == [0, 1]


def test_of_other_types_the_better_stays_unless_a_cell_removed_it():
    assert settled((1, 0.0, 0.7), (2, 2.0, 0.8)) == [1]
    # The platelet is better than the red cell on its right, but is itself the nucleated cell.
    assert settled((0, 0.0, 0.6), (2, 6.0, 0.9), (1, 12.0, 0.8)) == [0, 2]


def test_what_is_not_shown_removes_nothing_that_is():
    """Types have their own thresholds: a platelet of 0.4 may be below, a red cell of 0.35 above."""
    boxes = np.array([(0, 0, 40, 40), (2, 0, 40, 40)], dtype=float)
    found = Detections(boxes, np.array([0.4, 0.35]), np.array([2, 1]))
    assert cross_class_nms(found, 0, np.array([False, True])).tolist() == [False, True]
    assert cross_class_nms(found, 0, np.array([True, True])).tolist() == [True, False]


def random_detections(rng, n):
    boxes = np.concatenate([rng.uniform(0, 120, (n, 2)), rng.uniform(10, 60, (n, 2))], axis=1)
    # Some scores are equal.
    return Detections(boxes, rng.integers(1, 100, n) / 100, rng.integers(0, 3, n))


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 80))
def test_what_scores_less_changes_nothing_above_it(seed, n):
    found = random_detections(np.random.default_rng(seed), n)
    voters = found.take(found.scores >= 0.6)
    lowest = 0.4

    def steps(some):
        placed = nms(box_voting(nms(some, 0.5, None), voters), 0.5)
        return placed.take(placed.scores >= lowest)

    every, strict = steps(found), steps(found.take(found.scores >= lowest))
    np.testing.assert_array_equal(every.boxes, strict.boxes)  # to the last bit
    np.testing.assert_array_equal(every.scores, strict.scores)
    np.testing.assert_array_equal(every.type_ids, strict.type_ids)


def test_a_box_goes_to_the_weighted_mean_of_its_voters():
    boxes = np.array([(10.0, 10, 40, 40), (12, 10, 40, 40), (200, 10, 40, 40), (11, 11, 40, 40)])
    found = Detections(boxes, np.array([0.8, 0.4, 0.9, 0.7]), np.array([0, 0, 0, 1]))
    placed = box_voting(found, found.take(np.arange(2)))
    x = (10 * 0.64 + 12 * 0.16) / 0.8
    np.testing.assert_allclose(placed.boxes[0], (x, 10, 40, 40))
    np.testing.assert_allclose(placed.boxes[1], (x, 10, 40, 40))
    np.testing.assert_array_equal(placed.boxes[2:], boxes[2:])  # no voter; another type
    np.testing.assert_array_equal(placed.scores, found.scores)


def test_only_the_unsure_are_limited_and_each_type_has_its_own_limit():
    scores = np.array([0.9, 0.1, 0.3, 0.2, 0.1, 0.25])
    found = Detections(np.ones((6, 4)), scores, np.array([0, 0, 0, 0, 1, 1]))
    unsure = below(found, np.array([0.5, 0.2]))
    assert unsure.tolist() == [False, True, True, True, True, False]
    assert best_of_each(found, unsure, 2).scores.tolist() == [0.9, 0.3, 0.2, 0.1, 0.25]
    assert best_of_each(found, unsure, 0).scores.tolist() == [0.9, 0.25]
