"""Cells of a folder, and of a slide, are named by their film where the bundle can."""

import json
from contextlib import closing
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import FieldResult
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.inference import runner
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.film_offset import FilmNaming, FilmOffset, offset_of
from bloodfilm.inference.manifest import FilmOffsetSpec
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import RunPlan, analyze_many
from bloodfilm.inference.slides import SlideSelection, SlideView, analyze_slide, survey_slide
from fake_bundle import draw, lay_out, save
from learnable import film_network, write_film_bundle

FIELDS, CELLS = 12, 3
SIZE = 4


def spec(least):
    return FilmOffsetSpec(size=SIZE, least_cells=least)


def test_the_offset_is_the_mean_of_what_the_cells_differ_by():
    rows = [np.full((2, SIZE), 1.0, np.float32), np.full((1, SIZE), 4.0, np.float32)]
    offset = offset_of(rows, spec(3))
    assert offset.cells == 3 and offset.values.tolist() == [2.0] * SIZE
    assert offset_of(rows, spec(4)) is None and offset_of([], spec(1)) is None


def test_an_offset_survives_its_file():
    offset = FilmOffset(np.array([0.1, -3.25e-5], np.float32), 31)
    again = FilmOffset.from_json(offset.to_json())
    assert again.cells == 31 and (again.values == offset.values).all()


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"cells": 3},
        {"cells": 3, "values": "x"},
        {"cells": 3, "values": [[1.0]]},
        {"cells": 3, "values": [float("nan")]},
        {"cells": 0, "values": [1.0]},
        {"cells": "3", "values": [1.0]},
    ],
)
def test_what_is_no_offset_is_refused(data):
    with pytest.raises(DataError, match=r"film offset|cells"):
        FilmOffset.from_json(data)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = write_film_bundle(tmp_path_factory.mktemp("bundle"), film_network())
    loaded = load_bundle(folder)
    fewer = FilmOffsetSpec(size=loaded.manifest.classifier.film_offset.size, least_cells=10)
    loaded.manifest.with_film_offset(fewer).write(folder)
    return load_bundle(folder)


@pytest.fixture
def model(bundle):
    with Model(bundle) as model:
        yield model


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    for number in range(FIELDS):
        places = [(20.0 + 25 * i, 18.0 + 2 * (number % 5), ("monocyte", "lymphocyte")[i % 2])
                  for i in range(CELLS)]  # fmt: skip
        discs = lay_out(90.0, 70.0, places, step=13.0, keep_away=13.0)
        save(folder / f"f{number:02}.png", draw(discs, (360, 280)))
    return sorted(folder.iterdir())


def named(results):
    return [[cell.probabilities for cell in r.cells] for r in results]


def test_a_folder_is_named_by_what_its_cells_have_in_common(model, fields):
    results = list(analyze_many(fields, model, workers=2))
    assert all(isinstance(r, FieldResult) and r.cells for r in results)
    (cells,) = {r.view.film_cells for r in results}
    assert cells >= 10
    alone = [model.analyze(f) for f in fields]
    assert {r.view.film_cells for r in alone} == {0}
    assert named(results) != named(alone)
    for one, other in zip(results, alone, strict=True):  # nothing but names follows the film
        assert [c.confidence for c in one.cells] == [c.confidence for c in other.cells]
        assert [c.attributes for c in one.cells] == [c.attributes for c in other.cells]


def test_the_offset_is_the_mean_of_the_cells_that_are_reported(model, fields):
    residuals = []
    for path in fields:
        film = FilmNaming(residuals=[])
        cells = [c for c in model.analyze(path, film=film).cells if c.nucleated_probability is None]
        assert len(film.residuals) <= len(cells)
        residuals += film.residuals
    offset = offset_of(residuals, model.film_offset)
    results = list(analyze_many(fields, model))
    assert results[0].view.film_cells == offset.cells
    by_hand = [model.analyze(f, film=FilmNaming(offset)) for f in fields]
    for one, other in zip(named(results), named(by_hand), strict=True):
        for p, q in zip(one, other, strict=True):
            assert p == pytest.approx(q, abs=1e-4)


def test_few_cells_are_named_one_by_one_and_analysed_once(model, fields, monkeypatch):
    real, analysed = model.analyze, []
    monkeypatch.setattr(
        model, "analyze", lambda image, **rest: (analysed.append(1), real(image, **rest))[1]
    )
    results = list(analyze_many(fields[:2], model))
    assert {r.view.film_cells for r in results} == {0} and len(analysed) == 2


def test_what_shows_no_film_says_nothing_of_it(model, fields, monkeypatch):
    real = model.analyze

    def no_film(image, **rest):
        result = real(image, **rest)
        return replace(result, issues=(*result.issues, issue(issue_codes.NOT_A_FILM, "no film")))

    monkeypatch.setattr(model, "analyze", no_film)
    assert {r.view.film_cells for r in analyze_many(fields, model)} == {0}


