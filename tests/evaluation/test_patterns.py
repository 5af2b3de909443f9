"""What a film suggests: the rules, their reasons, and silence where a class cannot be named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core.results import CellResult, ModelInfo
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.evaluation.confusion_correction import METRIC, ClassConfusion
from bloodfilm.evaluation.patterns import RULES, film_patterns, patterns_of_counts, rule_table

ALL = set(DEFAULT_TAXONOMY.leaves)


def suggested(counts, **options):
    return [p.code for p in patterns_of_counts(counts, DEFAULT_TAXONOMY, **options).patterns]


@pytest.mark.parametrize(
    ("counts", "codes"),
    [
        ({"neutrophil": 60, "lymphocyte": 35, "monocyte": 5}, []),
        ({"lymphoblast": 80, "lymphocyte": 20}, ["acute-lymphoblastic", "blasts"]),
        ({"myeloblast": 50, "monoblast": 10, "neutrophil": 40}, ["acute-myeloid", "blasts"]),
        ({"abnormal promyelocyte": 60, "myeloblast": 30, "neutrophil": 10}, ["apl", "blasts"]),
        ({"myelocyte": 20, "metamyelocyte": 15, "basophil": 6, "neutrophil": 59}, ["cml"]),
        ({"myelocyte": 20, "neutrophil": 80}, []),
        ({"atypical lymphocyte": 90, "neutrophil": 10}, ["cll"]),
        ({"blast": 60, "neutrophil": 40}, ["blasts"]),
        ({"myeloblast": 10, "neutrophil": 90}, ["some-blasts"]),
        ({"lymphoblast": 10, "neutrophil": 5}, []),
    ],
)
def test_counts_suggest_the_pattern_they_are_known_for(counts, codes):
    assert suggested(counts) == codes


def test_apl_is_urgent_and_says_why():
    found = patterns_of_counts({"abnormal promyelocyte": 60, "neutrophil": 40}, DEFAULT_TAXONOMY)
    apl = found.patterns[0]
    assert apl.urgent and "emergency" in apl.note
    (reason,) = apl.reasons
    assert (reason.count, reason.total, reason.condition) == (
        60,
        100,
        "abnormal promyelocytes at least 10 %",
    )
    assert reason.low < reason.share == 0.6 < reason.high and reason.probability == 1
    assert apl.labels == ("abnormal promyelocyte",)


def test_a_pattern_is_silent_where_the_model_cannot_name_what_it_needs():
    able = ALL - {"abnormal promyelocyte", "lymphoblast", "monoblast", "promonocyte"}
    counts = {"myeloblast": 60, "lymphocyte": 40}
    found = patterns_of_counts(counts, DEFAULT_TAXONOMY, able)
    assert [p.code for p in found.patterns] == ["blasts"]
    silent = {p.code: p.missing for p in found.silent}
    assert silent["apl"] == ("abnormal promyelocyte",)
    assert silent["acute-myeloid"] == silent["acute-lymphoblastic"] == ("lymphoblast",)
    none = patterns_of_counts(counts, DEFAULT_TAXONOMY, {"lymphocyte", "segmented neutrophil"})
    assert none.patterns == () and {p.code for p in none.silent} == {r.code for r in RULES}


def test_few_cells_suggest_nothing():
    found = patterns_of_counts({"lymphoblast": 19}, DEFAULT_TAXONOMY)
    assert found.patterns == () and found.too_few and found.white == 19


def test_a_share_at_the_limit_has_half_the_support_of_a_clear_one():
    near = patterns_of_counts({"myeloblast": 42, "neutrophil": 158}, DEFAULT_TAXONOMY)
    clear = patterns_of_counts({"myeloblast": 100, "neutrophil": 100}, DEFAULT_TAXONOMY)
    supports = [{p.code: p.support for p in f.patterns}["blasts"] for f in (near, clear)]
    assert 0.5 <= supports[0] < 0.9 and supports[1] == 1


def test_open_cells_are_no_evidence_that_a_class_is_absent():
    """A film of which nearly nothing was named is no film without blasts, and no CLL."""
    counts = {"white cell": 300, "neutrophil": 10, "basophil": 5, "myelocyte": 60}
    assert suggested(counts) == []
    named = {"white cell": 5, "neutrophil": 300, "basophil": 5, "myelocyte": 60}
    assert suggested(named) == ["cml"]
    assert suggested({"lymphocyte": 60, "white cell": 40}) == []
    assert suggested({"lymphocyte": 60, "granulocyte lineage": 40}) == []
    assert suggested({"lymphocyte": 60, "neutrophil": 40}) == ["cll"]


@pytest.mark.parametrize(
    ("leaf", "first"),
    [
        ("abnormal promyelocyte", "apl"),
        ("lymphoblast", "acute-lymphoblastic"),
        ("monoblast", "acute-myeloid"),
        ("atypical lymphocyte", "cll"),
    ],
)
def test_open_cells_suggest_what_they_are_likely_to_be(leaf, first):
    likely = {leaf: 0.7, "segmented neutrophil": 0.3}
    films = [
        CellResult((40.0 * k, 0, 30, 30), 0.9, "nucleated cell", "white cell", 0.9, likely)
        for k in range(200)
    ]
    found = film_patterns(films, ModelInfo({}))
    pattern = found.patterns[0]
    assert pattern.code == first and pattern.support > 0.5
    (share,) = [r for r in pattern.reasons if r.share == pytest.approx(0.7)][:1]
    assert share.likely and share.count == 0 and share.low < 0.55  # wider than 200 cells would be
    assert pattern.rests_on(films[0], DEFAULT_TAXONOMY)
    unsure = replace(films[0], probabilities={leaf: 0.4, "segmented neutrophil": 0.6})
    assert not pattern.rests_on(unsure, DEFAULT_TAXONOMY)


def test_open_cells_are_likely_also_where_errors_are_measured():
    confusion = ClassConfusion(
        ("lymphocyte", "segmented neutrophil"), ("lymphocyte", "neutrophil"), np.eye(2) * 500
    )
    counts = {"lymphocyte": 20, "neutrophil": 30, "white cell": 150}
    expected = {"white cell": {"lymphoblast": 140.0, "lymphocyte": 10.0}}
    found = patterns_of_counts(counts, DEFAULT_TAXONOMY, None, confusion, expected=expected)
    assert found.corrected and found.patterns[0].code == "acute-lymphoblastic"
    assert found.patterns[0].reasons[0].share == pytest.approx(0.7, abs=0.01)
    assert [p.code for p in found.loud] == ["acute-lymphoblastic"]


def test_lymphocytes_suggest_nothing_where_lymphoblasts_cannot_be_told_from_them():
    found = patterns_of_counts({"lymphocyte": 100}, DEFAULT_TAXONOMY, ALL - {"lymphoblast"})
    assert found.patterns == ()
    assert {p.code: p.missing for p in found.silent}["cll"] == ("lymphoblast",)


def test_the_measured_confusion_takes_away_what_the_classifier_invents():
    true, named = ("lymphocyte", "lymphoblast"), ("lymphocyte", "lymphoblast")
    counts = np.array([[700.0, 300.0], [50.0, 950.0]])
    confusion = ClassConfusion(true, named, counts)
    film = {"lymphocyte": 140, "lymphoblast": 60}  # what 200 lymphocytes are named
    assert "blasts" in suggested(film)
    assert "blasts" not in suggested(film, confusion=confusion)


def test_cells_of_a_film_with_the_models_own_confusion():
    cells = [
        CellResult((40.0 * k, 0, 30, 30), 0.9, "nucleated cell", name, 0.9)
        for k, name in enumerate(["lymphocyte"] * 80 + ["neutrophil"] * 20)
    ] + [CellResult((0, 90, 30, 30), 0.9, "smudge cell", "smudge cell", 0.9)] * 7
    found = film_patterns(cells, ModelInfo({}))
    (cll,) = found.patterns
    assert cll.code == "cll" and cll.smudge_cells == 7 and not found.corrected
    confusion = ClassConfusion(
        ("lymphocyte", "segmented neutrophil"), ("lymphocyte", "neutrophil"), np.eye(2) * 500
    )
    measured = film_patterns(cells, ModelInfo({}, metrics={METRIC: confusion.to_json()}))
    assert measured.corrected and measured.patterns[0].reasons[0].corrected
    json.dumps(measured.to_json())


def test_the_same_counts_give_the_same_patterns():
    counts = {"myeloblast": 30, "neutrophil": 100}
    one, two = (patterns_of_counts(counts, DEFAULT_TAXONOMY).to_json() for _ in range(2))
    assert one == two


def test_the_rules_are_those_of_the_documentation():
    page = Path(__file__).parents[2] / "docs" / "cases.md"
    assert rule_table() in page.read_text("utf-8")


def test_every_rule_is_in_the_table_and_names_nodes_of_the_tree():
    table = rule_table()
    for rule in RULES:
        assert f"`{rule.code}`" in table
        for condition in rule.conditions:
            assert all(name in DEFAULT_TAXONOMY for name in condition.names)
