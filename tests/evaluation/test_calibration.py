import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from bloodfilm.core import DataError
from bloodfilm.evaluation.calibration import (
    as_mask,
    brier,
    coverage_accuracy,
    expected_calibration_error,
    fit_temperature,
    log_likelihood,
    reliability,
)


def test_calibration_error_by_hand():
    confidence = [0.6] * 10 + [0.9] * 10
    correct = [1] * 6 + [0] * 4 + [1] * 7 + [0] * 3
    assert expected_calibration_error(confidence, correct, 2) == pytest.approx(0.1)
    assert [b.n for b in reliability(confidence, correct, 2)] == [10, 10]


def test_equal_confidences_share_a_bin_in_whatever_order():
    correct = [1] * 90 + [0] * 10
    assert expected_calibration_error([0.9] * 100, correct) == pytest.approx(0.0)


def test_calibrated_answers_have_a_small_error():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, 20_000)
    right = rng.uniform(size=len(p)) < p
    assert expected_calibration_error(p, right) < 0.02
    assert expected_calibration_error(np.sqrt(p), right) > 0.05


def test_empty():
    assert np.isnan(expected_calibration_error([], []))
    with pytest.raises(DataError):
        coverage_accuracy([], [])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_brier_of_two_classes_is_twice_the_binary_one(pairs):
    p = np.asarray([a for a, _ in pairs])
    y = np.asarray([int(b) for _, b in pairs])
    both = np.stack([1 - p, p], axis=1)
    assert brier(both, y) == pytest.approx(2 * brier_score_loss(y, p, pos_label=1))


def test_brier_takes_the_leaves_of_a_label_together():
    assert brier([[0.3, 0.3, 0.4]], np.asarray([[True, True, False]])) == pytest.approx(0.32)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.3, 4), st.integers(0, 99))
def test_temperature_is_recovered(temperature, seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (4000, 5))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.1)


def test_temperature_is_an_optimum_and_accepts_inner_labels():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 3, (500, 4))
    labels = (logits + rng.gumbel(size=logits.shape) * 2).argmax(axis=1)
    mask = as_mask(labels, 4)
    mask[labels < 2, :2] = True
    best = fit_temperature(logits, mask)
    at_best = log_likelihood(logits, mask, best)
    for factor in (0.9, 1.1):
        assert at_best > log_likelihood(logits, mask, best * factor)


def test_temperature_with_a_masked_class():
    logits = np.asarray([[2.0, 0.0, -np.inf], [0.0, 1.0, -np.inf], [1.0, 0.5, -np.inf]])
    assert np.isfinite(fit_temperature(logits, [0, 1, 1]))
    with pytest.raises(DataError, match="stands for no class"):
        fit_temperature(logits, [2, 0, 0])
    with pytest.raises(DataError, match="one labelled cell"):
        fit_temperature(np.zeros((0, 3)), [])


def test_coverage_curve():
    curve = coverage_accuracy([0.9, 0.8, 0.8, 0.5], [1, 1, 0, 0])
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.5]
    assert curve.coverage.tolist() == [0.25, 0.75, 1.0]
    assert curve.accuracy.tolist() == pytest.approx([1.0, 2 / 3, 0.5])
    assert curve.threshold_for(0.6) == 0.8
    assert curve.threshold_for(1.01) is None
    assert curve.at_coverage(0.5) == (0.8, pytest.approx(2 / 3))
