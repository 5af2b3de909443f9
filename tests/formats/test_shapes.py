"""Shapes that were drawn: hulls in closed form, outlines, masks as polygons."""

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core import Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset
from bloodfilm.formats.shared.masks import mask_outline
from bloodfilm.formats.shared.shapes import DrawnShape, Ellipse


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 133, 180, 270])
def test_the_hull_of_an_ellipse_is_that_of_its_points(degrees):
    ellipse = Ellipse(100, 50, 30, 10, degrees)
    angle = np.linspace(0, 2 * np.pi, 100_000)
    turn = np.radians(degrees)
    x = 100 + 30 * np.cos(angle) * np.cos(turn) - 10 * np.sin(angle) * np.sin(turn)
    y = 50 + 30 * np.cos(angle) * np.sin(turn) + 10 * np.sin(angle) * np.cos(turn)
    expected = (x.min(), y.min(), np.ptp(x), np.ptp(y))
    assert ellipse.hull == pytest.approx(expected, abs=1e-5)
    area = Region.polygon(ellipse.polygon).area(200, 100)
    assert area == pytest.approx(np.pi * 300, rel=0.01)


def test_a_turned_rectangle_is_a_polygon_about_its_middle():
    drawn = DrawnShape.rectangle((90, 40, 20, 20), 45)
    half = np.sqrt(200)
    assert drawn.box == pytest.approx((100 - half, 50 - half, 2 * half, 2 * half))
    assert drawn.region.area(200, 100) == pytest.approx(400, abs=40)
    assert DrawnShape.rectangle((90, 40, 20, 20), 360).outline is None


def test_the_outline_of_a_mask_is_the_mask():
    rng = np.random.default_rng(3)
    ring = np.zeros((20, 30), bool)
    ring[3:15, 4:20] = True
    ring[6:10, 8:14] = False
    for mask in (ring, rng.random((25, 33)) > 0.5, np.ones((4, 5), bool), np.zeros((4, 5), bool)):
        height, width = mask.shape
        assert np.array_equal(mask_outline(mask).mask(width, height), mask)
    moved = mask_outline(ring, 7, 5).mask(40, 30)
    assert np.array_equal(moved[5:25, 7:37], ring)


def cvat(tmp_path, shapes):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "annotations.xml").write_text(
        f'<annotations><image id="0" name="a.png" width="200" height="100">{shapes}</image>'
        "</annotations>"
    )
    return open_dataset(tmp_path)


def test_regions_that_are_no_rectangle_stay_what_they_are(tmp_path):
    label = 'label="annotated region"'
    turned = f'<box {label} xtl="90" ytl="40" xbr="110" ybr="60" rotation="45"/>'
    (field,) = cvat(tmp_path, turned)
    assert field.region.contains([[100, 38], [91, 41]]).tolist() == [True, False]
    (field,) = cvat(tmp_path, f'<ellipse {label} cx="100" cy="50" rx="40" ry="20"/>')
    assert field.region.contains([[100, 31], [63, 33]]).tolist() == [True, False]
    mask = f'<mask {label} rle="0,2,2,2" left="10" top="20" width="3" height="2"/>'
    (field,) = cvat(tmp_path, mask)
    assert field.region.area(200, 100) == 4
    dataset = cvat(tmp_path, mask.replace("0,2,2,2", "9,9"))
    assert dataset[0].region.is_nothing
    assert (
        "its mask of 3x2 pixels has runs that do not fill its size; left out"
        in messages(dataset.issues)[0]
    )


def test_cells_keep_what_was_drawn(tmp_path):
    shapes = (
        '<ellipse label="WBC" cx="100" cy="50" rx="20" ry="10" rotation="90"/>'
        '<box label="WBC" xtl="10" ytl="10" xbr="30" ybr="30"/>'
        '<mask label="WBC" rle="1,4,1" left="50" top="20" width="3" height="2"/>'
    )
    (field,) = cvat(tmp_path, shapes)
    oval, box, mask = field.cells
    assert oval.box == pytest.approx((90, 30, 20, 40)) and oval.outline is not None
    assert box.box == (10, 10, 20, 20) and box.outline is None
    assert mask.box == (50, 20, 3, 2) and mask.outline.area(200, 100) == 4
