"""The benchmark that leaves a patient out: groups, baselines, figures worked by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from leave_one_patient_out import (
    GROUPS,
    MEASURES,
    Answers,
    CellCrops,
    LeftOut,
    balanced,
    commonest,
    figures,
    groups_of,
    in_group,
    lifted,
    measured_logits,
    pooled,
)

LEAVES = DEFAULT_VOCABULARY.leaves


def labels(*names):
    return groups_of(LEAVES, [(name,) for name in names])


def test_every_white_cell_is_in_one_coarse_group():
    groups = groups_of(LEAVES, GROUPS.values())
    assert (groups.sum(0) == [leaf != "erythroblast" for leaf in LEAVES]).all()
    allowed = labels("monoblast", "neutrophil", "monocyte", "erythroblast", "monocyte lineage")
    assert in_group(allowed, groups).tolist() == [0, 2, 3, -1, -1]


def test_balanced_accuracy_counts_classes_of_enough_cells():
    truth, said = np.array([0] * 5 + [1]), np.array([0, 0, 0, 0, 1, 0])
    assert balanced(truth, said) == pytest.approx((0.8 + 0) / 2)
    assert balanced(truth, said, 5) == pytest.approx(0.8)
    assert balanced(truth, said, 6) is None


def test_the_class_alone_tells_its_commonest_value():
    classes, codes = np.array([0, 0, 0, 1, 1, -1]), np.array([1, 1, 0, 0, -1, 0])
    assert commonest(classes, codes, 3).tolist() == [1, 0, 0]


def given(truth, said, blast):
    rows = np.array([[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [1, 1, 0, 1, 1], [-1, 1, 0, 1, 0]])
    return Answers(
        np.column_stack([truth, said]),
        np.column_stack([truth, said]),
        {"size": rows},
        np.array(blast),
        np.array(blast) >= 0.5,
    )


def test_figures_by_hand():
    found = figures(given([0, 0, 1, -1], [0, 1, 1, 0], [0.9, 0.2, 0.6, 0.9]))
    assert found["coarse"]["accuracy"] == pytest.approx(0.6667, abs=1e-4)
    assert found["coarse"]["recall"] == {"blast": [0.5, 2], "lymphoid": [1.0, 1]}
    size = found["attributes"]["size"]
    assert size["balanced"] == pytest.approx(0.75)
    assert size["class_only_labelled"] == pytest.approx(0.5)
    assert size["class_only_predicted"] == pytest.approx(0.75)
    assert size["measured"] == found["attributes_measured"] == 1.0
    # Of two cells named blast whose class is known one is; of two blasts one is named.
    assert (found["blast_precision"], found["blast_recall"]) == (0.5, 0.5)
    assert found["blast_auroc"] == 0.5


def test_pooling_adds_the_cells_up():
    one = given([0, 0, 1, -1], [0, 1, 1, 0], [0.9, 0.2, 0.6, 0.9])
    both = figures(pooled([one, one]))
    assert both["cells"] == 8 and both["coarse"]["recall"]["blast"] == [0.5, 4]


def test_a_class_nobody_else_has_counts_as_what_is_above_it():
    learnt = [leaf in ("myeloblast", "lymphocyte", "myelocyte") for leaf in LEAVES]
    found = lifted(
        labels("monoblast", "atypical lymphocyte", "lymphocyte", "basophil"), learnt, LEAVES
    )
    wanted = labels("blast", "lymphocyte lineage", "lymphocyte", "granulocyte lineage")
    assert np.array_equal(found, wanted)


def test_measured_attributes_are_fitted_to_the_others_alone():
    rng = np.random.default_rng(0)
    schema = DEFAULT_VOCABULARY.schema
    column = schema.names.index("nuclear_shape")

    def some(count, patient):
        codes = np.full((count, len(schema.names)), -1)
        codes[:, column] = np.arange(count) % 2
        measures = rng.normal(0, 0.1, (count, len(MEASURES)))
        measures[:, MEASURES.index("nucleus_circularity")] += codes[:, column]
        empty = np.zeros(count)
        crops = CellCrops(
            np.zeros((count, 1, 1, 3), np.uint8),
            np.repeat(labels("lymphocyte"), count, axis=0),
            codes,
            empty,
            np.zeros((count, 2)),
            empty.astype(int),
            np.full(count, patient),
            empty.astype(int),
        )
        return crops, measures

    (own, measures), (others, other_measures) = some(20, 1), some(60, 2)
    own.codes[:, column] = 0  # of no account: they are the patient's own
    measures[3] = np.nan
    p = np.full((20, len(LEAVES)), 1 / len(LEAVES))
    left = LeftOut("1", own, p, p, [True] * len(LEAVES), others, 0, measures, other_measures)
    found = measured_logits(left, schema, LEAVES, p)
    assert list(found) == ["nuclear_shape"]
    said = found["nuclear_shape"]
    assert np.isnan(said[3]).all() and np.isnan(said).any(1).sum() == 1
    seen = np.arange(20) != 3
    assert np.array_equal(said[seen].argmax(1), (np.arange(20) % 2)[seen])
