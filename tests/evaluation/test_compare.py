"""Exact limits, exact test, and whether two counts agree."""

import itertools
import math

import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.evaluation.compare import compare_counts, holm
from bloodfilm.evaluation.exact_binomial import binomial_cdf, exact_limits, exact_test


@pytest.mark.parametrize(
    ("percent", "low", "high"),
    [(0, 0, 4), (1, 0, 6), (5, 1, 12), (10, 4, 18), (20, 12, 30), (50, 39, 61), (100, 96, 100)],
)
def test_limits_of_100_cells_are_those_of_ruemkes_table(percent, low, high):
    found = exact_limits(percent, 100)
    assert math.floor(100 * found[0]) in (low, low + 1) and math.ceil(100 * found[1]) in (
        high,
        high + 1,
    )


def test_limits_hold_what_they_promise():
    low, high = exact_limits(7, 60)
    assert 1 - binomial_cdf(6, 60, low) == pytest.approx(0.025)
    assert binomial_cdf(7, 60, high) == pytest.approx(0.025)
    assert exact_limits(0, 0) == (0, 1)


def test_the_exact_test_sums_tables_that_are_no_more_probable():
    def brute(a, n, b, m):
        k = a + b
        weight = {
            x: math.comb(n, x) * math.comb(m, k - x) for x in range(max(0, k - m), min(n, k) + 1)
        }
        return sum(w for w in weight.values() if w <= weight[a]) / sum(weight.values())

    for a, b in itertools.product(range(6), range(8)):
        assert exact_test(a, 5, b, 7) == pytest.approx(brute(a, 5, b, 7))


def test_counts_of_one_film_agree_and_others_differ():
    one = {"neutrophil": 62, "lymphocyte": 30, "monocyte": 8}
    two = {"neutrophil": 108, "lymphocyte": 75, "monocyte": 15, "basophil": 2}
    same = compare_counts(one, two)
    assert same.agrees and [r.name for r in same.classes] == [*one, "basophil"]
    assert same.classes[-1].counts == (0, 2)
    other = compare_counts(one, {"myeloblast": 40, "neutrophil": 60})
    assert not other.agrees
    (blast,) = [r for r in other.classes if r.name == "myeloblast"]
    assert blast.differs and not blast.within


def test_an_empty_count_is_refused():
    with pytest.raises(DataError, match="second: no white cell"):
        compare_counts({"neutrophil": 3}, {})


def test_holm_never_falls_and_never_exceeds_one():
    assert holm([0.5, 0.9, 0.02]) == [1.0, 1.0, 0.06]
