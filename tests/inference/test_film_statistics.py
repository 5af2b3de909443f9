"""Films that are far from all training films: said, and named with more care."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

import bloodfilm
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import BundleError
from bloodfilm.core.issues import codes
from bloodfilm.export.film_statistics import MIN_FIELDS, film_statistics, left_out
from bloodfilm.imaging.film_profile import FEATURES, film_profile
from bloodfilm.inference.manifest import FilmStatistics
from bloodfilm.report.html.report import write_report
from fake_bundle import draw, lay_out, write_bundle

PLACES = [(40.0, 40.0, "monocyte"), (110.0, 40.0, "lymphocyte"), (75.0, 95.0, "monocyte")]
SURE = 0.999
"""More than the fake classifier ever is."""


def a_field():
    return draw(lay_out(150, 130, PLACES), (600, 520))


def profile_of(image, model):
    """The profile as the analyser measures it."""
    result = model.analyze(image)
    boxes = {
        kind: np.array([c.box for c in result.cells if c.object_type == kind])
        for kind in ("red cell", "nucleated cell")
    }
    view = bloodfilm.canonical_view(image)
    sharpness = result.view.sharpness
    return film_profile(image, view, boxes["red cell"], boxes["nucleated cell"], sharpness)


def test_the_profile_of_a_film_does_not_depend_on_its_granulocytes():
    """A slide with few of them, and the same slide with many, are one film."""
    image = a_field()
    view = bloodfilm.canonical_view(image)
    larger = replace(
        view,
        um_per_px_x=view.um_per_px_x * 1.1,
        um_per_px_y=view.um_per_px_y * 1.1,
        red_cell_um=view.red_cell_um * 1.1,
    )
    red = [(100 * i, 100, 30, 30) for i in range(5)]
    one, other = (film_profile(image, v, red, [(160, 160, 60, 60)], 50.0) for v in (view, larger))
    assert one == pytest.approx(other)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = write_bundle(tmp_path_factory.mktemp("plain"))
    return bloodfilm.load_model(folder, device="cpu")


def model_with(folder, site, limit=1.0):
    spread = [0.05] * len(FEATURES)
    films = {
        "features": list(FEATURES), "sites": {"home": [float(v) for v in site]},
        "spread": spread, "limit": limit, "class_confidence": SURE,
    }  # fmt: skip
    write_bundle(folder)
    manifest = bloodfilm.load_bundle(folder).manifest
    manifest.with_films(FilmStatistics.model_validate(films)).write(folder)
    return bloodfilm.load_model(folder, device="cpu")


def test_a_film_like_the_training_films_is_named_as_ever(plain, tmp_path):
    image = a_field()
    model = model_with(tmp_path, profile_of(image, plain))
    mine, theirs = model.analyze(image), plain.analyze(image)
    assert issue_codes.UNFAMILIAR_FILM not in codes(mine.issues)
    assert [c.label for c in mine.cells] == [c.label for c in theirs.cells]


def test_a_film_in_another_stain_is_named_with_more_care(plain, tmp_path):
    image = a_field()
    elsewhere = profile_of(image, plain) + np.array([0, 0.3, -0.3, 0, 0.3, -0.3, 0, 0])
    model = model_with(tmp_path, elsewhere)
    result, before = model.analyze(image), plain.analyze(image)
    (found,) = [i for i in result.issues if i.code == issue_codes.UNFAMILIAR_FILM]
    assert found.severity == "warning"
    assert found.data["distance"] > found.data["limit"] == 1.0
    assert (found.data["nearest"], found.data["class_confidence"]) == ("home", SURE)
    assert [c.box for c in result.cells] == [c.box for c in before.cells]  # found as ever
    named = [c.label for c in before.cells if c.object_type == "nucleated cell"]
    now = [c.label for c in result.cells if c.object_type == "nucleated cell"]
    leaves = bloodfilm.load_bundle(tmp_path).taxonomy.leaves
    assert sum(n in leaves for n in now) < sum(n in leaves for n in named)
    for cell, was in zip(result.cells, before.cells, strict=True):
        assert cell.probabilities == was.probabilities


def test_page_one_says_so(plain, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), a_field()[..., ::-1])
    model = model_with(tmp_path / "bundle", profile_of(a_field(), plain) + 1.0)
    run = bloodfilm.analyze(tmp_path / "a.png", model)
    page = write_report(run, tmp_path / "report.html").read_text("utf-8")
    assert "far in stain or optics from every film" in page


def test_lamp_and_white_balance_do_not_change_the_colours_of_a_profile(plain):
    image = a_field()
    dim = np.clip(image * np.array([0.8, 0.7, 0.9]), 0, 255).round().astype(np.uint8)
    one, two = profile_of(image, plain), profile_of(dim, plain)
    np.testing.assert_allclose(one[:6], two[:6], atol=0.05)


def test_a_field_without_red_cells_or_nuclei_has_no_profile():
    image = a_field()
    view = bloodfilm.canonical_view(image)
    boxes = np.array([[50.0, 50, 30, 30]] * 6)
    assert film_profile(image, view, boxes, boxes[:1], 40.0) is not None
    assert film_profile(image, view, boxes[:4], boxes, 40.0) is None
    assert film_profile(image, view, boxes, boxes[:0], 40.0) is None
    assert film_profile(image, view, boxes, boxes, float("inf")) is None


def test_bundles_without_statistics_are_as_they_were(tmp_path):
    write_bundle(tmp_path)
    manifest = bloodfilm.load_bundle(tmp_path).manifest
    assert manifest.films is None and "films" not in manifest.to_json()


def test_statistics_of_other_figures_are_refused(tmp_path):
    model_with(tmp_path, [0.0] * len(FEATURES)).close()
    data = json.loads((tmp_path / "manifest.json").read_text())
    data["films"]["features"][0] = "smell"
    films = FilmStatistics.model_validate(data["films"])
    bloodfilm.load_bundle(tmp_path).manifest.with_films(films).write(tmp_path)
    with pytest.raises(BundleError, match="describes its training films by other figures"):
        bloodfilm.load_model(tmp_path)
    data["films"]["spread"] = [1.0]
    with pytest.raises(ValueError, match="one figure per feature"):
        FilmStatistics.model_validate(data["films"])


def test_the_limit_accepts_the_training_films_and_not_a_site_far_off():
    rng = np.random.default_rng(0)
    n = len(FEATURES)
    near = {f"site {i}": {"": rng.normal(0.1 * i, 1.0, (40, n))} for i in range(3)}
    profiles = near | {"far": {"": rng.normal(9.0, 1.0, (MIN_FIELDS, n))}}
    films = film_statistics(profiles, 0.8)
    assert films.class_confidence == pytest.approx(0.92)
    rows = {row.site: row for row in left_out(profiles, films)}
    assert rows["far"].far == 1.0 and rows["far"].own < 0.5
    assert all(rows[name].far < 0.2 for name in near)
    every = sum(row.own * row.fields for row in rows.values()) / 125
    assert every == pytest.approx(0.025, abs=0.01)


def test_a_slide_unlike_the_others_of_its_site_is_no_stranger():
    rng = np.random.default_rng(1)
    n = len(FEATURES)
    slides = {"1": rng.normal(0.0, 1.0, (20, n)), "2": rng.normal(12.0, 1.0, (4, n))}
    films = film_statistics({"lab": slides, "other": {"": rng.normal(30.0, 1.0, (20, n))}}, 0.8)
    assert set(films.sites) == {"lab, 1", "lab, 2", "other"}
    assert films.nearest([12.0] * n)[0] == "lab, 2" and films.nearest([12.0] * n)[1] < films.limit
    assert films.nearest([6.0] * n)[1] > films.limit
    lab = left_out({"lab": slides}, films)[0]
    assert (lab.site, lab.fields, lab.far) == ("lab", 24, 1.0)
