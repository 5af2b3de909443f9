"""Granulocytes tell how large the red cells of a folder are, and correct its scale."""

import json
from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.pixels import RED_CELL_UM, ViewRecord
from bloodfilm.core.progress import Cancellation, CancelledError
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.imaging.sources import ArraySource
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.granulocytes import (
    ENOUGH_GRANULOCYTES,
    GRANULOCYTE_UM,
    diameters_in,
    red_cell_size,
)
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import RunPlan, analyze_many
from bloodfilm.inference.slides import survey_slide
from fake_bundle import draw, lay_out, save, write_bundle
from fixtures.made_up_results import SHAPE

FIELDS = 8


@pytest.mark.parametrize("off", [0.8, 0.9, 1.1, 1.2])
def test_many_granulocytes_move_the_scale_most_of_the_way(off):
    found = red_cell_size([GRANULOCYTE_UM / off] * 60) / RED_CELL_UM
    assert 0.7 < np.log(found) / np.log(off) < 1


def test_few_granulocytes_move_it_less():
    sizes = [red_cell_size([GRANULOCYTE_UM / 1.15] * n) for n in (1, 6, 12, 100)]
    assert sizes[0] == RED_CELL_UM
    assert RED_CELL_UM < sizes[1] < sizes[2] < sizes[3]


@pytest.mark.parametrize(
    "diameters",
    [[], [9.0] * 4, [GRANULOCYTE_UM * 1.01] * 50, [6.0] * 50, [30.0] * 50],
    ids=["none", "too few", "as expected", "too small", "too large"],
)
def test_nothing_changes_without_need_or_evidence(diameters):
    assert red_cell_size(diameters) == RED_CELL_UM


def test_cells_that_vary_much_say_less():
    rng = np.random.default_rng(0)
    middle = GRANULOCYTE_UM / 1.15
    vague = middle * np.exp(rng.normal(0, 0.4, 25))
    vague *= middle / np.median(vague)
    assert RED_CELL_UM < red_cell_size(vague.tolist()) < red_cell_size([middle] * 25)


# ---- which cells ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(load_bundle(write_bundle(tmp_path_factory.mktemp("bundle"))), device="cpu")


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    place = tmp_path_factory.mktemp("granulocytes")
    for i in range(FIELDS):
        spots = [(30.0 + 2 * i + 26 * k, 40.0, "lymphocyte") for k in range(3)]
        save(place / f"{i}.png", draw(lay_out(120.0, 80.0, spots), (480, 320)))
    (place / "broken.png").write_bytes(b"not a picture")
    return sorted(place.glob("*.png"))


def as_granulocytes(result: FieldResult, px: float, **change) -> FieldResult:
    """The nucleated cells of a result as certain neutrophils of `px` pixels."""
    shape = replace(SHAPE, diameter_um=px * result.view.um_per_px_y, lobes=3)
    cell = {"probabilities": {"segmented neutrophil": 0.95}, "shape": shape, **change}
    named = [replace(c, **cell) if c.object_type == "nucleated cell" else c for c in result.cells]
    return replace(result, cells=tuple(named))


@pytest.fixture(scope="module")
def pooled_result(model, fields):
    (first,) = [r for r in [next(analyze_many(fields, model))] if isinstance(r, FieldResult)]
    assert first.view.scale_source == "pooled"
    return first


def test_certain_whole_segmented_granulocytes_count(pooled_result):
    found = diameters_in(as_granulocytes(pooled_result, 100), DEFAULT_TAXONOMY)
    assert len(found) == 3
    assert found == pytest.approx([100 * pooled_result.view.um_per_px_y] * 3)


@pytest.mark.parametrize(
    "change",
    [
        {"shape": None},
        {"shape": replace(SHAPE, lobes=1)},
        {"probabilities": {"segmented neutrophil": 0.5, "eosinophil": 0.25, "monocyte": 0.25}},
        {"issues": (issue(issue_codes.CUT_BY_EDGE, "cut"),)},
    ],
    ids=["not outlined", "one lobe", "uncertain", "cut"],
)
def test_others_do_not(pooled_result, change):
    result = as_granulocytes(pooled_result, 100, **change)
    assert diameters_in(result, DEFAULT_TAXONOMY) == []


