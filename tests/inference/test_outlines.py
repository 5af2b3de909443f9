"""Shapes from the maps of an outline graph: where they lie, and what they measure."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.core.results import CellShape
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.inference.outlines import CellOutliner
from fake_outlines import SPEC, Drawn

VIEW = CanonicalView(
    um_per_px_x=0.1,
    um_per_px_y=0.1,
    white_point=(245.0, 245.0, 245.0),
    red_cells=50,
    confidence=1.0,
    scale_source="user",
    aspect_source="user",
    width=400,
    height=300,
)


def outline(boxes, view=VIEW, graph=None, image=None):
    image = np.full((view.height, view.width, 3), 245, np.uint8) if image is None else image
    return CellOutliner(SPEC, graph or Drawn()).outline(view, image, np.array(boxes, float))


def bounds(polygon):
    xy = np.array(polygon)
    return (*xy.min(axis=0), *xy.max(axis=0))


def test_an_outline_fills_its_box_and_is_measured_in_micrometres():
    (shape,) = outline([(100, 50, 120, 120)])
    assert bounds(shape.outline) == pytest.approx((100, 50, 220, 170), abs=1.5)
    assert bounds(shape.nucleus[0]) == pytest.approx((130, 80, 190, 140), abs=1.5)
    assert shape.area_um2 == pytest.approx(np.pi * 6**2, rel=0.02)
    assert shape.nucleus_area_um2 == pytest.approx(np.pi * 3**2, rel=0.04)
    assert shape.diameter_um == pytest.approx(12, rel=0.01)
    assert (shape.length_um, shape.width_um) == pytest.approx((12, 12), rel=0.03)
    assert shape.nucleus_ratio == pytest.approx(0.25, abs=0.01)
    assert shape.lobes == 1 and shape.circularity > 0.97 and shape.nucleus_circularity > 0.95


def test_pixels_that_are_not_square_do_not_distort_a_round_cell():
    view = replace(VIEW, um_per_px_x=0.2)
    (shape,) = outline([(100, 50, 60, 120)], view)
    assert bounds(shape.outline) == pytest.approx((100, 50, 160, 170), abs=1.5)
    assert shape.diameter_um == pytest.approx(12, rel=0.01) and shape.circularity > 0.97


def test_every_cell_gets_its_own_shape_in_order():
    boxes = [(20 + 15 * i, 30, 40 + 2 * i, 40 + 2 * i) for i in range(11)]
    shapes = outline(boxes)
    assert len(shapes) == 11
    for box, shape in zip(boxes, shapes, strict=True):
        assert shape.diameter_um == pytest.approx(box[2] * 0.1, rel=0.02)
    assert outline(np.zeros((0, 4))) == []


@pytest.mark.parametrize("at", [(-14, 0), (14, 9), (0, -16), (-17, 17)])
def test_a_cell_beside_the_middle_of_its_box_is_outlined_where_it_is(at):
    (here,) = outline([(100, 50, 120, 120)])
    (there,) = outline([(100, 50, 120, 120)], graph=Drawn(at=at))
    moved = np.array(here.outline).mean(axis=0) + 2 * np.array(at)
    assert np.array(there.outline).mean(axis=0) == pytest.approx(moved, abs=0.5)
    assert there.nucleus_ratio == pytest.approx(here.nucleus_ratio, abs=0.005)
    if max(np.abs(at)) < 17:
        assert there.area_um2 == pytest.approx(here.area_um2, rel=0.005)


@pytest.mark.parametrize(
    ("half_axes", "agreement", "settled"),
    [
        ((30.0, 30.0), 0.7, (100, 50, 120, 120)),  # both agree
        ((22.5, 22.5), 0.7, (107.5, 57.5, 105, 105)),  # an outline of 90 px in a box of 120
        ((22.5, 22.5), 0.5, (100, 50, 120, 120)),  # within what is agreement here
        ((22.5, 22.5), 0.0, (100, 50, 120, 120)),  # a bundle of before
    ],
)
def test_a_box_that_the_outline_does_not_support_is_averaged_with_it(half_axes, agreement, settled):
    spec = SPEC.model_copy(update={"box_agreement": agreement})
    outliner, box = CellOutliner(spec, Drawn(cell=half_axes)), (100.0, 50.0, 120.0, 120.0)
    image = np.full((VIEW.height, VIEW.width, 3), 245, np.uint8)
    (shape,) = outliner.outline(VIEW, image, np.array([box]))
    assert outliner.settled_box(box, shape) == pytest.approx(settled, abs=1.0)
    assert outliner.settled_box(box, None) == box


def test_specks_around_a_cell_change_nothing():
    (alone,) = outline([(100, 50, 120, 120)])
    specks = [(-44, -44), (44, 40), (0, 42)]
    (among,) = outline([(100, 50, 120, 120)], graph=Drawn(speck=specks))
    assert np.array(among.outline) == pytest.approx(np.array(alone.outline), abs=1e-9)
    assert len(among.nucleus) == len(alone.nucleus) == 1
    assert np.array(among.nucleus[0]) == pytest.approx(np.array(alone.nucleus[0]), abs=1e-9)
    assert among.area_um2 == alone.area_um2 and among.lobes == alone.lobes
    assert among.circularity == pytest.approx(alone.circularity)


def test_outlines_stay_inside_the_picture():
    (shape,) = outline([(-20, 250, 100, 100)])
    left, top, right, bottom = bounds(shape.outline)
    assert left >= 0 and bottom <= 300 and right > 70 and top < 260


def test_no_cell_in_the_map_is_no_outline():
    assert outline([(100, 50, 120, 120)], graph=Drawn(cell=(1e-3, 1e-3))) == [None]
    # A speck is no outline of a cell that fills its box.
    assert outline([(100, 50, 120, 120)], graph=Drawn(cell=(9.0, 9.0))) == [None]


def test_a_cell_without_a_visible_nucleus_has_none():
    (shape,) = outline([(100, 50, 120, 120)], graph=Drawn(nucleus=(1e-3, 1e-3)))
    assert shape.nucleus == () and shape.lobes == 0 and shape.nucleus_area_um2 == 0
    assert shape.nucleus_rgb is None and shape.nucleus_circularity is None


def test_colours_are_white_balanced_means():
    image = np.full((300, 400, 3), (200, 220, 240), np.uint8)
    y, x = np.mgrid[:300, :400] + 0.5
    image[np.hypot(x - 160, y - 110) < 60] = (150, 160, 200)
    image[np.hypot(x - 160, y - 110) < 30] = (80, 40, 120)
    view = replace(VIEW, white_point=(200.0, 220.0, 240.0))
    (shape,) = outline([(100, 50, 120, 120)], view, image=image)
    assert shape.nucleus_rgb == pytest.approx((80 * 245 / 200, 40 * 245 / 220, 122), abs=4)
    assert shape.cytoplasm_rgb == pytest.approx((150 * 245 / 200, 160 * 245 / 220, 204), abs=6)


def test_a_shape_survives_json():
    (shape,) = outline([(100, 50, 120, 120)])
    again = CellShape.from_json(shape.to_json())
    assert again.to_json() == shape.to_json()
    assert again.area_um2 == pytest.approx(shape.area_um2, abs=0.01)
    broken = {**shape.to_json(), "outline": [1.0, 2.0, 3.0]}
    with pytest.raises(DataError, match="outline of 3 numbers"):
        CellShape.from_json(broken)
