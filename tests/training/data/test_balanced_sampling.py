"""How likely each cell is to be drawn, and which classes one data set alone has."""

import numpy as np
import pytest

from bloodfilm.training.config import SamplingSection
from bloodfilm.training.data.balanced_sampling import draw_weights, lone_labels
from bloodfilm.training.data.cell_crops import CellCrops


def cells(*rows: tuple[int, int, tuple[int, ...], float]) -> CellCrops:
    """Cells of four leaves: (source, patient, leaves, repeat) each."""
    allowed = np.zeros((len(rows), 4), bool)
    for i, (_, _, leaves, _) in enumerate(rows):
        allowed[i, list(leaves)] = True
    n = len(rows)
    return CellCrops(
        np.zeros((n, 1, 1, 3), np.uint8),
        allowed,
        np.zeros((n, 0), np.int64),
        np.array([r[3] for r in rows]),
        np.zeros((n, 2)),
        np.array([r[0] for r in rows]),
        np.array([r[1] for r in rows]),
        np.zeros(n, np.int64),
    )


SETS = cells(*[(0, 0, (0,), 1.0)] * 9, (0, 0, (1,), 1.0), *[(1, 0, (0,), 1.0)] * 2)


def test_even_sampling_draws_every_cell_alike():
    assert draw_weights(SETS, SamplingSection()) == pytest.approx(np.full(12, 1 / 12))


def test_sets_and_labels_share_as_the_exponents_say():
    equal = draw_weights(SETS, SamplingSection(sets=0, labels=0))
    assert equal[:10].sum() == pytest.approx(0.5)
    assert equal[9] == pytest.approx(0.25) and equal[:9] == pytest.approx(np.full(9, 0.25 / 9))
    root = draw_weights(SETS, SamplingSection(sets=0.5, labels=0.5))
    assert root[:10].sum() / root[10:].sum() == pytest.approx((10 / 2) ** 0.5)
    assert root[:9].sum() / root[9] == pytest.approx(3.0)


def test_repeat_is_a_factor_on_its_set():
    twice = cells((0, 0, (0,), 2.0), (1, 0, (0,), 1.0))
    assert draw_weights(twice, SamplingSection(sets=0)) == pytest.approx([2 / 3, 1 / 3])


def test_the_same_label_of_another_patient_is_another():
    rows = [(0, 1, (0,), 1.0)] * 3 + [(0, 2, (0,), 1.0)]
    weights = draw_weights(cells(*rows), SamplingSection(labels=0))
    assert weights == pytest.approx([1 / 6] * 3 + [1 / 2])


def test_lone_is_what_no_other_set_can_mean():
    rows = cells(
        (0, 0, (0,), 1.0),
        (0, 0, (1,), 1.0),
        (0, 0, (3,), 1.0),
        (1, 0, (0, 1), 1.0),
        (1, 0, (2,), 1.0),
        (1, 0, (0, 1, 2), 1.0),
    )
    # Leaves 0 and 1 are meant by the other set's group; 2 and 3 by one set only; the last names
    # no class.
    assert lone_labels(rows).tolist() == [False, False, True, False, True, False]
