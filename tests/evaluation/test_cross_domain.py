"""The matrix of methods and domains: figures against counts by hand, means, gains, intervals."""

import json
import math
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    AttributeResult,
    Cell,
    CellResult,
    DataError,
    Domain,
    Field,
    Region,
)
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.cross_domain import (
    KEYS,
    Scoring,
    is_annotated_beyond_boxes,
    outcomes_of,
)
from bloodfilm.evaluation.cross_matrix import Method, TestDomain, cross_matrix
from bloodfilm.evaluation.cross_record import CrossEvaluation, show_cross
from bloodfilm.evaluation.evaluate import Resampling
from bloodfilm.report.heat_map import heat_map

FIVE = parse_granularity("five", DEFAULT_TAXONOMY)
SCORING = Scoring(DEFAULT_TAXONOMY, LLD_SCHEMA, FIVE, "nucleated cell")
QUICK = Resampling(n=60, seed=3)
SIDE = 10.0


def box(x):
    return (float(x), 0.0, SIDE, SIDE)


def found(x, leaf, p=0.9, label=None, shape="regular", score=0.8):
    answers = {"nuclear_shape": AttributeResult(shape, 0.7, {shape: 0.7})}
    rest = "basophil" if leaf != "basophil" else "eosinophil"
    held = {leaf: p, rest: 1 - p}
    return CellResult(box(x), score, "nucleated cell", label or leaf, p, held, answers)


def field(number, cells, region=None, **more):
    region = Region.everything() if region is None else region
    return Field(Path(f"{number}.png"), 400, 100, tuple(cells), region, **more)


def figures(fields, results):
    outcomes = outcomes_of(fields, results, lambda c: c.confidence >= 0.5, SCORING)
    return outcomes, dict(zip(KEYS, outcomes.figures(), strict=True))


def three_fields():
    """Two neutrophils (one missed, one right), two lymphocytes (right; named monocyte)."""
    fields = [
        field(0, [Cell(box(0), "segmented neutrophil", {"nuclear_shape": "irregular"})]),
        field(1, [Cell(box(0), "neutrophil", {"nuclear_shape": "regular"}),
                  Cell(box(50), "lymphocyte", {"nuclear_shape": "regular"})]),
        field(2, [Cell(box(0), "lymphocyte"), Cell(box(90), None, ignore=True)]),
    ]  # fmt: skip
    results = [
        [],
        [found(0, "band neutrophil"), found(50, "lymphocyte", shape="irregular")],
        [found(1, "monocyte", p=0.6, label="white cell"), found(200, "monocyte", score=0.3)],
    ]
    return fields, results


def test_figures_of_three_fields_counted_by_hand():
    outcomes, got = figures(*three_fields())
    assert outcomes.cells == 4
    assert got["found"] == 3 / 4
    # Recall of neutrophils 1/2 (one missed), of lymphocytes 1/2 (one best guess is monocyte).
    assert got["class_balanced"] == 1 / 2
    # The label "white cell" names nothing: two of three are named, both rightly.
    assert got["named"] == pytest.approx(2 / 3)
    assert got["named_right"] == 1.0
    # Irregular: 0 of 1 (missed); regular: 1 of 2.
    assert got["attribute_balanced"] == 1 / 4
    # Three bins of one cell: |0.9 - 1|, |0.9 - 1|, |0.6 - 0|, equal confidences in one bin.
    assert got["calibration_error"] == pytest.approx((0.1 + 0.1 + 0.6) / 3)
    # Three of four cells are found before the false one at 0.3.
    assert got["ap50"] == pytest.approx(76 / 101)


def test_a_cell_below_the_threshold_counts_as_missed_but_not_for_ap():
    item = field(0, [Cell(box(0), "monocyte")])
    _, got = figures([item], [[found(0, "monocyte", score=0.3)]])
    assert (got["found"], got["class_balanced"]) == (0.0, 0.0)
    assert got["ap50"] == pytest.approx(1.0)


