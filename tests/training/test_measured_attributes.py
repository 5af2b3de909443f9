"""Attributes fitted to measures and classes: kinds of nuclei, classes, patients left out."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.attributes import Attribute, Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.inference.classifier import softmax
from bloodfilm.inference.measured_attributes import MEASURES
from bloodfilm.training.measured_attributes import (
    PRIOR_CELLS,
    MeasuredCells,
    answers_of,
    beside_network,
    fit_measured,
    left_out_logits,
    temperature_of,
)

NAME = "nuclear_shape"
SCHEMA = Schema("drawn", (Attribute(NAME, ("regular", "irregular", "folded")),))
LEAVES = ("lymphocyte", "monocyte")
ROUND = MEASURES.index("nucleus_circularity")


def cells(count=240, told=True, seed=0, classes=None, noise=0.05):
    """Measures are noise, but for the circularity of the nucleus of regular and irregular ones."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % 2
    measures = rng.normal(0.5, 0.1, (count, len(MEASURES)))
    if told:
        measures[:, ROUND] = np.where(codes == 0, 0.9, 0.6) + rng.normal(0, noise, count)
    leaf = np.zeros(count, int) if classes is None else classes(codes, rng)
    allowed = np.eye(2, dtype=bool)[leaf]
    return MeasuredCells(
        measures,
        codes[:, None],
        allowed,
        np.arange(count) // 60,
        allowed.astype(float),
        np.full((count, 3), 1 / 3),
    )


def test_two_populations_that_differ_in_the_nucleus_alone_are_told_apart():
    seen, new = cells(), cells(seed=1)
    model = fit_measured(seen, SCHEMA, NAME, LEAVES)
    assert model.values == ("regular", "irregular") and model.cells == 240
    weights = np.abs(np.diff(np.array(model.weights), axis=0))[0]
    assert weights.argmax() == ROUND
    said = answers_of(model, new, SCHEMA, NAME, LEAVES)
    assert (said.argmax(1) == new.codes[:, 0]).mean() > 0.95
    assert np.isneginf(said[:, 2]).all()  # no cell was folded


def test_a_class_that_tells_the_value_is_enough_without_measures():
    def mostly(codes, rng):
        return np.where(rng.random(len(codes)) < 0.95, codes, 1 - codes)

    seen = cells(told=False, classes=mostly)
    model = fit_measured(seen, SCHEMA, NAME, LEAVES)
    of_lymphocytes = seen.allowed[:, 0]
    number = of_lymphocytes.sum()
    regular = (seen.codes[of_lymphocytes, 0] == 0).sum()
    wanted = (regular + PRIOR_CELLS / 2) / (number + PRIOR_CELLS)
    assert model.classes["lymphocyte"][0] == pytest.approx(wanted, abs=1e-4)
    new = cells(told=False, seed=1, classes=mostly)
    said = answers_of(model, new, SCHEMA, NAME, LEAVES).argmax(1)
    assert (said == new.codes[:, 0]).mean() > 0.85


def test_a_label_above_the_leaves_counts_for_each_of_them_in_part():
    seen = cells()
    whole = replace(seen, allowed=np.ones_like(seen.allowed))
    model = fit_measured(whole, SCHEMA, NAME, LEAVES)
    assert model.classes["lymphocyte"] == model.classes["monocyte"] == (0.5, 0.5)


def test_a_class_without_a_cell_has_no_row():
    assert list(fit_measured(cells(), SCHEMA, NAME, LEAVES).classes) == ["lymphocyte"]


def test_measures_that_nobody_could_take_tell_nothing():
    seen = cells()
    seen.measures[:, 2] = np.nan
    seen.measures[::3, ROUND] = np.nan
    model = fit_measured(seen, SCHEMA, NAME, LEAVES)
    assert np.isfinite(np.array(model.weights)).all() and np.isfinite(np.array(model.centre)).all()
    assert np.array(model.weights)[:, 2] == pytest.approx(0.0, abs=1e-6)
    said = answers_of(model, seen, SCHEMA, NAME, LEAVES)
    assert np.isfinite(said[:, :2]).all()
    measured = np.isfinite(seen.measures[:, ROUND])
    assert (said.argmax(1) == seen.codes[:, 0])[measured].mean() > 0.95


def test_the_same_cells_give_the_same_model():
    assert fit_measured(cells(), SCHEMA, NAME, LEAVES) == fit_measured(
        cells(), SCHEMA, NAME, LEAVES
    )


