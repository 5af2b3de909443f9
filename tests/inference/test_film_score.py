"""The film score: high where cells account for the picture, low for anything else."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from bloodfilm.core.results import FieldResult, ImageRef
from bloodfilm.imaging.canonical import CanonicalView, canonical_view
from bloodfilm.imaging.field_of_view import RoundField
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.film_score import MIN_FILM_SCORE, FilmScore, film_score
from bloodfilm.inference.model import load_model
from bloodfilm.synthetic import render_field
from fake_bundle import Disc, dark, draw, lay_out, write_bundle
from imaging.drawing import ellipse
from inference.other_pictures import PICTURES, gradient, smear

NONE = np.zeros((0, 4))


def film(nucleated: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn film, the boxes of its red cells and those of its nucleated ones."""
    image = np.full((400, 500, 3), 235, np.uint8)
    red, white = [], []
    for number, (x, y) in enumerate((x, y) for x in range(30, 480, 48) for y in range(30, 380, 48)):
        of, size, ink = (
            (white, 44, (90, 40, 120)) if number < nucleated else (red, 38, (200, 140, 140))
        )
        ellipse(image, (x, y), (size, size), (1, 1, 0), ink)
        of.append((x - size / 2, y - size / 2, size, size))
    return image, np.array(red), np.array(white).reshape(-1, 4)


def view_of_film(image: np.ndarray) -> CanonicalView:
    height, width = image.shape[:2]
    return CanonicalView(
        0.2, 0.2, (235.0, 235.0, 235.0), 20, 0.9, "measured", "measured", width, height
    )


def test_a_film_is_explained_by_its_cells() -> None:
    image, red, white = film()
    score = film_score(image, view_of_film(image), red, white, NONE)
    assert score.explained > 0.97
    assert score.red_share == pytest.approx(len(red) / (len(red) + 1))
    assert score.red_cells_per_area == pytest.approx(len(red) / (0.04 * 400 * 500 / 1e4), rel=0.03)
    assert score.score > 0.9 and not score.empty


def test_what_cells_do_not_explain_lowers_the_score() -> None:
    image, red, white = film()
    half = film_score(image, view_of_film(image), red[::2], white, NONE)
    assert 0.4 < half.explained < 0.6
    assert film_score(image, view_of_film(image), NONE, NONE, NONE).score == 0


def test_few_cells_on_much_glass_are_a_film() -> None:
    image, red, white = film()
    wide = np.full((1600, 2000, 3), 235, np.uint8)
    wide[:400, :500] = image
    score = film_score(wide, view_of_film(wide), red, white, NONE)
    assert score.red_cells_per_area < 15
    assert score.score > 0.9


def test_only_the_disc_of_a_round_field_counts() -> None:
    image, red, white = film()
    disc = RoundField(250, 200, 120)
    centre = red[:, :2] + red[:, 2:] / 2
    inside = red[np.hypot(*(centre - [250, 200]).T) < 120]
    score = film_score(
        image, replace(view_of_film(image), round_field=disc), inside, white[:0], NONE
    )
    whole = film_score(image, view_of_film(image), red, white, NONE)
    assert score.red_cells_per_area == pytest.approx(whole.red_cells_per_area, rel=0.2)
    assert score.covered == pytest.approx(whole.covered, rel=0.2)
    assert score.explained > 0.85


def test_nuclei_without_red_cells_are_no_film() -> None:
    image, red, white = film(nucleated=50)
    assert film_score(image, view_of_film(image), red, white, NONE).score < MIN_FILM_SCORE


def test_bare_glass_is_empty() -> None:
    image = np.full((300, 300, 3), 235, np.uint8)
    assert film_score(image, view_of_film(image), NONE, NONE, NONE).empty


def test_the_score_is_a_product_in_its_range() -> None:
    assert FilmScore(1.0, 500.0, 1.0, 0.5).score == 1
    assert FilmScore(0.8, 15.0, 0.5, 0.5).score == pytest.approx(0.2)
    assert FilmScore(0.96, 15.0, 0.5, 0.5).score == pytest.approx(0.24)


def test_fields_without_scale_or_film_are_not_countable() -> None:
    from bloodfilm.core.issue_codes import issue

    record = canonical_view(film()[0]).record()
    for code in (issue_codes.SCALE_ASSUMED, issue_codes.NOT_A_FILM):
        result = FieldResult(ImageRef("x.png", 500, 400, "0" * 64), record, (), (issue(code, "x"),))
        assert not result.countable
    fine = FieldResult(ImageRef("x.png", 500, 400, "0" * 64), record, ())
    assert fine.countable


