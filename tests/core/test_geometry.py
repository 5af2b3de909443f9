"""Boxes and regions, against brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core import DataError, Region
from bloodfilm.core import boxes as geometry

whole = st.integers(0, 30)
box = st.tuples(whole, whole, st.integers(1, 20), st.integers(1, 20))


def _pixels(b: tuple[int, int, int, int]) -> set[tuple[int, int]]:
    x, y, w, h = b
    return {(i, j) for i in range(x, x + w) for j in range(y, y + h)}


@given(box, box)
def test_iou_counts_pixels(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> None:
    p, q = _pixels(a), _pixels(b)
    assert geometry.iou([a], [b])[0, 0] == pytest.approx(len(p & q) / len(p | q))


def test_empty_lists_of_boxes() -> None:
    assert geometry.iou([], [(0, 0, 1, 1)]).shape == (0, 1)
    assert len(geometry.nms([], [], 0.5)) == 0


def test_a_box_without_area_overlaps_nothing() -> None:
    assert geometry.iou([(0, 0, 0, 0)], [(0, 0, 0, 0)])[0, 0] == 0


@given(st.lists(box, max_size=12), st.floats(0.1, 0.9))
def test_suppression_keeps_no_two_that_overlap(
    boxes: list[tuple[int, int, int, int]], threshold: float
) -> None:
    scores = np.linspace(1, 0, len(boxes))
    keep = geometry.nms(boxes, scores, threshold)
    kept = geometry.as_boxes(boxes)[keep]
    overlaps = geometry.iou(kept, kept)
    assert (overlaps[~np.eye(len(kept), dtype=bool)] <= threshold).all()
    gone = set(range(len(boxes))) - set(keep.tolist())
    for i in gone:  # each one that went overlaps a better one that stayed
        assert (geometry.iou([boxes[i]], boxes)[0][keep[keep < i]] > threshold).any()


def test_clip_cuts_to_the_image() -> None:
    cut = geometry.clip([(-5, 2, 10, 4), (50, 50, 5, 5)], 20, 20)
    assert cut.tolist() == [[0, 2, 5, 4], [20, 20, 0, 0]]


def test_corners_and_back() -> None:
    boxes = [(1.5, 2.0, 3.0, 4.0)]
    assert geometry.to_xywh(geometry.to_xyxy(boxes)).tolist() == [list(boxes[0])]
    assert geometry.centres(boxes).tolist() == [[3.0, 4.0]]


def test_everything_and_nothing() -> None:
    assert Region.everything().mask(3, 2).all()
    assert not Region.nothing().mask(3, 2).any()
    assert Region.everything().is_everything
    assert Region.nothing().is_nothing
    assert Region.everything().area(3, 2) == 6


@given(box)
def test_a_rectangle_holds_its_pixels(b: tuple[int, int, int, int]) -> None:
    mask = Region.rect(*b).mask(60, 60)
    assert {(int(x), int(y)) for y, x in np.argwhere(mask)} == _pixels(b)


def test_a_triangle() -> None:
    region = Region.polygon([(0, 0), (10, 0), (0, 10)])
    assert region.contains([(1, 1), (9, 9), (4.9, 4.9), (5.1, 5.1)]).tolist() == [
        True,
        False,
        True,
        False,
    ]


def test_overlapping_shapes_count_once() -> None:
    region = Region.union([Region.rect(0, 0, 4, 4), Region.rect(2, 2, 4, 4)])
    assert region.area(10, 10) == 16 + 16 - 4
    assert Region.union([region, Region.everything()]).is_everything


def test_coarse_masks_ask_the_middle_of_their_cells() -> None:
    mask = Region.rect(0, 0, 8, 8).mask(4, 4, stride=4)
    assert mask.sum() == 4


@given(st.floats(-50, 50), st.floats(-50, 50), st.floats(0.2, 4), st.booleans())
def test_regions_move_with_points(dx: float, dy: float, scale: float, mirror: bool) -> None:
    matrix = np.array([[-scale if mirror else scale, 0.1, dx], [0.0, scale, dy]])
    region = Region.polygon([(0, 0), (10, 1), (9, 8), (2, 9)])
    points = np.random.default_rng(0).uniform(-2, 12, (50, 2))
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    assert (region.contains(points) == region.transform(matrix).contains(moved)).all()


def test_regions_round_trip() -> None:
    for region in (Region.everything(), Region.nothing(), Region.rect(1, 2, 3, 4)):
        assert Region.from_json(region.to_json()) == region


@pytest.mark.parametrize("data", [{"a": 1}, [[1, 2]], [[[0, 0], [1, 1]]], [[["x", 0]] * 3]])
def test_malformed_regions_are_refused(data: object) -> None:
    with pytest.raises(DataError):
        Region.from_json(data)
