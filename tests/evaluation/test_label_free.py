"""When an adapted classifier is refused."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.evaluation.label_free import (
    LabelFreeFigures,
    LabelledCheck,
    Original,
    label_free_figures,
    reasons_to_refuse,
)

BEFORE = LabelFreeFigures(100, 0.80, 0.10, 0.90, 0.50, 1.0)
BETTER = replace(BEFORE, consistency=0.85, kept=0.98, information=1.0, named=0.6)


def test_a_better_one_is_taken():
    assert reasons_to_refuse(BEFORE, BETTER) == []
    assert reasons_to_refuse(BEFORE, replace(BETTER, kept=float("nan"))) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"consistency": 0.80}, "names hold no better"),
        ({"kept": 0.94}, "6.0% of the cells that the original was sure of"),
        ({"information": 0.80}, "classes merge"),
        ({"named": 0.47}, "fewer cells are named"),
        ({"cells": 19}, "only 19 held-out cells"),
        ({"consistency": float("nan")}, "a figure is no number"),
    ],
)
def test_each_harm_is_a_reason(change, reason):
    (only,) = reasons_to_refuse(BEFORE, replace(BETTER, **change))
    assert only.startswith(reason)


def test_a_labelled_set_must_not_become_worse():
    checks = (LabelledCheck("near", 0.90, 0.89), LabelledCheck("far", 0.90, 0.87))
    assert reasons_to_refuse(BEFORE, BETTER, checks) == [
        "far: balanced accuracy 0.900 before, 0.870 after"
    ]


def test_one_class_for_everything_agrees_with_itself_and_is_refused():
    rng = np.random.default_rng(0)
    plain = rng.dirichlet(np.ones(3) * 0.3, 50)
    views = 0.8 * plain[:, None] + 0.2 * rng.dirichlet(np.ones(3), (50, 4))
    original = Original.of(plain, views, 0.7)
    before = label_free_figures(plain, views, 0.7, original)
    assert before.kept == 1.0 and before.consistency < 1.0
    same = np.tile([0.98, 0.01, 0.01], (50, 1))
    after = label_free_figures(same, np.stack([same] * 4, 1), 0.7, original)
    assert after.consistency == 1.0 > before.consistency
    assert [r.split(":")[0] for r in reasons_to_refuse(before, after)][-1] == "classes merge"