def test_cells_without_any_red_cell_are_refused_by_name(tmp_path: Path) -> None:
    nuclei = [Disc(x, y, 12.0, dark("lymphocyte")) for x in (30, 70, 110) for y in (30, 70)]
    with load_model(write_bundle(tmp_path / "bundle"), device="cpu") as model:
        result = model.analyze(draw(nuclei, (560, 400)), prior=ScalePrior(0.25, 1.0))
        bare = model.analyze(draw([], (560, 400)), prior=ScalePrior(0.25, 1.0))
    assert len(result.cells) == len(nuclei) and result.view.film_score == 0
    assert issue_codes.NOT_A_FILM in codes(result.issues)
    assert not result.countable
    assert "does not look like a blood film" in " ".join(map(str, result.issues))
    assert issue_codes.NO_CELLS in codes(bare.issues)
    assert issue_codes.NOT_A_FILM not in codes(bare.issues)
    assert bare.view.film_score is None


@pytest.mark.slow
def test_the_shipped_model_refuses_every_picture_whose_score_is_too_low() -> None:
    """Which pictures that are is a figure of `benchmarks/film_score.py`."""
    rng = np.random.default_rng(7)
    with load_model(device="cpu") as model:
        for name, drawn in {**PICTURES, "gradient": gradient}.items():
            result = model.analyze(drawn(rng))
            score = result.view.film_score
            low = score is not None and score < MIN_FILM_SCORE
            assert (issue_codes.NOT_A_FILM in codes(result.issues)) == low, name
            assert not (low and result.countable), name


@pytest.mark.slow
def test_the_shipped_model_tells_thin_cells_with_nuclei_from_red_cells() -> None:
    with load_model(device="cpu") as model:
        result = model.analyze(smear(np.random.default_rng(11)))
        films = [
            model.analyze(render_field(name, seed=11)[0]) for name in ("pbc-like", "lld40x-like")
        ]
    assert len([c for c in result.cells if c.object_type == "red cell"]) > 5
    assert issue_codes.NOT_A_FILM in codes(result.issues) and not result.countable
    assert "has something dark in its middle" in " ".join(map(str, result.issues))
    for film in films:
        assert film.view.film_score is not None and film.view.film_score > MIN_FILM_SCORE
        assert issue_codes.NOT_A_FILM not in codes(film.issues)


# ---- what the classifier says of the red cells -------------------------------------------------


def test_red_cells_unlike_any_learnt_are_no_film() -> None:
    alike = FilmScore(1.0, 500.0, 1.0, 0.5)
    assert alike.with_answers(1.0, limit=2.0).score == 1
    assert alike.with_answers(2.2, limit=2.0).score == pytest.approx(0.5)
    assert alike.with_answers(2.4, limit=2.0).score == 0


def test_the_classifier_is_asked_where_there_is_doubt() -> None:
    image, red, white = film()
    view = view_of_film(image)
    assert not film_score(image, view, red, white, NONE).is_doubtful
    assert not film_score(image, view, red, NONE, red[:1]).is_doubtful
    assert film_score(image, view, red, NONE, NONE).is_doubtful
    assert film_score(image, view, red[::2], NONE, red[:1]).is_doubtful
    assert not film_score(image, view, red[::2], white, NONE).is_doubtful


@pytest.mark.parametrize("limit", [None, 0.9, 0.1])
def test_the_bundle_knows_how_unlike_red_cells_are_at_most(
    tmp_path: Path, limit: float | None
) -> None:
    def changed(data: dict[str, Any]) -> None:
        data["reader"]["red_cell_novelty"] = limit

    bundle = write_bundle(tmp_path / "bundle", changed)
    with load_model(bundle, device="cpu") as model:
        result = model.analyze(draw(lay_out(140, 100), (560, 400)))
        middles = [c for c in result.cells if c.object_type == "red cell"]
    assert middles
    refused = issue_codes.NOT_A_FILM in codes(result.issues)
    assert refused == (limit == 0.1)  # to this classifier, novelty is how green a crop's middle is


# ---- colour and variation of the red cells -----------------------------------------------------