def test_a_run_taken_up_again_names_cells_the_same(model, fields):
    whole = list(analyze_many(fields, model, workers=3))
    rest = list(analyze_many(fields, model, workers=1, plan=RunPlan(range(5, FIELDS))))
    assert [r.to_json() for r in rest] == [r.to_json() for r in whole[5:]]


def test_a_run_taken_up_again_analyses_no_film_again(model, fields, monkeypatch):
    samples, real, analysed = {}, model.analyze, []
    plan = RunPlan(on_sample=samples.__setitem__)
    whole = list(analyze_many(fields, model, workers=3, plan=plan))
    assert samples["film of 0"]["offset"]["cells"] == whole[0].view.film_cells
    monkeypatch.setattr(
        model, "analyze", lambda image, **rest: (analysed.append(1), real(image, **rest))[1]
    )
    again = RunPlan(range(5, FIELDS), samples=json.loads(json.dumps(samples)))
    rest = list(analyze_many(fields, model, workers=1, plan=again))
    assert [r.to_json() for r in rest] == [r.to_json() for r in whole[5:]]
    assert len(analysed) == FIELDS - 5


def test_a_scale_whose_film_is_unknown_is_measured_again(model, fields, monkeypatch):
    """The fields of its sample bear on the film: fewer of them would give another offset."""
    monkeypatch.setattr(type(model), "outlines_cells", True)
    monkeypatch.setattr(runner, "ENOUGH_CELLS", 10)  # the scale wants granulocytes, and finds none
    samples = {}
    plan = RunPlan(on_sample=samples.__setitem__)
    whole = list(analyze_many(fields, model, plan=plan))
    scale = {name: told for name, told in samples.items() if name.startswith("scale")}
    assert scale and len(samples) == 2
    again = RunPlan(range(5, FIELDS), samples=scale)
    rest = list(analyze_many(fields, model, plan=again))
    assert [r.to_json() for r in rest] == [r.to_json() for r in whole[5:]]


def test_two_folders_are_two_films(model, fields, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for path in fields[:6]:
        (other / path.name).write_bytes(path.read_bytes())
    results = list(analyze_many([*fields[6:], *sorted(other.iterdir())], model))
    first, second = results[:6], results[6:]
    assert {r.view.film_cells for r in first} != {0} != {r.view.film_cells for r in second}
    assert named(second) == named(analyze_many(sorted(other.iterdir()), model))


def test_a_fixed_input_follows_no_film(bundle):
    with Model(bundle, fixed_input=256) as model:
        assert model.film_offset is None


def test_a_record_keeps_the_cells_of_the_film_where_there_are_any(model, fields):
    plain = model.analyze(fields[0]).view
    assert "film_cells" not in plain.to_json()
    view = replace(plain, film_cells=44)
    assert ViewRecord.from_json(view.to_json()) == view


def test_a_slide_is_one_film(model, tmp_path):
    spots = [(30.0 + 45 * i, 30.0 + 45 * j, "lymphocyte") for i in range(12) for j in range(5)]
    pixels = draw(lay_out(600.0, 250.0, spots, step=13.0, keep_away=12.0), (2400, 1000), 0.25)
    path = tmp_path / "slide.tif"
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib", "metadata": None}
        dots = {"resolution": (4e4, 4e4), "resolutionunit": "CENTIMETER"}
        file.write(pixels, subifds=1, **common, **dots)
        file.write(cv2.resize(pixels, None, fx=0.25, fy=0.25), subfiletype=1, **common)
    with closing(open_slide(path)) as slide:
        view = survey_slide(slide, model.analyzer)
        assert view.film is not None and view.film.cells >= 10
        again = SlideView.from_json(view.to_json())
        assert (again.film.values == view.film.values).all()
        result = analyze_slide(slide, model.analyzer, SlideSelection(region=Region.everything()))
    assert result.view.film_cells == view.film.cells


def test_one_folder_can_hold_several_films(model, fields):
    films = [number % 2 for number in range(FIELDS)]
    results = list(analyze_many(fields, model, plan=RunPlan(films=films)))
    for film in (0, 1):
        alone = list(analyze_many(fields[film::2], model))
        for one, other in zip(named(results[film::2]), named(alone), strict=True):
            for p, q in zip(one, other, strict=True):
                assert p == pytest.approx(q, abs=1e-3)
    assert named(results) != named(analyze_many(fields, model))
    with pytest.raises(ValueError, match="2 films"):
        next(analyze_many(fields, model, plan=RunPlan(films=[0, 1])))
