"""The canonical view: what it decides, says, renders and maps."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import (
    ASPECT_ASSUMED,
    ASPECT_CONFLICT,
    ASPECT_ROUNDED,
    FEW_RED_CELLS,
    SCALE_ASSUMED,
    SCALE_CONFLICT,
    SCALE_CORRECTED,
)
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.imaging.canonical import (
    CROP_SIZE,
    CROP_UM,
    DETECTOR_UM,
    CanonicalView,
    canonical_view,
    refine,
)
from bloodfilm.imaging.scale import ScalePrior, measure, pool
from imaging.drawing import ellipse, field

BLANK = np.full((300, 400, 3), (200, 190, 180), np.uint8)


def view_of_size(
    width: int = 640, height: int = 640, um: tuple[float, float] = (0.25, 0.14)
) -> CanonicalView:
    return CanonicalView(
        um[0], um[1], (163.0, 164.0, 155.0), 20, 0.9, "measured", "measured", width, height
    )


def sources(view):
    return view.scale_source, view.aspect_source


def test_measured_field_says_where_its_numbers_come_from() -> None:
    view = canonical_view(field(cell=(30, 52)))
    assert sources(view) == ("measured", "measured")
    assert view.pixel_aspect_ratio == pytest.approx(30 / 52, rel=0.05)
    assert view.um_per_px_x == pytest.approx(7.5 / 30, rel=0.1)
    assert view.um_per_px_y == pytest.approx(7.5 / 52, rel=0.1)
    assert view.issues == ()


def test_rendered_cells_are_round_and_of_their_size_on_245() -> None:
    image = field(cell=(30, 52), white=(163, 164, 155), ink=(70, 100, 130))
    view = canonical_view(image)
    drawn = view.render(image)
    assert drawn.shape == (view.size[1], view.size[0], 3)
    again = measure(drawn)
    assert again.diameter == pytest.approx(7.5 / DETECTOR_UM, rel=0.06)
    assert again.pixel_aspect_ratio == pytest.approx(1, abs=0.05)
    assert again.white_point == pytest.approx((245, 245, 245), abs=2)


def test_nothing_known_is_assumed_aloud() -> None:
    view = canonical_view(BLANK)
    assert sources(view) == ("assumed", "assumed")
    assert view.confidence == 0
    assert FEW_RED_CELLS in codes(view.issues)
    assert {SCALE_ASSUMED, ASPECT_ASSUMED} <= codes(view.issues)
    assert view.white_point == pytest.approx((200, 190, 180), abs=1)


def test_provided_values_are_used_where_cells_are_not_measurable() -> None:
    view = canonical_view(BLANK, ScalePrior(0.14, 0.56))
    assert sources(view) == ("user", "user")
    assert view.um_per_px_y == pytest.approx(0.14)
    assert view.um_per_px_x == pytest.approx(0.25)
    assert not {SCALE_ASSUMED, ASPECT_ASSUMED} & codes(view.issues)
    half = canonical_view(BLANK, ScalePrior(0.14))
    assert sources(half) == ("user", "assumed")


def test_pooled_scale_precedes_provided_values_and_fills_gaps() -> None:
    pooled = pool([measure(field(cell=(40, 40), seed=s)) for s in range(3)])
    view = canonical_view(BLANK, ScalePrior(0.18, pooled=pooled))
    assert sources(view) == ("pooled", "pooled")
    assert view.um_per_px_y == pytest.approx(7.5 / 40, rel=0.08)


def test_provided_value_wins_a_clear_contradiction_with_an_issue() -> None:
    image = field(cell=(40, 40))
    close = canonical_view(image, ScalePrior(0.18, 0.95))
    assert sources(close) == ("measured", "measured")
    far = canonical_view(image, ScalePrior(0.1, 0.5))
    assert sources(far) == ("user", "user")
    assert (far.um_per_px_y, far.pixel_aspect_ratio) == pytest.approx((0.1, 0.5))
    assert codes(far.issues) == {SCALE_CONFLICT, ASPECT_CONFLICT}


def test_field_that_disagrees_with_its_folder_keeps_its_own_measure() -> None:
    pooled = pool([measure(field(cell=(40, 40), seed=s)) for s in range(3)])
    view = canonical_view(field(cell=(25, 25), count=60), ScalePrior(pooled=pooled))
    assert view.scale_source == "measured"
    assert view.um_per_px_x == pytest.approx(7.5 / 25, rel=0.1)


def test_slight_aspect_ratio_of_few_cells_is_rounded_to_1() -> None:
    image = np.full((300, 400, 3), 230, np.uint8)
    for x, y in ((80, 80), (200, 200), (320, 90)):
        ellipse(image, (x, y), (74, 80), (1, 1, 0), (190, 130, 130))
    view = canonical_view(image)
    assert view.pixel_aspect_ratio == 1
    assert ASPECT_ROUNDED in codes(view.issues)


def test_a_view_comes_back_from_its_record() -> None:
    view = canonical_view(field(cell=(30, 52)))
    record = ViewRecord.from_json(json.loads(json.dumps(view.record(12.5).to_json())))
    assert record.sharpness == 12.5
    assert CanonicalView.from_record(record) == replace(view, issues=())


@given(
    st.integers(32, 1200),
    st.integers(32, 1200),
    st.floats(0.03, 0.6),
    st.floats(0.03, 0.6),
    st.floats(0.1, 0.5),
)
def test_boxes_there_and_back(width: int, height: int, x: float, y: float, um: float) -> None:
    view = view_of_size(width, height, (x, y))
    boxes = np.array([[1.5, 2.0, 10.0, 20.0], [0, 0, width, height]])
    there = view.to_canonical(boxes, um)
    assert np.allclose(view.to_original(there, um), boxes)
    # The whole field maps to the whole rendered picture, to the last pixel.
    assert there[1, 2:] == pytest.approx(view.size_at(um))


def test_boxes_follow_the_pixels() -> None:
    image = np.full((640, 640, 3), 160, np.uint8)
    image[300:360, 100:140] = 20
    view = view_of_size()
    dark = view.render(image)[..., 0] < 130
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    x, y, w, h = view.to_canonical([[100, 300, 40, 60]])[0]
    assert (columns[0], columns[-1] + 1) == pytest.approx((x, x + w), abs=1)
    assert (rows[0], rows[-1] + 1) == pytest.approx((y, y + h), abs=1)


def test_shrinking_one_axis_while_the_other_grows_does_not_alias() -> None:
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[::2] = 160
    drawn = view_of_size(um=(0.4, 0.07)).render(stripes, 0.25)
    # Linear interpolation alone would leave most of the contrast of 240 : 0.
    assert drawn.std() < 20


@pytest.mark.parametrize("um", [(0.25, 0.14), (0.1, 0.1), (0.055, 0.055), (0.5, 0.3)])
def test_crops_are_centred_and_scaled(um: tuple[float, float]) -> None:
    image = np.full((640, 640, 3), 160, np.uint8)
    width, height = 7.5 / um[0], 7.5 / um[1]
    ellipse(image, (301, 347), (width, height), (1, 1, 0), (20, 20, 20))
    (crop,) = view_of_size(um=um).crops(image, [(301, 347)])
    assert crop.shape == (CROP_SIZE, CROP_SIZE, 3)
    rows, columns = np.nonzero(crop[..., 0] < 130)
    assert (columns.mean(), rows.mean()) == pytest.approx(((CROP_SIZE - 1) / 2,) * 2, abs=1.5)
    assert np.ptp(columns) + 1 == pytest.approx(7.5 / CROP_UM, abs=2)
    assert np.ptp(rows) + 1 == pytest.approx(7.5 / CROP_UM, abs=2)


@pytest.mark.parametrize("um", [(0.25, 0.14), (0.1, 0.1), (0.5, 0.3)])
def test_crops_beyond_the_edge_are_filled_with_background(um: tuple[float, float]) -> None:
    image = np.full((200, 200, 3), 40, np.uint8)
    view = view_of_size(200, 200, um)
    corner, opposite, outside = view.crops(image, [(0, 0), (200, 200), (-4000, 50)])
    low, high = CROP_SIZE // 2 - 2, CROP_SIZE // 2 + 2
    assert (corner[:low] == 245).all() and (corner[:, :low] == 245).all()
    assert (corner[high : high + 24, high : high + 24] < 80).all()
    assert (opposite[high:] == 245).all() and (opposite[low - 22 : low, low - 22 : low] < 80).all()
    assert (outside == 245).all()


def test_no_crops() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    assert view_of_size().crops(image, np.zeros((0, 2))).shape == (0, CROP_SIZE, CROP_SIZE, 3)


def test_the_wrong_image_and_an_absurd_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="640 x 640"):
        view_of_size().render(BLANK)
    for um in (50.0, 2.6):  # the latter would have cost three gigabytes
        with pytest.raises(DataError, match="more than 64 million; give its true scale"):
            view_of_size(um=(um, um)).render(np.zeros((640, 640, 3), np.uint8))


def boxes_of(view: CanonicalView, width: float, height: float, n: int = 12) -> np.ndarray:
    x, y = np.meshgrid(np.arange(4) * 140 + 20, np.arange(3) * 160 + 20)
    full = np.full(n, 1.0)
    return np.stack([x.ravel()[:n], y.ravel()[:n], width * full, height * full], axis=1)


def test_refine_follows_whole_free_boxes_only() -> None:
    view = view_of_size()
    boxes = boxes_of(view, 33.0, 58.0)
    cut = [[0.0, 10.0, 5.0, 58.0]] * 30
    pair = [[600.0, 500.0, 20.0, 20.0], [605.0, 505.0, 20.0, 20.0]]
    better = refine(view, np.vstack([boxes, cut, pair]))
    assert better.um_per_px_x == pytest.approx(7.5 / 33)
    assert better.um_per_px_y == pytest.approx(7.5 / 58)
    assert SCALE_CORRECTED in codes(better.issues)
    assert better.red_cells == 20


def test_refine_keeps_what_it_cannot_better() -> None:
    view = view_of_size()
    assert refine(view, boxes_of(view, 33, 58, 4)) == view
    assert refine(view, np.zeros((0, 4))) == view
    agreed = refine(view, boxes_of(view, 7.5 / 0.25, 7.5 / 0.14))
    assert agreed.issues == ()


def test_refine_checks_a_provided_scale_but_keeps_it() -> None:
    stated = canonical_view(BLANK, ScalePrior(0.1, 1.0))
    boxes = boxes_of(stated, 50.0, 50.0)[:, :] * [0.5, 0.5, 1, 1]
    checked = refine(stated, boxes)
    assert (checked.um_per_px_x, checked.um_per_px_y) == pytest.approx((0.1, 0.1))
    assert checked.scale_source == "user"
    assert SCALE_CONFLICT in codes(checked.issues)


def test_crops_in_own_colours_are_filled_with_the_white_point() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (120, 160, 3), np.uint8)
    view = CanonicalView(0.1, 0.1, (180.2, 190.0, 170.0), 9, 0.9, "measured", "measured", 160, 120)
    (crop,) = view.crops(image, [(10.0, 60.0)], 64, 0.1, balanced=False)
    assert np.array_equal(crop[:, 22:], image[28:92, :42])
    assert (crop[:, :22] == (180, 190, 170)).all()
