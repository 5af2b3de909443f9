"""Round fields on black: found where they are, painted white, cells at the rim known as cut."""

import json

import numpy as np
import pytest

from bloodfilm.core.pixels import ViewRecord
from bloodfilm.imaging import field_of_view
from bloodfilm.imaging.canonical import CanonicalView, canonical_view
from bloodfilm.imaging.field_of_view import RoundField, find_round_field
from bloodfilm.imaging.scale import OUTLINE_TO_BOX, measure
from imaging.cameras import on_black, vignetted
from imaging.drawing import ellipse, field


@pytest.mark.parametrize(
    ("x", "y", "radius"), [(320, 320, 300), (300, 340, 360), (350, 310, 250), (320, 300, 410)]
)
def test_a_disc_on_black_is_found(x: float, y: float, radius: float) -> None:
    found = find_round_field(on_black(field(count=120, cell=(30, 30)), x, y, radius))
    assert found is not None
    assert (found.x, found.y) == pytest.approx((x, y), abs=0.02 * radius)
    assert 0.93 * radius < found.radius < 1.01 * radius


def test_haze_on_the_surround_does_not_hide_the_disc() -> None:
    image = on_black(field(count=120, cell=(30, 30)), 320, 320, 330)
    corner = image[:200, :200]
    corner[:] = np.maximum(corner, 70)
    found = find_round_field(image)
    assert found is not None
    assert (found.x, found.y, found.radius) == pytest.approx((320, 320, 323), abs=5)
    corner[:] = np.maximum(corner, 180)
    assert find_round_field(image) is None


@pytest.mark.parametrize("seed", range(3))
def test_an_ordinary_field_is_not_round(seed: int) -> None:
    image = field(seed=seed, cell=(60, 60), ink=(60, 20, 90))
    assert find_round_field(image) is None
    assert find_round_field(vignetted(image, (0.9, 0.9, 0.9))) is None
    assert find_round_field(np.full((300, 400, 3), 30, np.uint8)) is None
    square = np.full((400, 400, 3), 10, np.uint8)
    square[60:340, 60:340] = 220
    assert find_round_field(square) is None


@pytest.mark.parametrize("shape", [(640, 640), (301, 997), (256, 256), (2000, 3), (5, 5)])
def test_no_corner_is_called_lit_that_is_dark_when_the_image_is_searched(shape, monkeypatch):
    rng = np.random.default_rng(0)
    searched = []
    seen = field_of_view.brightest
    monkeypatch.setattr(
        field_of_view, "brightest", lambda image: searched.append(seen(image)) or searched[-1]
    )
    monkeypatch.setattr(field_of_view, "CORNERS", 99)  # no image is told by its corners alone
    lit, true = 0, 0
    for level in range(90, 116):
        image = np.full((*shape, 3), level, np.uint8)
        image += rng.integers(0, 6, image.shape, dtype=np.uint8)
        find_round_field(image)
        small = searched[-1]
        corners = small[[0, 0, -1, -1], [0, -1, 0, -1]] > field_of_view.MAX_DARKNESS * 255
        found = field_of_view._corners_lit(image, small.shape[::-1])
        assert found <= corners.sum()
        lit, true = lit + found, true + int(corners.sum())
    assert 0 < lit <= true < 4 * 26


def test_one_dark_cell_in_the_middle_is_no_field() -> None:
    image = np.full((360, 360, 3), 15, np.uint8)
    ellipse(image, (180, 180), (80, 80), (1, 1, 0), (230, 220, 225))
    assert find_round_field(image) is None


def test_a_round_field_is_measured_and_its_surround_is_white() -> None:
    image = on_black(field(count=140, cell=(30, 30)), 320, 310, 300)
    m = measure(image)
    assert m.is_measurable
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(30, rel=0.06)
    view = canonical_view(image)
    drawn = view.render(image)
    for corner in (drawn[:20, :20], drawn[-20:, -20:]):
        assert np.abs(corner.astype(int) - 245).max() <= 1
    # The rest of the disc's rim is film, and the corner of a window on it is not.
    (crop,) = view.crops(image, [(320 - 210, 310 - 210)])
    assert np.abs(crop[:10, :10].astype(int) - 245).max() <= 1
    assert crop[80:, 80:].std() > 3


def test_cells_across_the_rim_are_cut() -> None:
    disc = RoundField(300, 300, 250)
    assert not disc.cuts((280, 280, 40, 40))
    assert disc.cuts((530, 280, 40, 40))
    # The corner of the box lies outside, the round cell in it does not.
    assert not disc.cuts((440, 430, 40, 40))


def test_the_view_keeps_the_disc() -> None:
    view = canonical_view(on_black(field(count=100), 320, 320, 300))
    assert view.round_field is not None
    record = ViewRecord.from_json(json.loads(json.dumps(view.record().to_json())))
    assert CanonicalView.from_record(record).round_field == view.round_field
