"""Corrections by marked cells: taken where held-out cells profit, refused where others lose."""

import numpy as np
import pytest

from bloodfilm.training.class_rows import DescribedCells
from bloodfilm.training.marked_correction import choose_correction, fit_on_cells

NAMES = ("a", "b", "c")
SIZE = 6


def head(description):
    """Log probabilities of a classifier that looks at the first three numbers."""
    logits = 4 * description[:, :3]
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def cloud(count, seed, *high):
    """Descriptions with some high numbers."""
    found = np.random.default_rng(seed).normal(0, 0.1, (count, SIZE))
    found[:, list(high)] += 1.0
    return found


def cells(marked, labels, fields=None):
    """Thirty exemplars of each class, and marked cells, each of them once more as a varied view."""
    known = np.concatenate([cloud(30, i, i) for i in range(3)])
    names = [name for name in NAMES for _ in range(30)] + list(labels)
    n, m = len(known), len(marked)
    cell = np.concatenate([np.arange(n + m), n + np.arange(m)])
    label = np.array([NAMES.index(name) for name in names])
    own = label + 3 * (np.arange(n + m) >= n)
    group = np.arange(n + m)
    if fields is not None:
        group[n:] = n + np.asarray(fields)
    described = np.concatenate([known, marked, marked + 0.01])
    return (
        DescribedCells(
            described,
            head(described),
            np.eye(3, dtype=bool)[label][cell],
            own[cell],
            cell,
            group[cell],
            cell < n,
            np.where(cell < n, 1.0, 0.5),
            (np.arange(len(cell)) >= n + m).astype(np.int64),
        ),
        names,
    )


def test_a_class_that_is_misnamed_on_the_microscope_is_put_right():
    """There, cells of class b look like those of a, and have something else in common."""
    strange = cloud(8, 5, 0, 4)
    described, names = cells(strange, "b" * 8)
    chosen = choose_correction(described, names, 0)
    assert chosen.best.marked.accuracy == (0.0, 1.0)
    assert chosen.best.marked.right == (0, 8)
    assert chosen.correction is not None and not chosen.reasons()
    others = np.concatenate([cloud(50, 9, 0, 4), *(cloud(50, 10 + i, i) for i in range(3))])
    after = chosen.correction.log_probabilities(head(others), others).argmax(1)
    assert (after == np.repeat([1, 0, 1, 2], 50)).mean() > 0.99  # no class is lost
    assert set(chosen.best.known) == set(NAMES) and set(chosen.best.marked.recalls) == {"b"}
    assert min(after for _, after in chosen.best.known.values()) > 0.9


def test_cells_that_are_named_rightly_need_no_correction():
    described, names = cells(10 * cloud(6, 5, 2), "c" * 6)
    chosen = choose_correction(described, names, 0)
    assert chosen.correction is None and chosen.best is chosen.original
    assert "6 of 6 marked cells are named rightly, 6 as it is" in chosen.reasons()[0]


def test_a_correction_by_which_a_known_class_would_be_lost_is_refused():
    """Marked as b are cells that cannot be told from a, of which there is no marked cell."""
    described, names = cells(cloud(30, 5, 0), "b" * 30)
    chosen = choose_correction(described, names, 0)
    strongest = chosen.candidates[-1]
    before, after = strongest.marked.accuracy
    assert after > before
    assert any("recall of 'a' on what was known would fall" in r for r in strongest.reasons)
    assert all(c.reasons for c in chosen.candidates if c.marked.accuracy[1] > before)
    assert chosen.best.known.get("a", (1, 1))[1] >= 0.95


def test_one_field_alone_corrects_nothing():
    described, names = cells(cloud(8, 5, 0, 4), "b" * 8, fields=[0] * 8)
    chosen = choose_correction(described, names, 0)
    assert chosen.correction is None and not chosen.candidates
    assert "cells of 2 or more fields" in chosen.reasons()[0]


def test_cells_of_a_field_are_held_out_together():
    """Each field has a look of its own by which its cells would know each other."""
    rng = np.random.default_rng(3)
    looks = rng.normal(0, 3.0, (4, SIZE - 3))
    labels = ["a", "b", "a", "b"]
    field = np.repeat(np.arange(4), 6)
    marked = cloud(24, 5)
    marked[:, 3:] += looks[field]
    described, names = cells(marked, [labels[i] for i in field], fields=field)
    apart, _ = cells(marked, [labels[i] for i in field])
    whole = choose_correction(described, names, 0).candidates[-1]
    single = choose_correction(apart, names, 0).candidates[-1]
    assert single.marked.log_loss[1] < 0.5 * whole.marked.log_loss[1]


def test_exemplars_keep_the_class_that_they_have():
    """A label of a group of classes leaves open which one; the bundle's own answer does not."""
    described, _ = cells(cloud(8, 5, 0, 4), "b" * 8)
    allowed = described.allowed.copy()
    allowed[described.old] = True  # "some class"
    group = DescribedCells(**{**vars(described), "allowed": allowed})
    fitted = fit_on_cells(group, 0.1)
    old = described.take(described.old)
    after = fitted.log_probabilities(old.known, old.description).argmax(1)
    assert (after == old.known.argmax(1)).all()


def test_one_cell_that_is_put_right_may_be_chance():
    described, names = cells(np.concatenate([cloud(6, 5, 2), cloud(1, 6, 0, 4)]), "ccccccb")
    chosen = choose_correction(described, names, 0)
    assert chosen.correction is None
    assert all("2 more are needed" in c.reasons[0] for c in chosen.candidates)


def test_a_class_that_cannot_be_named_stays_so():
    described, _ = cells(cloud(4, 5, 0), "aaaa")
    known = described.known.copy()
    known[:, 2] = -np.inf
    kept = described.label % 3 != 2
    part = DescribedCells(**{**vars(described), "known": known}).take(kept)
    fitted = fit_on_cells(part, 0.1)
    assert not fitted.weight[2].any() and fitted.bias[2] == pytest.approx(0.0)
    after = fitted.log_probabilities(part.known, part.description)
    assert np.isneginf(after[:, 2]).all()
    np.testing.assert_allclose(np.exp(after).sum(1), 1.0)
