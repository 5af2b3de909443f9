"""AP worked out by hand, against pycocotools, and with doubtful and unknown areas."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodfilm.core import DEFAULT_TAXONOMY, Cell, CellResult, DataError, Field, Region
from bloodfilm.core.errors import ConfigError
from bloodfilm.evaluation.average_precision import collect, full_scores, operating_point
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.detection import coco_documents, coco_scores, prepare, recall_of_known

WHITE = parse_granularity("white-cell", DEFAULT_TAXONOMY)
THREE = parse_granularity("three", DEFAULT_TAXONOMY)
LEAVES = parse_granularity("leaves", DEFAULT_TAXONOMY)


def white(box, score=0.9, label="neutrophil", probabilities=None):
    return CellResult(box, score, "nucleated cell", label, 1.0, probabilities or {})


def true(box, label="white cell", **more):
    return Cell(box, label, **more)


def one_field(cells, results, level=WHITE, region=None):
    item = Field(Path("a.png"), 100, 100, tuple(cells), region or Region.everything())
    return prepare([item], [results], level)


A, B, C = (0, 0, 10, 10), (40, 40, 10, 10), (80, 80, 10, 10)


def test_perfect_and_nothing():
    assert coco_scores(one_field([true(A)], [white(A)])).ap == pytest.approx(1.0)
    nothing = coco_scores(one_field([true(A)], []))
    assert nothing.ap == nothing.ar == 0.0


def test_ap_by_hand():
    # Ranked: hit, false, hit; two cells. Recall 0.5 at precision 1, recall 1 at precision 2/3.
    # Of the 101 recalls, 0..0.50 (51) read 1 and 0.51..1 (50) read 2/3.
    prepared = one_field([true(A), true(B)], [white(A, 0.9), white(C, 0.8), white(B, 0.7)])
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert coco_scores(prepared).ap50 == pytest.approx(expected)
    assert coco_scores(prepared).ap == pytest.approx(expected)


def test_loose_box_counts_at_low_iou_only():
    # Boxes 10 x 10 shifted by 2: IoU 80 / 120 = 0.667, so right at 0.50, 0.55, 0.60, 0.65.
    scores = coco_scores(one_field([true(A)], [white((2, 0, 10, 10))]))
    assert scores.ap50 == pytest.approx(1.0)
    assert scores.ap75 == 0.0
    assert scores.ap == pytest.approx(0.4)


def test_second_detection_of_one_cell_is_false():
    prepared = one_field([true(A)], [white(A, 0.9), white(A, 0.8)])
    point = operating_point(collect(prepared), 0.5)
    assert (point.true_positives, point.false_positives, point.missed) == (1, 1, 0)
    assert point.precision == 0.5
    assert point.f1 == pytest.approx(2 / 3)


def counts(prepared, threshold=0.0):
    p = operating_point(collect(prepared), threshold)
    same = full_scores(prepared, collect(prepared))
    evaluator = coco_scores(prepared)
    for key in ("ap", "ap50", "ap75", "ar", "recall50"):
        assert getattr(same, key) == pytest.approx(getattr(evaluator, key), abs=1e-12)
    return p.true_positives, p.false_positives, p.missed, p.dropped


def test_detection_on_an_ignore_box_is_dropped():
    cells = [true(A), true(B, label=None, ignore=True)]
    better_first = [white(B, 0.95), white(A, 0.9)]
    prepared = one_field(cells, better_first)
    assert counts(prepared) == (1, 0, 0, 1)
    assert coco_scores(prepared).ap == pytest.approx(1.0)
    # The same box without the ignore box costs precision.
    assert coco_scores(one_field(cells[:1], better_first)).ap == pytest.approx(0.5)


@pytest.mark.parametrize(("shift", "dropped"), [(5, 1), (6, 0)])
def test_ignore_takes_half_of_the_detection_at_every_iou(shift, dropped):
    cells = [true(A), true(B, ignore=True)]
    prepared = one_field(cells, [white((40 + shift, 40, 10, 10), 0.95), white(A, 0.9)])
    assert counts(prepared)[3] == dropped
    ap = coco_scores(prepared)
    assert ap.ap75 == ap.ap50 == pytest.approx(1.0 if dropped else 0.5)


def test_true_cells_come_before_ignore_boxes():
    # The detection lies on both; it must find the cell, and two detections share the ignore box.
    big = (30, 30, 40, 40)
    cells = [true(B), true(big, ignore=True)]
    prepared = one_field(cells, [white(B, 0.9), white((31, 31, 9, 9), 0.8), white(big, 0.7)])
    assert counts(prepared) == (1, 0, 0, 2)


def test_ignore_saves_a_loose_detection_only_where_it_does_not_match():
    # IoU 0.667 with the cell: right up to 0.65, dropped (not false) above.
    cells = [true(A), true((0, 0, 20, 20), ignore=True)]
    prepared = one_field(cells, [white((2, 0, 10, 10), 0.9)])
    verdicts = collect(prepared)["white cell"].verdicts[:, 0]
    assert verdicts.tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert counts(prepared) == (1, 0, 0, 0)


def test_outside_the_region_nothing_is_false():
    region = Region.rect(0, 0, 50, 100)
    results = [white(A, 0.9), white(C, 0.8), white((20, 20, 10, 10), 0.7)]
    prepared = one_field([true(A)], results, region=region)
    assert counts(prepared) == (1, 1, 0, 1)


def test_true_cells_outside_the_region_cost_and_gain_nothing():
    region = Region.rect(0, 0, 50, 100)
    prepared = one_field([true(A), true(C)], [white(A)], region=region)
    assert counts(prepared) == (1, 0, 0, 0)
    assert "true cells outside the annotated region, neither found nor missed" in prepared.notes
    found = one_field([true(A), true(C)], [white(A), white(C)], region=region)
    assert counts(found) == (1, 0, 0, 1)


def test_recall_of_known_cells_needs_no_region():
    item = Field(Path("a"), 100, 100, (true(A), true(B), true(C, ignore=True)), Region.nothing())
    assert recall_of_known([item], [[white(A)]], WHITE, 0.5) == (1, 2)
    with pytest.raises(DataError, match="no boxed cell"):
        coco_scores(prepare([item], [[white(A)]], WHITE))


def test_shallow_labels_are_optional_where_leaves_are_evaluated():
    cells = [true(A, "lymphocyte"), true(B, "neutrophil")]
    results = [
        white(A, 0.9, "lymphocyte"),
        white(B, 0.8, "band neutrophil"),
        white(B, 0.7, "band neutrophil"),
    ]
    prepared = one_field(cells, results, LEAVES)
    # No band neutrophil is certain, so that class has no AP; the second box is not even counted.
    scores = coco_scores(prepared)
    assert list(scores.per_class) == ["lymphocyte"]
    more = one_field([*cells, true(C, "band neutrophil")], results, LEAVES)
    assert counts(more) == (1, 1, 1, 1)


def test_unnamed_object_is_optional():
    prepared = one_field([true(A), true(B, None)], [white(A), white(B)])
    assert counts(prepared) == (1, 0, 0, 1)


def test_repeats_and_cells_without_boxes():
    cells = [true(A), true(A), Cell(None, "neutrophil"), true((5, 5, 0, 9))]
    prepared = one_field(cells, [white(A)])
    assert counts(prepared) == (1, 0, 0, 0)
    assert prepared.notes == {
        "cells without a box, left out": 1,
        "true boxes without area, left out": 1,
        "exact repeats of a true box, counted once": 1,
    }


def test_class_of_a_result():
    red = CellResult(A, 0.8, "red cell", "red cell", 0.8)
    assert THREE.of_result(red) == ("red cell", 0.8)
    assert WHITE.of_result(red) is None
    shared = white(A, 0.5, "nucleated cell", {"erythroblast": 0.4, "lymphocyte": 0.6})
    assert WHITE.of_result(shared) == ("white cell", pytest.approx(0.3))
    erythroblast = white(A, 0.5, "erythroblast", {"erythroblast": 1.0, "lymphocyte": 0.0})
    assert WHITE.of_result(erythroblast) is None
    assert LEAVES.of_result(white(A, 0.5, "granulocyte lineage")) is None


def test_levels():
    assert parse_granularity("WBC, RBC", DEFAULT_TAXONOMY).classes == ("white cell", "red cell")
    with pytest.raises(ConfigError, match="no class 'martian'"):
        parse_granularity("martian", DEFAULT_TAXONOMY)
    with pytest.raises(ConfigError, match="lies under"):
        parse_granularity("neutrophil,white cell", DEFAULT_TAXONOMY)


def test_counts_must_agree():
    with pytest.raises(DataError, match="1 fields but 0 results"):
        prepare([Field(Path("a"))], [], WHITE)


side = st.integers(0, 14)
size = st.integers(1, 12)
box = st.tuples(side, side, size, size)
label = st.sampled_from(["white cell", "red cell", "platelet"])
KIND = {"white cell": "nucleated cell", "red cell": "red cell", "platelet": "platelet"}
found = st.builds(
    lambda b, s, name: CellResult(b, s / 8, KIND[name], name, 1.0), box, st.integers(0, 8), label
)
picture = st.tuples(
    st.lists(st.builds(Cell, box, label), max_size=6, unique_by=lambda c: (c.box, c.label)),
    st.lists(found, max_size=8),
)


def by_pycocotools(prepared, max_detections):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, results = coco_documents(prepared)
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for document in (truth, results):
            side = COCO()
            side.dataset = document
            side.createIndex()
            sides.append(side)
        evaluator = COCOeval(*sides, iouType="bbox")
        evaluator.params.maxDets = [max_detections]
        evaluator.params.areaRng = [[0, 1e10]]
        evaluator.params.areaRngLbl = ["all"]
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][..., 0, -1]
    recall = evaluator.eval["recall"][..., 0, -1]
    return (
        precision[precision > -1].mean(),
        precision[0][precision[0] > -1].mean(),
        recall[recall > -1].mean(),
    )


def agree(fields, results, level, max_detections):
    prepared = prepare(fields, results, level)
    if not any(prepared.truth_count(name) for name in level.classes):
        return
    expected = by_pycocotools(prepared, max_detections)
    for scores in (
        coco_scores(prepared, max_detections),
        full_scores(prepared, collect(prepared, max_detections)),
    ):
        np.testing.assert_allclose((scores.ap, scores.ap50, scores.ar), expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(picture, min_size=1, max_size=4), st.sampled_from([2, 100]))
def test_equal_to_pycocotools(pictures, max_detections):
    fields = [Field(Path(str(i)), 30, 30, tuple(c)) for i, (c, _) in enumerate(pictures)]
    agree(fields, [r for _, r in pictures], THREE, max_detections)


doubtful = st.builds(lambda b, n, i: Cell(b, n, ignore=i), box, label, st.booleans())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(doubtful, max_size=6), st.lists(found, max_size=8), st.integers(0, 25)),
        min_size=1,
        max_size=3,
    )
)
def test_both_counts_agree_on_doubtful_cells_and_regions(pictures):
    fields = [
        Field(Path(str(i)), 30, 30, tuple(c), Region.rect(0, 0, w, 30))
        for i, (c, _, w) in enumerate(pictures)
    ]
    agree(fields, [r for _, r, _ in pictures], THREE, 100)
