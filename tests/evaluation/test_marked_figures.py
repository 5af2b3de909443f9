"""When marked cells speak for a change of a classifier."""

import numpy as np
import pytest

from bloodfilm.evaluation.marked_figures import marked_figures, reasons_by_marked, sign_test

LABELS = ("a",) * 8 + ("b",) * 4


def named(right, labels=LABELS):
    """Probabilities of two classes by which these cells are named rightly, the others wrongly."""
    own = np.array([label == "b" for label in labels], dtype=int)
    chosen = np.where(np.isin(np.arange(len(labels)), right), own, 1 - own)
    return np.where(np.eye(2, dtype=bool)[chosen], 0.8, 0.2)


def figures(before, after, labels=LABELS):
    allowed = np.eye(2, dtype=bool)[[int(label == "b") for label in labels]]
    return marked_figures(labels, allowed, named(before, labels), named(after, labels))


def test_figures_are_of_cells_and_of_labels():
    found = figures([0, 1, 8], [0, 1, 2, 3, 9])
    assert found.right == (3, 5) and (found.gained, found.lost) == (3, 1)
    assert found.accuracy == (0.25, 0.375)
    assert found.recalls == {"a": (0.25, 0.5), "b": (0.25, 0.25)}
    mean = -(0.25 * np.log(0.8) + 0.75 * np.log(0.2))  # of each label
    assert found.log_loss[0] == pytest.approx(mean)
    assert found.to_json()["right"] == [3, 5]


def test_two_more_cells_are_enough_where_none_becomes_wrong():
    assert reasons_by_marked(figures([0, 1], [0, 1, 2, 3])) == []
    (reason,) = reasons_by_marked(figures([0, 1], [0, 1, 2]))
    assert reason == "3 of 12 marked cells are named rightly, 2 as it is: 2 more are needed"
    assert "2 of 12" in reasons_by_marked(figures([0, 1], [0, 1]))[0]


def test_two_more_of_many_that_change_may_be_chance():
    labels = ("a", "b") * 40
    before, after = list(range(0, 20)), list(range(10, 32))  # 12 put right, 10 made wrong
    (reason,) = reasons_by_marked(figures(before, after, labels))
    assert reason == "of marked cells 12 are put right and 10 become wrong, which may be chance"
    assert sign_test(12, 10) == pytest.approx(0.4159, abs=1e-4)
    assert reasons_by_marked(figures(range(10), range(6, 30), labels)) == []  # 20 and 6


def test_a_rare_class_must_not_pay_for_a_frequent_one():
    """Three cells of the frequent class are put right, two of the rare one lost."""
    labels = ("a",) * 40 + ("b",) * 2
    found = figures([40, 41], [0, 1, 2, 3, 4, 5], labels)
    assert found.gained == 6 and found.lost == 2
    (reason,) = reasons_by_marked(found)
    assert reason == "balanced accuracy on marked cells would fall from 0.500 to 0.075"
