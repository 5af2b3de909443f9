"""Conformal class sets: their coverage on new cells and on new sites."""

import numpy as np
import pytest

from bloodfilm.evaluation.conformal import (
    LabelledProbabilities,
    conformal_limit,
    fit_conformal,
    set_figures,
)

LEAVES = ("a", "b", "c")


def drawn(rng, count, site="one", sharp=2.0, weights=(0.5, 0.3, 0.2)):
    """Cells whose classifier is right as often as it is, whatever it says of it."""
    true = rng.choice(3, count, p=weights)
    logits = rng.normal(0, 1, (count, 3)) + sharp * np.eye(3)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return LabelledProbabilities(probabilities, np.eye(3, dtype=bool)[true], np.full(count, site))


def joined(*parts):
    return LabelledProbabilities(
        np.concatenate([p.probabilities for p in parts]),
        np.concatenate([p.allowed for p in parts]),
        np.concatenate([p.sites for p in parts]),
    )


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_new_cells_are_covered_as_promised(coverage):
    rng = np.random.default_rng(1)
    spec = fit_conformal(drawn(rng, 12_000), LEAVES, coverage)
    figures = set_figures(drawn(rng, 20_000), spec, LEAVES)
    assert figures.covered == pytest.approx(coverage, abs=0.02)
    assert spec.sites == ("one",) and sum(spec.cells.values()) == 12_000
    assert len(set(spec.least.values())) == 1


def test_more_coverage_needs_larger_sets():
    rng = np.random.default_rng(1)
    cells, new = drawn(rng, 2000), drawn(rng, 2000)
    sizes = [
        set_figures(new, fit_conformal(cells, LEAVES, c), LEAVES).size for c in (0.8, 0.9, 0.99)
    ]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_every_site_weighs_the_same():
    rng = np.random.default_rng(2)
    good, bad = drawn(rng, 30_000, "good", 3.0), drawn(rng, 3000, "bad", 1.0)
    spec = fit_conformal(joined(good, bad), LEAVES, 0.9)
    again = fit_conformal(joined(drawn(rng, 3000, "good", 3.0), bad), LEAVES, 0.9)
    assert spec.least["a"] == pytest.approx(again.least["a"], abs=0.02)
    covered = [
        set_figures(drawn(rng, 10_000, "new", sharp), spec, LEAVES).covered for sharp in (3.0, 1.0)
    ]
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02) and covered[0] > covered[1]


def test_few_cells_promise_nothing_they_cannot_hold():
    assert conformal_limit(np.array([0.9, 0.8]), 0.9) == 0
    assert conformal_limit(np.linspace(0.1, 1, 10), 0.9) == pytest.approx(0.1)


def test_a_label_of_several_leaves_is_covered_by_any():
    probabilities = np.tile([0.5, 0.45, 0.05], (100, 1))
    allowed = np.tile([True, True, False], (100, 1))
    cells = LabelledProbabilities(probabilities, allowed, np.full(100, "one"))
    figures = set_figures(cells, fit_conformal(cells, LEAVES, 0.9), LEAVES)
    assert figures.covered == 1 and set(figures.by_class) == {"a or b"}
    assert (figures.single, figures.single_right) == (1.0, 1.0)


def test_a_set_of_one_class_is_right_where_it_is_the_cells():
    probabilities = np.repeat([[0.9, 0.05, 0.05], [0.05, 0.05, 0.9]], 50, axis=0)
    allowed = np.tile([True, False, False], (100, 1))
    cells = LabelledProbabilities(probabilities, allowed, np.full(100, "one"))
    spec = fit_conformal(cells, LEAVES, 0.4)
    figures = set_figures(cells, spec, LEAVES)
    assert (figures.single, figures.single_right) == (1.0, 0.5)
