"""Synthetic slides: any part can be drawn by itself, and its truth is exact."""

import numpy as np
import pytest

from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.sources.open_slide import open_slide
from bloodfilm.synthetic.slides import AREAS, LAYOUTS, SlideFilm, SlideSpec, write_slide

SPEC = SlideSpec(width=1800, height=1000, um_per_px=0.5, seed=3, white_density=300)


@pytest.fixture(scope="module")
def film():
    return SlideFilm(SPEC)


def test_cells_do_not_depend_on_how_the_slide_is_divided(film):
    whole = film.white_cells(0, 0, SPEC.width, SPEC.height)
    parts = [
        cell
        for y in range(0, SPEC.height, 250)
        for x in range(0, SPEC.width, 300)
        for cell in film.white_cells(x, y, 300, 250)
    ]
    assert len(whole) > 30
    assert sorted(c.cell.id for c in parts) == sorted(c.cell.id for c in whole)


def test_red_cells_do_not_depend_on_how_the_slide_is_divided(film):
    whole = {tuple(b) for b in film.red_boxes(700, 300, 400, 200)}
    parts = {
        tuple(b) for x in (700, 900) for y in (300, 400) for b in film.red_boxes(x, y, 200, 100)
    }
    assert whole == parts
    assert len(whole) > 100


def test_white_cells_are_where_the_truth_says(film):
    cells = [c.cell for c in film.white_cells(800, 200, 500, 600)]
    image = film.draw(800, 200, 500, 600).astype(int)
    assert cells
    for cell in cells:
        x, y, w, h = (round(v) for v in cell.box)
        part = image[max(y - 200, 0) : y - 200 + h, max(x - 800, 0) : x - 800 + w]
        # A nucleus takes green light away; nothing else of a monolayer does so as strongly.
        assert part[..., 1].min() < 140


def test_areas_look_as_they_are_called(film):
    darkness = {}
    for area in ("thick", "monolayer", "feathered"):
        x, y, w, h = film.layout.rect_of(AREAS.index(area))
        corner = round((x + w / 2) / 0.5), round((y + 0.75 * h) / 0.5)
        darkness[area] = 255 - film.draw(*corner, 200, 120).mean()
    glass = 255 - film.draw(0, 0, 200, 60).mean()
    assert darkness["thick"] > 1.5 * darkness["monolayer"] > 1.5 * darkness["feathered"] / 1.5
    assert glass < 0.5 * darkness["monolayer"]


def test_the_same_seed_draws_the_same(film):
    again = SlideFilm(SPEC)
    assert (film.draw(700, 300, 200, 200) == again.draw(700, 300, 200, 200)).all()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_slides_are_read_back(film, layout, tmp_path):
    path = tmp_path / "slide.tif"
    sizes = write_slide(film, path, layout)
    slide = open_slide(path)
    assert [(level.width, level.height) for level in slide.levels] == sizes
    assert slide.pixel_size is not None
    assert slide.pixel_size.um_per_px_x == pytest.approx(0.5, rel=1e-3)
    drawn = film.draw(512, 512, 512, 488).astype(int)
    read = slide.read_region(512, 512, 512, 488).astype(int)
    assert np.abs(drawn - read).mean() < 4
    assert list(tmp_path.iterdir()) == [path]
    slide.close()


def test_bad_slides_are_refused():
    with pytest.raises(ConfigError, match="no mix"):
        SlideSpec(width=100, height=100, mix="none")
    with pytest.raises(ConfigError, match="um per px"):
        SlideSpec(width=100, height=100, um_per_px=50)