def discs(inks: list[tuple[int, int, int]], noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Discs on a grid, their colours in turn, and their boxes."""
    image = np.full((400, 500, 3), 235, np.uint8)
    boxes = []
    places = ((x, y) for x in range(30, 480, 48) for y in range(30, 380, 48))
    for number, (x, y) in enumerate(places):
        ellipse(image, (x, y), (38, 38), (1, 1, 0), inks[number % len(inks)])
        boxes.append((x - 19, y - 19, 38, 38))
    rng = np.random.default_rng(0)
    shade = 1 + noise * rng.normal(size=(*image.shape[:2], 1))
    image = np.clip(235 - (235.0 - image) * shade, 0, 255).astype(np.uint8)
    return image, np.array(boxes, dtype=float)


ONE = np.array([[30.0, 30.0, 38.0, 38.0]])
PINK, SLATE, GOLD, GREEN = (205, 140, 150), (95, 125, 175), (205, 170, 60), (110, 190, 90)


@pytest.mark.parametrize("ink", [PINK, SLATE, (150, 150, 150)])
def test_colours_that_red_cells_have(ink: tuple[int, int, int]) -> None:
    image, boxes = discs([ink])
    score = film_score(image, view_of_film(image), boxes[1:], ONE, NONE)
    assert score.colour == 1.0 and score.score > 0.9


@pytest.mark.parametrize("inks", [[GOLD], [GREEN], [PINK, (230, 120, 210), (150, 120, 150)]])
def test_other_colours_and_several_at_once_are_no_film(inks: list[tuple[int, int, int]]) -> None:
    image, boxes = discs(inks)
    score = film_score(image, view_of_film(image), boxes[1:], ONE, NONE)
    assert score.colour == 0.0 and score.score == 0.0


def test_perfectly_even_discs_without_any_other_cell_are_doubted_not_refused() -> None:
    image, boxes = discs([PINK])
    view = view_of_film(image)
    alone = film_score(image, view, boxes, NONE, NONE)
    assert MIN_FILM_SCORE < alone.score <= 0.5
    assert film_score(image, view, boxes, NONE, ONE).score == pytest.approx(2 * alone.score)
    rough, boxes = discs([PINK, (190, 120, 130)], noise=0.6)
    sizes = 38 * np.exp(0.08 * np.random.default_rng(1).normal(size=(len(boxes), 2)))
    boxes = np.column_stack([boxes[:, :2] + 19 - sizes / 2, sizes])
    assert film_score(rough, view, boxes, NONE, NONE).variation > 0.9


def test_the_colour_of_very_pale_cells_is_no_evidence() -> None:
    image, boxes = discs([(225, 222, 212), (215, 228, 226)])
    assert film_score(image, view_of_film(image), boxes[1:], ONE, NONE).colour == 1.0


def test_pale_cells_of_several_colours_are_no_film() -> None:
    image, boxes = discs([(160, 220, 200), (230, 190, 170), (180, 190, 235)])
    score = film_score(image, view_of_film(image), boxes[1:], ONE, NONE)
    assert score.colour == 0.0 and score.is_doubtful is False


def test_coloured_light_over_the_field_is_no_colour_of_the_cells() -> None:
    image, boxes = discs([PINK])
    x, y = np.meshgrid(np.linspace(-1, 1, 500), np.linspace(-1, 1, 400))
    tint = np.stack([1 - 0.14 * x**2, 1 - 0.1 * x * y, 1 - 0.16 * y**2], axis=-1)
    lit = np.clip(image * tint, 0, 255).astype(np.uint8)
    assert film_score(lit, view_of_film(lit), boxes[1:], ONE, NONE).colour == 1.0
    mixed, boxes = discs([(205, 140, 150), (230, 110, 215), (120, 150, 230)])
    lit = np.clip(mixed * tint, 0, 255).astype(np.uint8)
    assert film_score(lit, view_of_film(lit), boxes[1:], ONE, NONE).colour == 0.0


# ---- what red cells are made of ----------------------------------------------------------------


def scored(image: np.ndarray, boxes: np.ndarray, view: CanonicalView | None = None) -> FilmScore:
    """The score of a drawn field with red cells and one platelet."""
    return film_score(image, view or view_of_film(image), boxes[1:], NONE, boxes[:1])


def with_middles(image: np.ndarray, boxes: np.ndarray, size: float, ink: object) -> np.ndarray:
    """The image with a spot in the middle of every box."""
    changed = image.copy()
    for x, y, w, h in boxes:
        ellipse(changed, (x + w / 2, y + h / 2), (size, size), (1, 1, 0), ink)
    return changed


def test_cells_with_a_nucleus_are_no_red_cells() -> None:
    image, boxes = discs([PINK])
    assert scored(image, boxes).score > 0.9
    nucleated = scored(with_middles(image, boxes, 10, (80, 50, 120)), boxes)
    assert nucleated.anucleate == 0.0 and nucleated.score == 0.0 and nucleated.is_doubtful
    # Central pallor, and the darker middle of a target cell.
    for middle in ((228, 215, 215), (190, 118, 130)):
        assert scored(with_middles(image, boxes, 12, middle), boxes).anucleate == 1.0


def test_rings_and_holes_hold_no_dye() -> None:
    image, boxes = discs([PINK])
    assert scored(with_middles(image, boxes, 20, (225, 200, 205)), boxes).alike == 1.0
    rings = scored(with_middles(image, boxes, 34, (235, 235, 235)), boxes)
    assert rings.alike == 0.0 and rings.score == 0.0


def test_red_cells_hold_nearly_as_much_dye_as_each_other() -> None:
    varied = [(215, 165, 170), PINK, (195, 115, 130)]
    image, boxes = discs(varied)
    assert scored(image, boxes).alike == 1.0
    image, boxes = discs([*[(230, 218, 221)] * 5, (140, 20, 40)])
    assert scored(image, boxes).alike < 0.5


def test_unequal_red_cells_beside_a_nucleated_cell_are_doubted_not_refused() -> None:
    unequal = FilmScore(1.0, 500.0, 1.0, 0.5, alike=0.0)
    assert unequal.score == 0.0
    assert replace(unequal, nucleated=True).score == pytest.approx(0.6)


def of_sizes(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Discs whose diameters vary by a standard deviation, as a share, and their boxes."""
    image, boxes = discs([PINK])
    image[:] = 235
    sizes = 30 * np.exp(spread * np.random.default_rng(3).normal(size=len(boxes)))
    centres = boxes[:, :2] + 19
    for number, (at, size) in enumerate(zip(centres, sizes, strict=True)):
        ink = ((215, 165, 170), PINK, (195, 115, 130))[number % 3]
        ellipse(image, tuple(at), (size, size), (1, 1, 0), ink)
    return image, np.column_stack([centres - sizes[:, None] / 2, sizes, sizes])


def test_red_cells_are_nearly_of_one_size_and_never_quite() -> None:
    rng = np.random.default_rng(0)

    def rough(image: np.ndarray) -> np.ndarray:
        """Uneven within and among the cells, so that only their size is in question."""
        shade = 1 + 0.6 * rng.normal(size=(*image.shape[:2], 1))
        return np.clip(235 - (235.0 - image) * shade, 0, 255).astype(np.uint8)

    alone = {}
    for spread in (0.0, 0.07, 0.6):
        image, boxes = of_sizes(spread)
        noisy = rough(image)
        alone[spread] = film_score(noisy, view_of_film(noisy), boxes, NONE, NONE)
    assert alone[0.0].variation == 0.5 and alone[0.0].alike == 1.0
    assert alone[0.07].variation > alone[0.0].variation and alone[0.07].alike == 1.0
    assert alone[0.6].alike < 0.2


def test_platelets_do_not_outnumber_red_cells() -> None:
    image, boxes = discs([PINK])
    view = view_of_film(image)
    few, many = boxes[:8], boxes[8:]
    assert film_score(image, view, many, NONE, few).proportion == 1.0
    assert film_score(image, view, few, NONE, many).proportion == 0.0


@pytest.mark.parametrize(
    ("source", "ratio", "proportion"),
    [("measured", 1.78, 1.0), ("measured", 0.56, 1.0), ("measured", 2.5, 0.0), ("user", 2.5, 1.0)],
)
def test_nobody_squeezes_a_picture_beyond_measure(
    source: str, ratio: float, proportion: float
) -> None:
    image, boxes = discs([PINK])
    view = replace(view_of_film(image), um_per_px_x=0.2 * ratio, aspect_source=source)
    assert scored(image, boxes, view).proportion == proportion


def test_what_the_classifier_takes_for_nuclei_is_no_red_cell() -> None:
    alike = FilmScore(1.0, 500.0, 1.0, 0.5)
    assert alike.with_answers(1.0, limit=2.0, nucleated=-4.0).score == 1
    assert alike.with_answers(1.0, limit=2.0, nucleated=2.0).score == pytest.approx(0.5)
    assert alike.with_answers(1.0, limit=2.0, nucleated=4.0).score == 0
