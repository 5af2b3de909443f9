"""Arcs: cut and overlapping cells give a diameter, anamorphic ones do not."""

import numpy as np
import pytest

from bloodfilm.core.issue_codes import FEW_RED_CELLS
from bloodfilm.core.issues import codes
from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.circle_fit import fit_circle
from bloodfilm.imaging.scale import OUTLINE_TO_BOX, measure
from imaging.drawing import ellipse

INK = (190, 130, 130)


def close_up(cell: tuple[float, float]) -> np.ndarray:
    """No cell is whole and free: four are cut by the edge, two overlap by a third."""
    image = np.full((300, 300, 3), 230, np.uint8)
    for x, y in ((10, 60), (290, 80), (60, 290), (280, 270), (130, 130), (190, 130)):
        ellipse(image, (x, y), cell, (1, 1, 0), INK)
    return image


def test_circle_through_an_arc() -> None:
    t = np.linspace(0.3, 3.4, 60)
    x, y, r, coverage, residual = fit_circle(
        np.stack([50 + 20 * np.cos(t), 70 + 20 * np.sin(t)], axis=1)
    )
    assert (x, y, r, coverage) == pytest.approx((50, 70, 20, 3.1), abs=1e-6)
    assert residual < 1e-6


def test_cells_in_part_tell_the_scale_less_surely() -> None:
    m = measure(close_up((84, 84)))
    assert m.cells == 0
    assert m.arcs >= 3
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(84, rel=0.05)
    assert 0 < m.confidence < 0.6
    view = canonical_view(close_up((84, 84)))
    assert view.scale_source == "measured"
    assert FEW_RED_CELLS in codes(view.issues)


def test_parts_of_anamorphic_cells_are_not_circles() -> None:
    assert not measure(close_up((56, 100))).is_measurable
