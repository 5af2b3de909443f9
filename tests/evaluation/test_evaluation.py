"""From fields and results to one record, and results files brought back."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    AttributeResult,
    Cell,
    CellResult,
    DataError,
    Field,
    FieldResult,
    Region,
)
from bloodfilm.core.results import ImageRef
from bloodfilm.core.results.tables import CellTableWriter
from bloodfilm.evaluation.cell_matching import coarsen, pair_fields
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.evaluate import (
    SAME_CELLS,
    Resampling,
    evaluate_classification,
    evaluate_detection,
)
from bloodfilm.evaluation.predictions import align, read_predictions
from bloodfilm.evaluation.record import Evaluation, show
from fixtures.made_up_results import make_run, make_view

VOCABULARY = (DEFAULT_TAXONOMY, LLD_SCHEMA)
QUICK = Resampling(n=50, seed=1)
SHAPES = ("regular", "irregular")


def found(x, label, shape="regular", score=0.9, kind="nucleated cell"):
    held = {s: 0.9 if s == shape else 0.1 for s in SHAPES}
    answers = {
        "nuclear_shape": AttributeResult(shape, 0.9, held),
        "nucleolus": AttributeResult(None, 0.0, {}),
    }
    probabilities = {label: 0.8, "basophil": 0.2} if kind == "nucleated cell" else {}
    answers = answers if probabilities else {}
    return CellResult((x, 0.0, 10.0, 10.0), score, kind, label, 0.8, probabilities, answers)


def essence(cells):
    return [(c.box, c.object_type, c.label, c.confidence) for c in cells]


def true(x, label, shape="regular", **more):
    attributes = {"nuclear_shape": shape, "nucleolus": "prominent"}
    return Cell((x, 0.0, 10.0, 10.0), label, attributes, **more)


@pytest.fixture
def case():
    fields, results = [], []
    for i in range(6):
        cells = (
            true(0, "monocyte", "irregular"),
            true(30, "lymphocyte"),
            true(60, "lymphocyte", "irregular" if i == 0 else "regular"),
            Cell((90.0, 0.0, 10.0, 10.0), "red cell"),
            Cell((120.0, 0.0, 30.0, 30.0), None, ignore=True),
        )
        fields.append(Field(Path(f"f{i}.png"), 200, 50, cells, patient=f"p{i // 2}"))
        results.append(
            [
                found(0, "monocyte", "irregular"),
                found(31, "lymphocyte"),
                found(60, "monocyte" if i < 2 else "lymphocyte", score=0.5),
                found(90, "red cell", kind="red cell"),
                found(125, "monocyte", score=0.7),
                found(160, "monocyte", score=0.1),
            ]
        )
    return fields, results


def test_detection_report(case):
    fields, results = case
    level = parse_granularity("detector", DEFAULT_TAXONOMY)
    report = evaluate_detection(fields, results, level, lambda c: c.confidence >= 0.4, 0.5, QUICK)
    o = report.operating
    assert (o.true_positives, o.false_positives, o.missed, o.dropped) == (24, 0, 0, 6)
    assert report.known == (24, 24)
    assert report.intervals["ap50"].value == report.scores.ap50 == pytest.approx(1.0)
    assert report.resampled == ("patient", 3)
    assert report.notes == {"ignore boxes": 6}


def test_reading_report(case):
    fields, results = case
    pairs = pair_fields(fields, results, DEFAULT_TAXONOMY)
    assert (len(pairs.pairs), pairs.wanted) == (18, 18)
    report = evaluate_classification(fields, pairs, VOCABULARY, None, QUICK)
    classes, shape = report.questions
    assert classes.name == "class"
    assert classes.scores.accuracy == pytest.approx(16 / 18)
    assert classes.labels["lymphocyte"].recall == pytest.approx(10 / 12)
    assert classes.intervals["accuracy"].low <= classes.scores.accuracy
    assert shape.scores.accuracy == pytest.approx(17 / 18)
    assert shape.baselines["majority"].accuracy == pytest.approx(11 / 18)
    assert shape.baselines["class only"].accuracy == pytest.approx(17 / 18)
    assert report.learnt_from == SAME_CELLS
    assert report.notes == ("the model was not trained on: nucleolus",)


def test_baselines_learn_from_the_reference_they_are_given(case):
    fields, results = case
    pairs = pair_fields(fields, results, DEFAULT_TAXONOMY)
    other = [Field(Path("t"), cells=(true(0, "monocyte"), true(0, "lymphocyte", "irregular")))]
    report = evaluate_classification(fields, pairs, VOCABULARY, ("train", other), QUICK)
    assert report.learnt_from == "train"
    assert report.questions[1].baselines["class only"].accuracy == pytest.approx(1 / 18)


def test_a_cell_without_box_is_the_one_in_the_middle():
    field = Field(Path("a"), 100, 20, (Cell(None, "monocyte"),), Region.nothing())
    results = [found(0, "basophil"), found(46, "monocyte", score=0.4), found(45, "basophil")]
    pairs = pair_fields([field], [results], DEFAULT_TAXONOMY)
    assert [p.result.label for p in pairs.pairs] == ["basophil"]
    assert pairs.pairs[0].result.box[0] == 45
    assert pair_fields([field], [results[:1]], DEFAULT_TAXONOMY).pairs == ()


def test_labels_are_coarsened_to_the_classes_asked_for():
    five = parse_granularity("five", DEFAULT_TAXONOMY)
    names = ("band neutrophil", "neutrophil", "myelocyte", "white cell", None, "monocyte")
    (field,) = coarsen([Field(Path("a"), cells=tuple(Cell(None, n) for n in names))], five)
    assert [c.label for c in field.cells] == ["neutrophil", "neutrophil", "monocyte"]


def test_red_cells_and_ignored_ones_are_not_read(case):
    fields, results = case
    only = [f.with_cells(f.cells[3:]) for f in fields]
    assert pair_fields(only, results, DEFAULT_TAXONOMY).wanted == 0


def test_record_and_tables(case):
    fields, results = case
    level = parse_granularity("detector", DEFAULT_TAXONOMY)
    detection = evaluate_detection(fields, results, level, lambda _: True, 0.5, QUICK)
    pairs = pair_fields(fields, results, DEFAULT_TAXONOMY)
    report = evaluate_classification(fields, pairs, VOCABULARY, None, QUICK)
    record = Evaluation({"dataset": "x"}, {"iou": 0.5}, 6, QUICK, detection, report, ("so",))
    data = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert data["detection"]["scores"]["ap50"] == pytest.approx(1.0)
    assert data["bootstrap"] == {"n": 50, "seed": 1, "level": 0.95}
    assert data["reading"]["questions"]["class"]["confusion"]["rows_true"][0][0] == 6
    console = Console(file=io.StringIO(), width=160)
    console.print(show(record))
    text = console.file.getvalue()
    for words in ("AP50", "nuclear shape", "patient: 3 groups", "seed 1", "note: so", "ignore box"):
        assert words in text


def test_results_come_back_from_both_files(case, tmp_path):
    fields, results = case
    analysed = [
        FieldResult(ImageRef(str(f.path), 200, 50), make_view(200, 50), tuple(r))
        for f, r in zip(fields, results, strict=True)
    ]
    table, document = tmp_path / "cells.csv", tmp_path / "result.json"
    with table.open("w") as file:
        rows = CellTableWriter(file, LLD_SCHEMA)
        for result in analysed:
            rows.write(result.path, result.cells)
    make_run(analysed).write(document)
    moved = [Field(Path("/elsewhere") / f.path.name, cells=f.cells) for f in fields]
    for file in (table, document):
        aligned = align(moved, read_predictions(file), str(file))
        assert [
            [(c.box, c.object_type, c.label, c.confidence) for c in cells] for cells in aligned
        ] == [[(c.box, c.object_type, c.label, c.confidence) for c in cells] for cells in results]
        pairs = pair_fields(moved, aligned, DEFAULT_TAXONOMY)
        report = evaluate_classification(moved, pairs, VOCABULARY, None, QUICK)
        assert report.questions[0].scores.accuracy == pytest.approx(16 / 18)
        assert report.questions[1].scores.accuracy == pytest.approx(17 / 18)


def test_what_is_no_results_file_is_refused(tmp_path):
    bad = tmp_path / "cells.csv"
    bad.write_text("image,x\na,1\n")
    with pytest.raises(DataError, match="no column 'y'"):
        read_predictions(bad)
    with bad.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["image", "x", "y", "w", "h", "score", "kind", "class", "class_score"],
                ["a.png", "1", "2", "3", "wide", "1", "red cell", "red cell", "1"],
            ]
        )
    with pytest.raises(DataError, match="line 2: h: 'wide', expected a finite number"):
        read_predictions(bad)
    other = tmp_path / "result.json"
    other.write_text("[]")
    with pytest.raises(DataError, match="not a result of an analysis"):
        read_predictions(other)
    other.write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        read_predictions(other)
    with pytest.raises(DataError, match="cannot be read"):
        read_predictions(tmp_path / "gone.json")


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("score", "7.5", "7.5, expected a number from 0 to 1"),
        ("score", "", "'', expected a finite number"),
        ("class_score", "-0.1", "-0.1, expected a number from 0 to 1"),
        ("class_score", "nan", "'nan', expected a finite number"),
        ("cell_size_probability", "93", "93, expected a number from 0 to 1"),
        ("w", "-4", "-4, expected a number of 0 or more"),
        ("x", "1e999", "'inf', expected a finite number"),
    ],
)
def test_a_number_of_cells_csv_that_cannot_be_is_refused_by_row_and_column(
    tmp_path, column, value, says
):
    file = tmp_path / "cells.csv"
    row = {
        **dict.fromkeys(("x", "y", "w", "h"), "4"),
        **dict.fromkeys(("score", "class_score", "cell_size_probability"), "0.5"),
        **{"image": "a.png", "kind": "red cell", "class": "red cell", "cell_size": "large"},
    }
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(row))
        writer.writeheader()
        writer.writerows([row, {**row, column: value}])
    with pytest.raises(DataError, match=re.escape(f"{file}: line 3: {column}: {says}")):
        read_predictions(file)


def test_results_of_other_images_are_refused():
    fields = [Field(Path("a.png"))]
    with pytest.raises(DataError, match="none of its 1 images"):
        align(fields, {"b.png": []}, "x")
    with pytest.raises(DataError, match=r"are both results of /z/a\.png"):
        align([Field(Path("/z/a.png"))], {"/x/a.png": [], "/y/a.png": []}, "x")


def test_results_of_another_patient_are_not_taken():
    fields = [Field(Path("/set/p1/a.png")), Field(Path("/set/p2/b.png"))]
    monocyte, basophil = found(0, "monocyte"), found(0, "basophil")
    # Both sets have a file b.png; the results are of another patient's.
    aligned = align(fields, {"out/p1/a.png": [monocyte], "out/p3/b.png": [basophil]}, "x")
    assert aligned == [[monocyte], ()]
    aligned = align(fields, {"C:\\films\\P2\\b.png": [basophil]}, "x")
    assert aligned == [(), [basophil]]
    twins = [Field(Path("/set/p1/a.png")), Field(Path("/set/p2/a.png"))]
    with pytest.raises(DataError, match=r"a\.png: may be /set/p1/a\.png and /set/p2/a\.png"):
        align(twins, {"a.png": [monocyte]}, "x")


def test_the_truth_scores_one_on_real_fields(real_data):
    from bloodfilm.formats import open_dataset

    dataset = open_dataset(real_data / "lld40x", labels="complete")
    results = [
        [CellResult(c.box, 0.9, "nucleated cell", "white cell", 1.0) for c in f.cells]
        for f in dataset
    ]
    level = parse_granularity("white-cell", DEFAULT_TAXONOMY)
    report = evaluate_detection(list(dataset), results, level, lambda _: True, 0.5, QUICK)
    # The ignore boxes were handed in as detections too, and cost nothing.
    assert report.scores.ap == pytest.approx(1.0)
    assert report.operating.missed == report.operating.false_positives == 0
    assert report.operating.dropped == sum(c.ignore for f in dataset for c in f.cells) > 100
    assert report.resampled == ("patient", 5)
