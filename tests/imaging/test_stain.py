"""What a cell absorbs beyond the colour of the red cells around it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.imaging.stain import MIN_RED_CELLS, absorbance, stain_contrast

WHITE = (200.0, 210.0, 190.0)
NUCLEUS = np.array([0.9, 1.2, 0.5])


def picture(red, objects, noise=1.0, seed=0):
    """Red cells of one colour (absorbances) in a row, objects in another; with their boxes."""
    rng = np.random.default_rng(seed)
    density = np.zeros((80, 40 * max(len(red), len(objects)), 3))
    rows = []
    for top, colours in ((0, objects), (40, red)):
        for i, colour in enumerate(colours):
            density[top + 5 : top + 35, 40 * i + 5 : 40 * i + 35] = colour
        rows.append([(40.0 * i + 5, top + 5.0, 30.0, 30.0) for i in range(len(colours))])
    light = np.array(WHITE) * np.exp(-density) + rng.normal(0, noise, density.shape)
    return np.clip(light, 0, 255).astype(np.uint8), *rows


colours = st.tuples(*[st.floats(0.1, 0.8)] * 3)


@given(colour=colours, depth=st.floats(0.5, 2.0))
def test_a_red_cell_of_any_colour_and_depth_has_none(colour, depth):
    red = [np.array(colour) * k for k in (0.7, 0.85, 1.0, 1.1, 1.2, 1.3)]
    image, boxes, cells = picture(red, [np.array(colour) * depth])
    seen = stain_contrast(image, WHITE, boxes, cells)
    assert seen is None or seen[0] < 0.06


@pytest.mark.parametrize("colour", [(0.1, 0.4, 0.3), (0.5, 0.42, 0.3), (0.15, 0.17, 0.15)])
def test_a_nucleus_has_what_is_not_along_the_red_cells(colour):
    colour = np.array(colour)
    image, boxes, cells = picture([colour] * 6, [NUCLEUS, NUCLEUS + colour])
    along = colour / np.linalg.norm(colour)
    expected = np.linalg.norm(NUCLEUS - (NUCLEUS @ along) * along)
    # What else lies in the cell, as long as it has the red cells' colour, changes nothing.
    seen = stain_contrast(image, WHITE, boxes, cells)
    assert seen == pytest.approx([expected, expected], abs=0.05)
    assert min(seen) > 0.2


def test_a_small_nucleus_in_a_pale_cell_counts():
    image, boxes, cells = picture([(0.1, 0.4, 0.3)] * 6, [(0.02, 0.08, 0.06)])
    image[12:30, 12:22] = np.array(WHITE) * np.exp(-NUCLEUS)
    assert stain_contrast(image, WHITE, boxes, cells)[0] > 0.5


def test_too_few_red_cells_or_no_colour_say_nothing():
    image, boxes, cells = picture([(0.1, 0.4, 0.3)] * 6, [NUCLEUS])
    assert stain_contrast(image, WHITE, boxes, cells[: MIN_RED_CELLS - 1]) is None
    grey = np.repeat(image[:, :, 1:2], 3, axis=2)
    white = (WHITE[1],) * 3
    assert stain_contrast(grey, white, boxes, cells) is None


def test_boxes_may_leave_the_picture_and_there_may_be_none():
    image, boxes, cells = picture([(0.1, 0.4, 0.3)] * 6, [NUCLEUS])
    outside = [(-500.0, -500.0, 30.0, 30.0), (9999.0, 0.0, 1.0, 1.0)]
    assert np.isfinite(stain_contrast(image, WHITE, [*boxes, *outside], cells)).all()
    assert stain_contrast(image, WHITE, np.zeros((0, 4)), cells).shape == (0,)


def test_black_pixels_absorb_a_finite_amount():
    assert np.isfinite(absorbance(np.zeros((2, 3), np.uint8), (0.0, 0.0, 255.0))).all()
