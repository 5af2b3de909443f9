"""Figures of a new class, and the rule by which a bundle does not learn one."""

import numpy as np
import pytest

from bloodfilm.evaluation.class_figures import (
    ClassFigures,
    class_figures,
    label_recalls,
    rank_auroc,
    reasons_against,
)

GOOD = ClassFigures(0.9, 0.8, 0.9, 0.01, 0.99)
SAME = {"a": (0.9, 0.9), "b": (0.8, 0.8)}


def test_every_known_class_counts_alike_in_what_is_called_falsely():
    # Ten cells of a, one of them called the new class; two of b, both called so.
    labels = np.array(["new"] * 4 + ["a"] * 10 + ["b"] * 2)
    p = np.tile([0.7, 0.3], (16, 1))
    p[[0, 1, 2, 4, 14, 15]] = [0.1, 0.9]
    found = class_figures(1, labels == "new", labels, p, 0.8)
    assert (found.recall, found.named) == (0.75, 0.75)
    assert found.false == pytest.approx((0.1 + 1.0) / 2)
    assert found.precision == pytest.approx(0.75 / (0.75 + 1.1))


def test_recalls_allow_every_class_that_a_label_stands_for():
    allowed = np.array([[True, True, False], [False, False, True]])
    before = np.array([[0.2, 0.7, 0.1], [0.2, 0.2, 0.6]])
    after = np.array([[0.1, 0.3, 0.6], [0.2, 0.2, 0.6]])
    assert label_recalls(np.array(["x", "y"]), allowed, before, after) == {
        "x": (1.0, 0.0),
        "y": (1.0, 1.0),
    }


def test_the_area_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    one, two = rng.integers(0, 5, 30).astype(float), rng.integers(0, 5, 40).astype(float)
    pairs = (one[:, None] > two).mean() + (one[:, None] == two).mean() / 2
    assert rank_auroc(one, two) == pytest.approx(pairs)
    assert np.isnan(rank_auroc(one[:0], two))


@pytest.mark.parametrize(
    ("classes", "known", "checks", "complaints"),
    [
        ({"new": GOOD}, SAME, {}, []),
        (
            {"new": ClassFigures(0.49, 0, 1, 0, 0.9)},
            SAME,
            {},
            ["only 49% of held-out cells of 'new'"],
        ),
        (
            {"new": GOOD},
            {"a": (0.9, 0.87), "b": (0.8, 0.8)},
            {},
            ["balanced accuracy on what was known"],
        ),
        (
            {"new": GOOD},
            {**{str(i): (0.9, 0.9) for i in range(20)}, "a": (0.9, 0.8)},
            {},
            ["recall of 'a' on what was known would fall from 0.900 to 0.800"],
        ),
        (
            {"new": GOOD},
            SAME,
            {"mine": {"a": (1.0, 0.5), "new": (0.0, 1.0)}},
            ["mine", "'a' on mine"],
        ),
        ({"new": GOOD}, SAME, {"mine": {"new": (0.0, 0.1)}}, []),
    ],
)
def test_the_rule(classes, known, checks, complaints):
    found = reasons_against(classes, known, checks, 0.01)
    assert len(found) == len(complaints)
    assert all(c in f for c, f in zip(complaints, found, strict=True))
