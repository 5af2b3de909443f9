"""Rows for new classes: fitted, calibrated, held out; what is not taught stays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodfilm.core.errors import ConfigError
from bloodfilm.training.class_rows import (
    DescribedCells,
    Whitening,
    assign_folds,
    fit_added_rows,
    fit_rows,
    fit_sigmoid,
    label_weights,
    log_probabilities,
)

KNOWN, NEW, SIZE = 3, 3, 6


def some(known=20, new=15, groups=1, views=0, seed=0):
    """Known cells of three classes around three points, and new ones around a fourth."""
    rng = np.random.default_rng(seed)
    points = np.eye(SIZE)[: KNOWN + 1] * 6
    labels = np.repeat(np.arange(KNOWN), known).tolist() + [NEW] * new
    cell = list(range(len(labels)))
    rows = [points[label] + rng.normal(0, 1, SIZE) for label in labels]
    view = [0] * len(labels)
    for number in range(len(labels)):
        for v in range(views if labels[number] == NEW else 0):
            rows.append(rows[number] + rng.normal(0, 0.1, SIZE))
            labels.append(NEW)
            cell.append(number)
            view.append(v + 1)
    label = np.array(labels)
    old = label < KNOWN
    cell = np.array(cell)
    logits = np.full((len(label), KNOWN + 1), -np.inf)
    logits[:, :KNOWN] = -((np.array(rows)[:, None] - points[None, :KNOWN]) ** 2).sum(2)
    logits -= np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
    logits -= logits.max(1, keepdims=True)
    known_log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return DescribedCells(
        np.array(rows),
        known_log,
        np.eye(KNOWN + 1, dtype=bool)[label],
        label,
        cell,
        np.where(old, 1000 + cell, cell % groups),
        old,
        np.where(label == NEW, 1 / (views + 1), 1.0),
        np.array(view),
    )


def test_a_class_that_stands_apart_is_found_and_the_others_keep_their_proportions():
    cells = some(views=2)
    done = fit_added_rows(cells, Whitening.of(cells.take(cells.old)), [(NEW, True)])
    assert len(done.plain) == 75 and done.held_out.shape == (75, KNOWN + 1)
    p = np.exp(done.held_out)
    assert np.allclose(p.sum(1), 1)
    label = cells.label[done.plain]
    assert (p.argmax(1) == label).all()
    before = np.exp(cells.known[done.plain])
    assert np.allclose(p[:, :KNOWN], before[:, :KNOWN] * (1 - p[:, NEW:]))
    # On held-out cells the mean probability is that of Platt's targets: 16 of 17, and 1 of 62.
    weights = label_weights(cells.take(done.plain))
    target = np.where(label == NEW, 16 / 17, 1 / 62)
    assert weights @ p[:, NEW] == pytest.approx(weights @ target, abs=1e-6)


def test_a_class_that_is_drawn_from_the_known_ones_is_hardly_ever_named():
    cells = some()
    rng = np.random.default_rng(5)
    description = cells.description.copy()
    description[cells.label == NEW] = description[rng.permutation(60)[:15]]
    same = DescribedCells(**{**vars(cells), "description": description})
    done = fit_added_rows(same, Whitening.of(same.take(same.old)), [(NEW, True)])
    share = np.exp(done.held_out[:, NEW])
    assert share[same.label[done.plain] == NEW].mean() < 0.5


def test_rows_are_the_minimum_of_a_penalised_likelihood():
    cells = some()
    whitening = Whitening.of(cells.take(cells.old))
    x, weights = whitening(cells.description), label_weights(cells)

    def loss(rows):
        log_p = log_probabilities(cells.known, rows.scores(x), rows)
        fit = -(weights * np.where(cells.allowed, log_p, -np.inf).max(1)).sum()
        return fit + 0.05 * (rows.weights**2).sum()

    rows = fit_rows(cells, x, [(NEW, True)], penalty=0.1)
    for factor in (0.9, 1.1):
        assert loss(rows.scaled([factor], [0.0])) > loss(rows)
    for shift in (-0.2, 0.2):
        assert loss(rows.scaled([1.0], [shift])) > loss(rows)
    weights_only, bias = whitening.undo(rows.weights[0], float(rows.bias[0]))
    assert np.allclose(cells.description @ weights_only + bias, rows.scores(x)[:, 0])


def test_a_known_class_is_corrected_only_where_that_is_asked_for():
    cells = some()
    whitening = Whitening.of(cells.take(cells.old))
    done = fit_added_rows(cells, whitening, [(NEW, True), (0, False)])
    assert done.rows.leaves == (NEW, 0) and done.rows.new == (True, False)
    assert done.slopes[1] == 1.0


def test_every_label_counts_alike_and_views_share_the_weight_of_their_cell():
    cells = some(known=10, new=3, views=4)
    weights = label_weights(cells)
    assert weights.sum() == pytest.approx(1)
    assert np.allclose(np.bincount(cells.label, weights), 1 / (KNOWN + 1))


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(1, 8), new=st.integers(5, 20), views=st.integers(0, 2))
def test_what_belongs_together_is_held_out_together(groups, new, views):
    cells = some(5, new, groups, views)
    fold, by_group = assign_folds(cells, [NEW], 0)
    assert fold.min() >= 0 and len(set(fold[cells.label == NEW])) > 1
    assert by_group == (min(groups, new) >= 3)
    for unit in (cells.cell, *([cells.group] if by_group else [])):
        for number in np.unique(unit):
            assert len(set(fold[unit == number])) == 1


def test_the_odds_of_a_class_multiply_its_odds():
    cells = some()
    whitening = Whitening.of(cells.take(cells.old))
    plain = fit_added_rows(cells, whitening, [(NEW, True)])
    rare = fit_added_rows(cells, whitening, [(NEW, True)], odds={NEW: 0.1})
    ratio = [np.exp(t.held_out[:, NEW]) / (1 - np.exp(t.held_out[:, NEW])) for t in (plain, rare)]
    assert np.allclose(ratio[1] / ratio[0], 0.1)


def test_scores_that_point_the_wrong_way_say_nothing():
    scores, positive = np.arange(10.0), np.arange(10) < 5
    assert fit_sigmoid(scores, positive, np.ones(10))[0] == 0.0


def test_one_cell_of_each_class_shows_no_spread():
    cells = some(known=1, new=5)
    with pytest.raises(ConfigError, match="two cells of some class"):
        Whitening.of(cells.take(cells.old))
