"""Pictures that an analysis saves: what is written on them can be read."""

import cv2
import numpy as np
import pytest

from bloodfilm.report.saved import DARK, write_on


@pytest.mark.parametrize(("size", "thick"), [(0.4, 1), (0.7, 1), (1.4, 3)])
def test_the_dark_edge_of_letters_lies_around_them(size, thick):
    """Where the edge was drawn thicker it was also drawn elsewhere, and hid the figures."""
    image = np.full((120, 700, 3), 160, np.uint8)
    write_on(image, "white cell 0.95", (10, 80), size, thick)
    letters = (image > 165).all(axis=2).astype(np.uint8)
    edge = (image < 100).all(axis=2)
    near = cv2.dilate(letters, np.ones((7, 7), np.uint8)).astype(bool)
    assert letters.any() and edge.any()
    assert (edge & ~near).sum() <= 0.02 * edge.sum()
    assert tuple(image[edge].min(axis=0)) >= DARK


def test_text_at_the_right_edge_is_whole():
    wide, narrow = np.full((60, 400, 3), 160, np.uint8), np.full((60, 400, 3), 160, np.uint8)
    write_on(wide, "lymphocyte 0.91", (10, 40), 0.6, 1)
    write_on(narrow, "lymphocyte 0.91", (380, 40), 0.6, 1)
    whole, shifted = ((i > 200).all(axis=2).sum() for i in (wide, narrow))
    assert shifted == whole