def test_a_field_whose_scale_is_not_its_folders_says_nothing(pooled_result):
    result = as_granulocytes(pooled_result, 100)
    for source in ("measured", "assumed", "user"):
        other = replace(result, view=replace(result.view, scale_source=source))
        assert diameters_in(other, DEFAULT_TAXONOMY) == []
    no_film = replace(result, issues=(issue(issue_codes.NOT_A_FILM, "no film"),))
    assert diameters_in(no_film, DEFAULT_TAXONOMY) == []


# ---- the scale of a folder -----------------------------------------------------------------------


@pytest.fixture
def granulocyte_px(model, monkeypatch):
    """Make all nucleated cells neutrophils of a size in pixels; list what is analysed."""
    real, analysed = model.analyze, []

    def of_size(px):
        def analyze(image, **rest):
            analysed.append(image.name)
            return as_granulocytes(real(image, **rest), px)

        monkeypatch.setattr(type(model), "outlines_cells", True)
        monkeypatch.setattr(model, "analyze", analyze)
        return analysed

    return of_size


def results_of(outcomes):
    return [o for o in outcomes if isinstance(o, FieldResult)]


def test_the_scale_of_a_folder_follows_its_granulocytes(
    model, fields, pooled_result, granulocyte_px
):
    before = pooled_result.view.um_per_px_y
    granulocyte_px(GRANULOCYTE_UM / before / 1.15)
    outcomes = list(analyze_many(fields, model, workers=2))
    results = results_of(outcomes)
    assert len(results) == FIELDS and isinstance(outcomes[-1], FieldFailure)
    (size,) = {r.view.red_cell_um for r in results}
    assert RED_CELL_UM * 1.08 < size < RED_CELL_UM * 1.15
    for result in results:
        assert result.view.um_per_px_y == pytest.approx(before * size / RED_CELL_UM)
        assert result.view.scale_source == "pooled"
        # The scale was questioned once, not by the detector's red cells again.
        assert issue_codes.SCALE_CONFLICT not in {i.code for i in result.issues}


def test_the_detector_sees_red_cells_at_the_size_it_has_learnt(model, fields, granulocyte_px):
    plain = results_of(analyze_many(fields, model))
    granulocyte_px(GRANULOCYTE_UM / plain[0].view.um_per_px_y / 1.2)
    corrected = results_of(analyze_many(fields, model))
    assert corrected[0].view.red_cell_um > RED_CELL_UM
    for one, other in zip(plain, corrected, strict=True):
        assert [(c.box, c.object_type) for c in one.cells] == [
            (c.box, c.object_type) for c in other.cells
        ]


def test_nothing_is_analysed_twice_where_nothing_changes(
    model, fields, pooled_result, granulocyte_px
):
    analysed = granulocyte_px(GRANULOCYTE_UM / pooled_result.view.um_per_px_y)
    outcomes = list(analyze_many(fields, model, workers=2))
    assert sorted(set(analysed)) == sorted(analysed) and len(analysed) == FIELDS
    assert {r.view.red_cell_um for r in results_of(outcomes)} == {RED_CELL_UM}
    assert [o.path for o in outcomes] == [str(f) for f in fields]


def test_a_run_taken_up_again_comes_to_the_same_scale(model, fields, pooled_result, granulocyte_px):
    granulocyte_px(GRANULOCYTE_UM / pooled_result.view.um_per_px_y / 1.15)
    whole = list(analyze_many(fields, model, workers=3))
    rest = list(analyze_many(fields, model, workers=1, plan=RunPlan(range(5, FIELDS))))
    assert [r.to_json() for r in rest] == [r.to_json() for r in whole[5:FIELDS]]


