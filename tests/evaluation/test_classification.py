"""Figures against scikit-learn; labels at different depths; baselines."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, AttributeResult, CellResult
from bloodfilm.evaluation.classification import (
    attribute_outcomes,
    class_only_baseline,
    class_outcomes,
    confusion,
    label_scores,
    macro_f1,
    majorities,
    majority_baseline,
    score,
)

BOX = (0, 0, 9, 9)
SHAPE = LLD_SCHEMA["nuclear_shape"]
SIZE = LLD_SCHEMA["cell_size"]


def read(label, probabilities=None, attributes=None):
    return CellResult(BOX, 0.9, "nucleated cell", label, 0.8, probabilities or {}, attributes or {})


def answer(attribute, *probabilities, value=""):
    best = attribute.values[int(np.argmax(probabilities))]
    held = dict(zip(attribute.values, probabilities, strict=True))
    said = best if value == "" else value
    return {attribute.name: AttributeResult(said, max(probabilities), held)}


def classes(truths, results, **options):
    return class_outcomes(truths, results, DEFAULT_TAXONOMY, **options)


names = st.sampled_from(["neutrophil", "eosinophil", "basophil", "monocyte", "lymphocyte"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, names), min_size=1, max_size=30))
def test_equal_to_scikit_learn(pairs):
    truth, guess = [t for t, _ in pairs], [g for _, g in pairs]
    outcomes = classes(truth, [read(g) for g in guess])
    scores = score(outcomes)
    present = sorted(set(truth))
    f1 = metrics.f1_score(truth, guess, labels=present, average="macro", zero_division=0)
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(truth, guess))
    assert scores.macro_f1 == pytest.approx(f1)
    recall = metrics.recall_score(truth, guess, labels=present, average="macro", zero_division=0)
    assert scores.balanced_accuracy == pytest.approx(recall)
    p, r, f, n = metrics.precision_recall_fscore_support(
        truth, guess, labels=present, zero_division=0
    )
    mine = label_scores(outcomes)
    for i, name in enumerate(present):
        got = mine[name]
        assert (got.precision, got.recall, got.f1) == pytest.approx((p[i], r[i], f[i]))
        assert got.support == n[i]
    if len(outcomes.labels) > 1:  # scikit-learn warns about one label, and is right
        expected = metrics.confusion_matrix(truth, guess, labels=list(outcomes.labels))
        assert confusion(outcomes).tolist() == expected.tolist()


def test_weights_are_repeats():
    truth = ["neutrophil", "basophil", "monocyte", "monocyte"]
    guess = ["neutrophil", "monocyte", "monocyte", "basophil"]
    weights = np.asarray([2, 0, 3, 1])
    weighted = score(classes(truth, [read(g) for g in guess]), weights)
    often = [i for i, w in enumerate(weights) for _ in range(w)]
    repeated = score(classes([truth[i] for i in often], [read(guess[i]) for i in often]))
    assert weighted == repeated


def test_leaves_are_summed_to_the_label():
    split = {"band neutrophil": 0.3, "segmented neutrophil": 0.3, "eosinophil": 0.4}
    truths = ["neutrophil", "eosinophil"]
    outcomes = classes(truths, [read("cell", split), read("cell", {"eosinophil": 1.0})])
    assert outcomes.correct.tolist() == [True, True]
    assert outcomes.confidence[0] == pytest.approx(0.6)
    # Brier with the two neutrophil leaves taken together: (1 - 0.6)^2 + 0.4^2.
    assert outcomes.squared_error[0] == pytest.approx(0.32)


def test_open_and_closed_vocabulary():
    held = {"promyelocyte": 0.5, "basophil": 0.3, "monocyte": 0.2}
    truths = ["basophil", "monocyte"]
    results = [read("promyelocyte", held), read("monocyte", {"monocyte": 1.0})]
    free = classes(truths, results)
    assert free.correct.tolist() == [False, True]
    assert free.labels[free.predicted[0]] == "promyelocyte"
    assert classes(truths, results, closed=True).correct.tolist() == [True, True]
    assert set(label_scores(free)) == {"basophil", "monocyte"}


def test_deeper_prediction_is_right_for_an_inner_label():
    truths = ["immature granulocyte", "myelocyte", "myelocyte", "immature granulocyte"]
    results = [
        read("x", {"promyelocyte": 1.0}),
        read("x", {"myelocyte": 1.0}),
        read("x", {"promyelocyte": 1.0}),
        read("x", {"myelocyte": 1.0}),
    ]
    results = [CellResult(BOX, 1, "nucleated cell", *_leaf(r)) for r in results]
    outcomes = classes(truths, results)
    assert outcomes.correct.tolist() == [True, True, False, True]
    assert outcomes.labels[outcomes.predicted[2]] == "immature granulocyte"


def _leaf(result):
    (leaf,) = result.probabilities
    return leaf, 1.0, result.probabilities


def test_abstaining_on_the_way_down_is_no_error():
    truths = ["neutrophil"] * 4
    labels = ["granulocyte lineage", "segmented neutrophil", "lymphocyte lineage", "neutrophil"]
    outcomes = classes(truths, [read(label) for label in labels])
    scores = score(outcomes)
    assert outcomes.accepted.tolist() == [False, True, True, True]
    assert scores.coverage == 0.75
    assert scores.accepted_accuracy == pytest.approx(2 / 3)
    assert scores.accuracy == 0.5


def test_attributes_are_masked_one_by_one():
    results = [
        read("cell", attributes=answer(SHAPE, 0.9, 0.1) | answer(SIZE, 0.2, 0.3, 0.5)),
        read("cell", attributes=answer(SHAPE, 0.4, 0.6, value=None)),
        read("cell"),
    ]
    shape = attribute_outcomes(SHAPE, ["regular", "regular", "irregular"], results)
    assert shape.cells.tolist() == [0, 1]
    scores = score(shape)
    assert (scores.n, scores.accuracy) == (2, 0.5)
    assert (scores.coverage, scores.accepted_accuracy) == (0.5, 1.0)
    assert shape.squared_error.tolist() == pytest.approx([0.02, 0.72])
    size = attribute_outcomes(SIZE, ["large", "small", None], results)
    assert (len(size), score(size).accuracy) == (1, 1.0)
    assert len(attribute_outcomes(SIZE, [None] * 3, results)) == 0


def test_attribute_never_learnt_is_left_out():
    nothing = {SHAPE.name: AttributeResult(None, 0.0, {})}
    assert len(attribute_outcomes(SHAPE, ["regular"], [read("cell", attributes=nothing)])) == 0


def test_values_without_probabilities():
    said = {SHAPE.name: AttributeResult("irregular", 0.7, {})}
    outcomes = attribute_outcomes(SHAPE, ["irregular"], [read("cell", attributes=said)])
    assert score(outcomes).accuracy == 1.0


def test_baselines():
    truth = ["regular", "regular", "irregular", "irregular", "irregular"]
    kinds = ["lymphocyte", "lymphocyte", "lymphocyte", "monocyte", "basophil"]
    results = [read("cell", attributes=answer(SHAPE, 0.6, 0.4)) for _ in truth]
    outcomes = attribute_outcomes(SHAPE, truth, results)
    learnt = majorities(SHAPE, zip(kinds[:4], truth[:4], strict=True))
    assert learnt.overall == "regular"
    assert learnt.by_class == {"lymphocyte": "regular", "monocyte": "irregular"}
    assert score(majority_baseline(outcomes, learnt)).accuracy == pytest.approx(2 / 5)
    by_class = class_only_baseline(outcomes, kinds, learnt)
    # The basophil was never seen: the overall majority answers for it.
    assert score(by_class).accuracy == pytest.approx(3 / 5)
    assert score(by_class).balanced_accuracy == pytest.approx((1 + 1 / 3) / 2)


def test_macro_f1_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    over_all = metrics.f1_score(truth, predicted, average="macro")
    over_true = metrics.f1_score(truth, predicted, labels=[0, 1, 2], average="macro")
    assert macro_f1(truth, predicted, include_predicted=True) == pytest.approx(over_all)
    assert macro_f1(truth, predicted) == pytest.approx(over_true)
    assert over_all != pytest.approx(over_true)
