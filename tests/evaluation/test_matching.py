import numpy as np

from bloodfilm.core.boxes import greedy_match
from bloodfilm.evaluation.matching import match


def test_best_score_chooses_first():
    # Both found boxes overlap the true one; the surer takes it although the other fits better.
    truth = [(0, 0, 10, 10)]
    found = [(0, 0, 10, 10), (2, 0, 10, 10)]
    result = match(truth, found, [0.5, 0.9])
    assert result.pairs == ((0, 1),)
    assert result.extra == (0,)
    assert result.missed == ()


def test_each_takes_the_free_box_it_overlaps_most():
    truth = [(0, 0, 10, 10), (3, 0, 10, 10)]
    found = [(2, 0, 10, 10), (3, 0, 10, 10)]
    # The first overlaps true box 1 more (shift 1) than box 0 (shift 2), and takes it; the second
    # has IoU 70 / 130 = 0.54 with box 0, which is left.
    assert match(truth, found, [0.9, 0.8]).pairs == ((0, 1), (1, 0))
    assert match(truth, found, [0.9, 0.8], 0.6).pairs == ((1, 0),)


def test_nothing_on_either_side():
    assert match([], [(0, 0, 1, 1)], [1.0]).extra == (0,)
    assert match([(0, 0, 1, 1)], [], []).missed == (0,)


def test_order_of_equal_scores_and_overlaps():
    same = np.full((2, 2), 0.8)
    assert greedy_match(same, 0.5).tolist() == [1, 0]
    assert match([(0, 0, 9, 9)], [(0, 0, 9, 9)] * 2, [0.5, 0.5]).pairs == ((0, 0),)


def test_optional_boxes_come_last():
    ious = np.asarray([[0.6, 0.9], [0.6, 0.9]])
    optional = np.asarray([False, True])
    assert greedy_match(ious, 0.5, optional).tolist() == [0, 1]
    assert greedy_match(ious, 0.7, optional).tolist() == [1, -1]