def test_a_run_taken_up_again_analyses_no_sample_again(
    model, fields, pooled_result, granulocyte_px
):
    analysed, samples = granulocyte_px(GRANULOCYTE_UM / pooled_result.view.um_per_px_y / 1.15), {}
    plan = RunPlan(on_sample=samples.__setitem__)
    whole = list(analyze_many(fields, model, workers=3, plan=plan))
    assert [list(told) for told in samples.values()] == [["red_cell_um"]]
    analysed.clear()
    again = RunPlan(range(5, FIELDS), samples=json.loads(json.dumps(samples)))
    rest = list(analyze_many(fields, model, workers=1, plan=again))
    assert [r.to_json() for r in rest] == [r.to_json() for r in whole[5:FIELDS]]
    assert len(analysed) == FIELDS - 5


def test_a_large_folder_is_sampled(model, fields, pooled_result, granulocyte_px):
    """Once enough cells are measured, no more fields are analysed for the scale."""
    analysed = granulocyte_px(GRANULOCYTE_UM / pooled_result.view.um_per_px_y / 1.15)
    many = list(fields[:FIELDS]) * 4
    next(analyze_many(many, model, workers=1))
    assert 3 * len(analysed) < ENOUGH_GRANULOCYTES + 3 * 10


def test_a_bundle_without_outlines_measures_nothing(model, fields, monkeypatch):
    real, analysed = model.analyze, []
    monkeypatch.setattr(
        model, "analyze", lambda image, **rest: (analysed.append(1), real(image, **rest))[1]
    )
    list(analyze_many(fields, model, workers=1))
    assert len(analysed) == FIELDS


def test_a_record_keeps_the_size_where_it_was_measured(pooled_result):
    plain = pooled_result.view.to_json()
    assert "red_cell_um" not in plain
    view = replace(pooled_result.view, red_cell_um=8.25)
    assert ViewRecord.from_json(view.to_json()) == view


# ---- slides --------------------------------------------------------------------------------------


def test_a_slide_is_measured_by_the_granulocytes_of_its_windows(model, monkeypatch):
    spots = [(30.0 + 45 * i, 30.0 + 45 * j, "lymphocyte") for i in range(12) for j in range(5)]
    slide = ArraySource(
        draw(lay_out(600.0, 250.0, spots, step=13.0, keep_away=12.0), (2400, 1000), 0.25),
        name="slide",
    )
    analyzer = model.analyzer
    before = survey_slide(slide, analyzer).view
    assert before.scale_source == "pooled" and before.red_cell_um == RED_CELL_UM
    real, px = analyzer.analyze_part, GRANULOCYTE_UM / before.um_per_px_y / 1.15

    def analyze_part(image, view, *rest, **named):
        part = real(image, view, *rest, **named)
        shape = replace(SHAPE, diameter_um=px * view.um_per_px_y)
        known = {"probabilities": {"eosinophil": 0.9}, "shape": shape}
        return replace(part, cells=[replace(cell, **known) for cell in part.cells])

    monkeypatch.setattr(type(analyzer), "outlines_cells", True)
    monkeypatch.setattr(analyzer, "analyze_part", analyze_part)
    after = survey_slide(slide, analyzer).view
    assert 1.08 < after.red_cell_um / RED_CELL_UM < 1.15
    for axis in ("um_per_px_x", "um_per_px_y"):
        change = getattr(after, axis) / getattr(before, axis)
        assert change == pytest.approx(after.red_cell_um / RED_CELL_UM)


def test_the_sample_reports_how_far_it_is_and_can_be_stopped(model, fields, granulocyte_px):
    seen = []

    class Follow(Cancellation):
        def update(self, stage, done, total):
            seen.append((stage, done, total))
            if stage == "scale":
                self.cancel()

    granulocyte_px(10.0)
    with pytest.raises(CancelledError):
        list(analyze_many(fields, model, progress=Follow()))
    assert seen[0][0] == "scale" and 0 < seen[0][1] <= seen[0][2] == FIELDS + 1
