"""What an affine map does to boxes, cells and regions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core import Cell, Region
from bloodfilm.registration.warp import warp_boxes, warp_cells, warp_region

SIZE = (640, 480)
numbers = st.floats(-300, 900, allow_nan=False)


def turn(degrees, x=0.0, y=0.0, scale=1.0, mirror=False):
    a = np.radians(degrees)
    m = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    if mirror:
        m = m @ np.diag([-1, 1])
    return np.column_stack([m, [x, y]])


def test_identity_keeps_every_box():
    boxes = [[10, 20, 30, 40], [0, 0, 1, 1]]
    assert np.allclose(warp_boxes(boxes, turn(0)), boxes)


@given(st.floats(0, 360), st.booleans(), st.floats(0.3, 3))
def test_a_round_cell_stays_round_however_it_is_turned(degrees, mirror, scale):
    box = warp_boxes([[100, 100, 40, 40]], turn(degrees, 5, 6, scale, mirror))[0]
    assert np.allclose(box[2:], 40 * scale)
    centre = turn(degrees, 5, 6, scale, mirror) @ [120, 120, 1]
    assert np.allclose(box[:2] + box[2:] / 2, centre)


def test_a_quarter_turn_swaps_width_and_height():
    box = warp_boxes([[0, 0, 10, 30]], turn(90))[0]
    assert np.allclose(box, [-30, 0, 30, 10])


def test_a_squeeze_is_undone():
    box = warp_boxes([[90, 160, 20, 35.56]], [[1 / 0.5625, 0, 0], [0, 1, 0]])[0]
    assert np.allclose(box, [160, 160, 35.56, 35.56], atol=0.01)


def test_cells_keep_what_is_known_of_them():
    cell = Cell((100, 100, 40, 40), "monocyte", {"nuclear_shape": "regular"}, id="7")
    (moved,), counts = warp_cells([cell], turn(0, 10, -5), SIZE, SIZE)
    assert moved.box == pytest.approx((110, 95, 40, 40))
    assert (moved.label, moved.attributes, moved.id) == ("monocyte", cell.attributes, "7")
    assert not moved.ignore
    assert counts.carried == 1


def test_cells_are_clipped_dropped_or_counted():
    cells = [
        Cell((580, 200, 40, 40), "monocyte"),  # half of it leaves
        Cell((600, 200, 30, 30), "monocyte"),  # all but a sliver leaves
        Cell((200, 200, 40, 40), "monocyte"),
        Cell((200, 200, 40, 40), None, ignore=True),
        Cell(None, "monocyte"),
    ]
    moved, counts = warp_cells(cells, turn(0, 40), SIZE, SIZE)
    assert [c.box for c in moved] == [(620, 200, 20, 40), (240, 200, 40, 40), (240, 200, 40, 40)]
    assert [c.ignore for c in moved] == [False, False, True]
    assert (counts.carried, counts.clipped, counts.left, counts.without_box) == (2, 1, 1, 1)


def test_a_cell_that_the_source_cuts_but_the_target_shows_is_to_ignore():
    cut, whole = Cell((0, 200, 20, 40), "monocyte"), Cell((300, 200, 40, 40), "monocyte")
    (first, second), counts = warp_cells([cut, whole], turn(0, 50), SIZE, SIZE)
    assert (first.ignore, second.ignore) == (True, False)
    assert counts.cut == 1
    # Where the target ends at the same place the box is as whole as it can be.
    (same,), counts = warp_cells([cut], turn(0), SIZE, SIZE)
    assert not same.ignore
    assert counts.cut == 0


@given(numbers, numbers, st.floats(1, 300), st.floats(1, 300), st.floats(0, 360), numbers)
def test_carried_boxes_lie_in_the_target(x, y, w, h, degrees, shift):
    cells = [Cell((x, y, w, h), "monocyte")]
    moved, counts = warp_cells(cells, turn(degrees, shift, shift), SIZE, SIZE)
    assert len(moved) + counts.left == 1
    for cell in moved:
        left, top, width, height = cell.box
        assert left >= 0 and top >= 0 and width > 0 and height > 0
        assert left + width <= SIZE[0] + 1e-9 and top + height <= SIZE[1] + 1e-9


def test_the_whole_field_becomes_what_both_show():
    region = warp_region(Region.everything(), turn(0, 100, 0), SIZE, SIZE)
    assert not region.is_everything
    assert region.contains([[99, 200], [101, 200], [639, 1]]).tolist() == [False, True, True]
    assert region.area(*SIZE) == pytest.approx(540 * 480)


def test_a_target_inside_the_source_is_known_everywhere():
    region = warp_region(Region.everything(), turn(0, -320, -240, 2), SIZE, SIZE)
    assert region.is_everything


def test_nothing_known_stays_nothing_and_what_leaves_is_gone():
    assert warp_region(Region.nothing(), turn(0), SIZE, SIZE).is_nothing
    patch = Region.rect(0, 0, 50, 50)
    assert warp_region(patch, turn(0, -100, 0), SIZE, SIZE).is_nothing
    # What an annotator drew beyond the edge of the source is no knowledge.
    beyond = Region.rect(-100, 0, 150, 50)
    moved = warp_region(beyond, turn(0, 100, 100), SIZE, SIZE)
    assert moved.contains([[50, 120], [120, 120]]).tolist() == [False, True]


@given(st.floats(0, 360), st.booleans(), st.floats(0.4, 2.5), numbers, numbers)
def test_regions_agree_with_points(degrees, mirror, scale, x, y):
    matrix = turn(degrees, x, y, scale, mirror)
    region = Region.union(
        [Region.rect(50, 60, 200, 100), Region.polygon([(300, 300), (500, 300), (400, 450)])]
    )
    moved = warp_region(region, matrix, SIZE, SIZE)
    points = np.random.default_rng(0).uniform(0, 1, (200, 2)) * SIZE
    there = points @ matrix[:, :2].T + matrix[:, 2]
    inside = ((there > 0) & (there < SIZE)).all(axis=1)
    assert (moved.contains(there)[inside] == region.contains(points)[inside]).all()
