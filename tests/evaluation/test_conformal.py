"""Conformal class sets: their coverage on new cells, new sites, and by class."""

import numpy as np
import pytest

from bloodfilm.evaluation.conformal import (
    LabelledProbabilities,
    conformal_limit,
    fit_conformal,
    leave_one_site_out,
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
def test_new_cells_are_covered_as_promised_in_every_class(coverage):
    rng = np.random.default_rng(1)
    spec = fit_conformal(drawn(rng, 12_000), LEAVES, coverage)
    figures = set_figures(drawn(rng, 20_000), spec, LEAVES)
    assert figures.covered == pytest.approx(coverage, abs=0.02)
    assert all(share == pytest.approx(coverage, abs=0.04) for share in figures.by_class.values())
    assert spec.sites == ("one",) and sum(spec.cells.values()) == 12_000


def test_more_coverage_needs_larger_sets():
    rng = np.random.default_rng(1)
    cells, new = drawn(rng, 2000), drawn(rng, 2000)
    sizes = [
        set_figures(new, fit_conformal(cells, LEAVES, c), LEAVES).size for c in (0.8, 0.9, 0.99)
    ]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


def test_the_limit_holds_in_the_worst_site():
    rng = np.random.default_rng(2)
    good, bad = drawn(rng, 30_000, "good", 3.0), drawn(rng, 3000, "bad", 1.0)
    cells = joined(good, bad)
    by_site = fit_conformal(cells, LEAVES, 0.9)
    pooled = fit_conformal(cells, LEAVES, 0.9, by_site=False)
    worst = drawn(rng, 10_000, "bad", 1.0)
    assert set_figures(worst, by_site, LEAVES).covered >= 0.88
    assert set_figures(worst, pooled, LEAVES).covered < 0.85


def test_few_cells_promise_nothing_they_cannot_hold():
    assert conformal_limit(np.array([0.9, 0.8]), 0.9) == 0
    assert conformal_limit(np.linspace(0.1, 1, 10), 0.9) == pytest.approx(0.1)


def test_a_rare_class_takes_the_limit_of_all():
    rng = np.random.default_rng(3)
    cells = joined(drawn(rng, 500, weights=(0.6, 0.4, 0.0)), drawn(rng, 5, weights=(0, 0, 1)))
    spec = fit_conformal(cells, LEAVES, 0.9)
    assert spec.cells["c"] == 5
    pooled = conformal_limit(cells.reached, 0.9)
    assert spec.least["c"] == pytest.approx(pooled, abs=1e-4)


def test_a_label_of_several_leaves_is_covered_by_any():
    probabilities = np.tile([0.5, 0.45, 0.05], (100, 1))
    allowed = np.tile([True, True, False], (100, 1))
    cells = LabelledProbabilities(probabilities, allowed, np.full(100, "one"))
    figures = set_figures(cells, fit_conformal(cells, LEAVES, 0.9), LEAVES)
    assert figures.covered == 1 and set(figures.by_class) == {"a or b"}


def test_every_site_is_judged_by_the_others():
    rng = np.random.default_rng(4)
    cells = joined(*(drawn(rng, 1500, name) for name in ("x", "y", "z")))
    found = leave_one_site_out(cells, LEAVES, 0.9)
    assert set(found) == {"x", "y", "z"} and all(f.cells == 1500 for f in found.values())
    assert all(f.covered >= 0.87 for f in found.values())