def test_another_leaf_than_the_classes_is_a_wrong_guess():
    item = field(0, [Cell(box(0), "lymphocyte")])
    _, got = figures([item], [[found(0, "myeloblast", p=0.55)]])
    assert got["class_balanced"] == 0.0


def test_sparse_annotation_has_no_ap():
    boxed = Region.rect(*box(0))
    cells = [Cell(box(0), "monocyte")]
    results = [[found(0, "monocyte"), found(200, "monocyte", score=0.95)]]
    _, got = figures([field(0, cells, boxed)], results)
    assert math.isnan(got["ap50"])
    assert got["found"] == 1.0
    # A marked rectangle around the cell says that there is no other one in it.
    _, got = figures([field(0, cells, Region.rect(0, 0, 100, 100))], results)
    assert got["ap50"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("region", "wanted"),
    [
        (Region.everything(), True),
        (Region.nothing(), False),
        (Region.rect(*box(0)), False),
        (Region.rect(0, 0, 40, 40), True),
    ],
)
def test_what_is_annotated_beyond_its_boxes(region, wanted):
    item = field(0, [Cell(box(0), "monocyte")], region)
    assert is_annotated_beyond_boxes(item) is wanted
    assert is_annotated_beyond_boxes(replace(item, width=None)) is (region.is_everything)


def test_a_resample_is_the_sample_with_fields_repeated():
    fields, results = three_fields()
    outcomes, _ = figures(fields, results)
    weights = np.array([2, 0, 1])
    again, _ = figures([fields[0], fields[0], fields[2]], [results[0], results[0], results[2]])
    kept = [KEYS.index(k) for k in KEYS if k != "attribute_balanced"]  # has one value left
    np.testing.assert_allclose(outcomes.figures(weights)[kept], again.figures()[kept])


def test_without_a_class_or_a_cell_figures_do_not_exist():
    _, got = figures([field(0, [Cell(box(0), "white cell")])], [[found(0, "monocyte")]])
    assert (got["found"], got["ap50"]) == (1.0, pytest.approx(1.0))
    assert all(math.isnan(got[k]) for k in ("class_balanced", "named_right", "calibration_error"))


# ---- the matrix ------------------------------------------------------------------------------


def many(right_of_ten, patients=5):
    """Ten fields of one monocyte or lymphocyte each; the first so many are named rightly."""
    fields, results = [], []
    for i in range(10):
        label = ("monocyte", "lymphocyte")[i % 2]
        other = ("lymphocyte", "monocyte")[i % 2]
        fields.append(field(i, [Cell(box(0), label)], patient=f"p{i % patients}"))
        results.append([found(0, label if i < right_of_ten else other)])
    return fields, results


def matrix_of(rights, baseline=0, trained=()):
    """Two methods on two domains; `rights`: method -> domain -> of ten cells."""
    methods = [
        Method(name, {"bundle": name}, {"detector": (), "classifier": tuple(trained)})
        for name in ("plain", "ours")
    ]
    domains, outcomes = [], {}
    for d, name in enumerate(("site A", "site B")):
        fields, _ = many(10)
        domains.append(TestDomain.of_fields(name, name, fields))
        for m in range(2):
            if rights[m][d] is not None:
                outcomes[m, d] = figures(*many(rights[m][d]))[0]
    return cross_matrix(methods, domains, outcomes, baseline, QUICK)


def written(matrix):
    return CrossEvaluation("", {}, matrix).to_json()["cells"]


def test_means_and_gains():
    matrix = matrix_of([[4, 8], [6, 10]])
    means = matrix.means[1]["class_balanced"]
    assert means.in_domain is None
    assert means.out_of_domain.value == pytest.approx(0.8)
    assert means.gain.value == pytest.approx(0.8 / 0.6 - 1)
    assert means.gain.low < means.gain.value < means.gain.high
    assert matrix.means[0]["class_balanced"].gain is None
    # Nothing changes in what is found: the gain is exactly nothing in every resample.
    found_gain = matrix.means[1]["found"].gain
    assert (found_gain.value, found_gain.low, found_gain.high) == (0.0, 0.0, 0.0)
    assert matrix.means[1]["calibration_error"].gain is None