def test_unknown_and_rare_values_are_left_out():
    seen = cells()
    seen.codes[:5] = 2
    seen.codes[5:9] = -1
    model = fit_measured(seen, SCHEMA, NAME, LEAVES)
    assert model.values == ("regular", "irregular") and model.cells == 231


def test_one_value_alone_is_refused():
    seen = cells()
    with pytest.raises(ConfigError, match="two values need 10 each"):
        fit_measured(seen.take(seen.codes[:, 0] == 0), SCHEMA, NAME, LEAVES)


def test_no_patient_is_judged_by_a_fit_that_saw_them():
    seen = cells()
    logits = left_out_logits(seen, SCHEMA, NAME, LEAVES)
    for patient in range(4):
        own = seen.groups == patient
        alone = fit_measured(seen.take(~own), SCHEMA, NAME, LEAVES)
        assert np.array_equal(logits[own], answers_of(alone, seen.take(own), SCHEMA, NAME, LEAVES))
    # Other values of the patient's own cells change nothing for that patient.
    turned = replace(seen, codes=seen.codes.copy())
    turned.codes[turned.groups == 0] = 1 - turned.codes[turned.groups == 0]
    assert np.array_equal(
        left_out_logits(turned, SCHEMA, NAME, LEAVES)[seen.groups == 0], logits[seen.groups == 0]
    )


def test_a_patient_whose_others_know_one_value_is_not_judged():
    seen = cells()
    seen.codes[:, 0] = np.where(seen.groups == 0, seen.codes[:, 0], 0)
    logits = left_out_logits(seen, SCHEMA, NAME, LEAVES)
    assert np.isnan(logits[seen.groups == 0]).all()
    assert np.isfinite(logits[seen.groups == 1, :2]).all()


def test_measures_that_mislead_about_new_patients_are_not_trusted():
    """In every patient the measure means the opposite of what it means in all others together."""
    seen = cells()
    for patient in range(4):
        own = seen.groups == patient
        seen.measures[own, ROUND] = 0.5 + 0.1 * patient
        seen.codes[own, 0] = patient % 2
    trusted = temperature_of(left_out_logits(cells(), SCHEMA, NAME, LEAVES), cells().codes[:, 0])
    misled = temperature_of(left_out_logits(seen, SCHEMA, NAME, LEAVES), seen.codes[:, 0])
    assert misled > 5 * trusted


def test_without_a_cell_that_can_judge_the_temperature_is_one():
    assert temperature_of(np.full((4, 3), np.nan), np.array([0, 1, 0, 1])) == 1.0
    one = np.zeros((4, 3))
    assert temperature_of(one, np.array([0, 0, -1, 0])) == 1.0


def knowing(seen, share, seed=5):
    """Cells whose network is right about a share of them, and says 0.9 to what it answers."""
    rng = np.random.default_rng(seed)
    codes = seen.codes[:, 0]
    said = np.where(rng.random(len(codes)) < share, codes, 1 - codes)
    answers = np.full((len(codes), 3), 0.05)
    answers[np.arange(len(codes)), said] = 0.9
    return replace(seen, answers=answers)


def test_held_out_cells_choose_how_much_the_network_counts():
    model = fit_measured(cells(noise=0.2), SCHEMA, NAME, LEAVES)

    def weight(share, told=True):
        held = knowing(cells(told=told, seed=1, noise=0.2), share)
        chosen = beside_network(model, held, SCHEMA, NAME, LEAVES)
        return None if chosen is None else chosen.network

    assert weight(0.9) > 0.0  # each knows something
    # The network is right, and measures say nothing of these cells.
    assert weight(0.97, told=False) is None


def test_what_is_chosen_is_likelier_than_either_alone_and_calibrated():
    model = fit_measured(cells(noise=0.2), SCHEMA, NAME, LEAVES)
    held = knowing(cells(seed=1, noise=0.2), 0.9)
    chosen = beside_network(model, held, SCHEMA, NAME, LEAVES)
    codes = held.codes[:, 0]

    def loss(given):
        z = answers_of(given, held, SCHEMA, NAME, LEAVES) / given.temperature
        return -np.log(softmax(z)[np.arange(len(codes)), codes]).mean()

    alone = temperature_of(answers_of(model, held, SCHEMA, NAME, LEAVES), codes)
    assert loss(chosen) < loss(model.model_copy(update={"temperature": alone}))
    assert loss(chosen) < -np.log(held.answers[np.arange(len(codes)), codes]).mean()


def test_too_few_held_out_cells_choose_nothing():
    model = fit_measured(cells(), SCHEMA, NAME, LEAVES)
    assert beside_network(model, knowing(cells(18), 0.5), SCHEMA, NAME, LEAVES) is None
