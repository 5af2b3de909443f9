"""Blasts against all other cells: the area under the ROC curve, and which cells it is of."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.evaluation.blasts import blast_report

KINDS = ("myeloblast", "lymphoblast", "blast", "abnormal promyelocyte")
OTHERS = ("monocyte", "lymphocyte", "neutrophil", "metamyelocyte")


def said(p, **more):
    rest = {"monocyte": 1 - p} if p < 1 else {}
    known = {"myeloblast": 0.75 * p, "lymphoblast": 0.25 * p, **rest, **more}
    return CellResult((0, 0, 9, 9), 0.9, "nucleated cell", "nucleated cell", 0.5, known)


def test_equal_to_scikit_learn_over_all_kinds_of_blast():
    rng = np.random.default_rng(3)
    truth = rng.random(120) < 0.4
    labels = [str(rng.choice(KINDS if blast else OTHERS)) for blast in truth]
    scores = np.round(np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1), 2)
    report = blast_report(labels, [said(p) for p in scores], DEFAULT_TAXONOMY, range(120))
    assert (report.blasts, report.others) == (truth.sum(), (~truth).sum())
    assert report.auroc.value == pytest.approx(roc_auc_score(truth, scores))
    assert report.auroc.low < report.auroc.value < report.auroc.high


def test_cells_that_are_not_known_to_be_blasts_or_none_are_left_out():
    labels = ["myeloblast", "monocyte", "nucleated cell", "granulocyte lineage", None, "monocyte"]
    results = [said(0.9), said(0.1), said(0.0), said(0.0), said(0.0)]
    results.append(CellResult((0, 0, 9, 9), 0.9, "nucleated cell", "monocyte", 0.5, {}))
    report = blast_report(labels, results, DEFAULT_TAXONOMY, "abcdef")
    assert (report.blasts, report.others, report.auroc.value) == (1, 1, 1.0)


@pytest.mark.parametrize("labels", [["monocyte", "lymphocyte"], ["blast", "blast"], []])
def test_there_is_no_area_without_both(labels):
    results = [said(0.5) for _ in labels]
    assert blast_report(labels, results, DEFAULT_TAXONOMY, range(len(labels))) is None