def test_domains_that_were_trained_on_are_apart():
    matrix = matrix_of([[4, 8], [6, 10]], trained=("Site_A",))
    assert matrix.new[1, 0] == {"detector": True, "classifier": True}  # another name: no match
    matrix = matrix_of([[4, 8], [6, 10]], trained=("site a",))
    assert matrix.new[1, 0] == {"detector": True, "classifier": False}
    means = matrix.means[1]["class_balanced"]
    assert means.in_domain.value == pytest.approx(0.6)
    assert means.out_of_domain.value == pytest.approx(1.0)
    assert means.gain.value == pytest.approx(1 / 0.8 - 1)
    assert means.gain_everywhere.value == pytest.approx(0.8 / 0.6 - 1)
    assert matrix.means[1]["found"].in_domain is None  # the detector was trained on neither


def test_microscopes_are_names_of_a_domain():
    item = field(0, [Cell(box(0), "monocyte")], domain=Domain("CellaVision DM96", 100))
    assert TestDomain.of_fields("x", "TXL", [item]).dataset == ("TXL", "CellaVision DM96")


def test_a_missing_pair_leaves_the_others_as_they_are():
    whole, part = matrix_of([[4, 8], [6, 10]]), matrix_of([[4, None], [6, 10]])
    assert (0, 1) not in part.cells
    assert written(part)[-1] == written(whole)[-1]
    assert part.means[1]["class_balanced"].gain.value == pytest.approx(0.6 / 0.4 - 1)
    with pytest.raises(DataError, match="no method has a result"):
        matrix_of([[None, None], [None, None]])


def test_one_group_has_a_figure_and_no_interval():
    fields, results = many(4, patients=1)
    domain = TestDomain.of_fields("lone", "lone", fields)
    outcomes = {(0, 0): figures(fields, results)[0]}
    matrix = cross_matrix([Method("m", {})], [domain], outcomes, None, QUICK)
    interval = matrix.cells[0, 0]["class_balanced"]
    assert interval.value == pytest.approx(0.4)
    assert math.isnan(interval.low)
    assert matrix.means[0]["class_balanced"].out_of_domain.value == pytest.approx(0.4)


def test_the_same_seed_gives_the_same_matrix():
    assert written(matrix_of([[4, 8], [6, 10]])) == written(matrix_of([[4, 8], [6, 10]]))


def test_record_tables_and_picture_say_the_same():
    matrix = matrix_of([[4, None], [6, 10]], trained=("site a",))
    evaluation = CrossEvaluation("bloodfilm 0", {"by": "set"}, matrix, ("a note",), {})
    record = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert (record["format"], record["version"]) == ("bloodfilm-cross-evaluation", 1)
    assert record["baseline"] == "plain"
    by = {(c["method"], c["domain"]): c for c in record["cells"]}
    assert ("plain", "site B") not in by
    assert by["ours", "site A"]["figures"]["class_balanced"]["value"] == pytest.approx(0.6)
    assert by["ours", "site A"]["new_to"] == {"detector": True, "classifier": False}
    assert by["ours", "site A"]["figures"]["attribute_balanced"]["value"] is None
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(show_cross(evaluation))
    text = console.export_text()
    assert "0.600" in text and "*" in text and "gain over plain" in text and "a note" in text
    assert "attributes" not in text  # no domain has any
    root = ET.fromstring(heat_map(matrix))
    words = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("0.600") == 4  # two figures: the square, and the mean in-domain
    assert {"site A", "site B", "plain", "ours", "mean out-of-domain"} <= set(words)


def test_names_cannot_break_the_picture():
    matrix = matrix_of([[4, 8], [6, 10]])
    rude = replace(matrix.domains[0], name='<script>"&\x1b[31m' + "x" * 99)
    text = heat_map(replace(matrix, domains=(rude, matrix.domains[1])))
    assert "<script" not in text and "\x1b" not in text
    ET.fromstring(text)
