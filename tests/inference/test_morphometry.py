"""Areas, outlines and lobes of drawn masks whose measures are known."""

import numpy as np
import pytest

from bloodfilm.core.polygons import Region
from bloodfilm.inference.morphometry import (
    body_of,
    contour_of,
    lobe_count,
    mean_colour,
    pieces_of,
)

Y, X = np.mgrid[:120, :160] + 0.5


def disc(x, y, radius):
    return np.hypot(X - x, Y - y) < radius


def bridge(x0, x1, y, width):
    return (np.abs(Y - y) < width / 2) & (x0 < X) & (x1 > X)


def test_a_disc_measures_what_it_is():
    contour = contour_of(disc(80, 60, 40))
    assert contour.area == pytest.approx(np.pi * 40**2, rel=0.01)
    assert contour.perimeter == pytest.approx(2 * np.pi * 40, rel=0.02)
    assert contour.circularity > 0.97
    assert contour.sides == pytest.approx((80, 80), rel=0.03)
    assert contour.points.mean(axis=0) == pytest.approx((80, 60), abs=1)


def inside(points):
    x, y = points.T
    return abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2


@pytest.mark.parametrize(
    "mask",
    [
        disc(80, 60, 40),
        disc(80, 60, 12),
        np.hypot((X - 80) / 60, (Y - 60) / 20) < 1,
        disc(80, 60, 40) & ~disc(80, 25, 24),  # a kidney
        disc(40, 60, 18) | disc(110, 60, 18) | bridge(40, 110, 60, 6),
        (np.abs(X - 80) < 20) & (np.abs(Y - 60) < 10),
    ],
)
def test_the_area_inside_the_corners_is_that_of_the_mask(mask):
    contour = contour_of(mask)
    assert contour.area == mask.sum()
    assert inside(contour.points) == pytest.approx(contour.area, rel=0.008)
    again = Region((tuple(map(tuple, contour.points)),)).mask(*mask.shape[::-1])
    assert np.count_nonzero(again != mask) < 0.02 * mask.sum()


def test_a_spur_one_pixel_wide_does_not_throw_its_corner_far_away():
    mask = disc(80, 60, 20)
    mask[60, 80:130] = True
    points = contour_of(mask).points
    assert points[:, 0].max() == pytest.approx(130, abs=1.5)
    assert inside(points) == pytest.approx(mask.sum(), rel=0.02)


def test_a_long_cell_is_less_circular():
    contour = contour_of(np.hypot((X - 80) / 60, (Y - 60) / 20) < 1)
    assert 0.4 < contour.circularity < 0.7
    assert contour.sides == pytest.approx((120, 40), rel=0.05)


def test_too_small_a_mask_has_no_outline():
    assert contour_of(np.zeros((8, 8), bool)) is None
    one = np.zeros((8, 8), bool)
    one[3, 3] = True
    assert contour_of(one) is None


def test_the_body_is_the_part_in_the_middle_without_holes():
    body = body_of(disc(80, 60, 30) & ~disc(80, 60, 5) | disc(10, 10, 8))
    assert body[60, 80] and not body[10, 10]
    assert body.sum() == pytest.approx(np.pi * 30**2, rel=0.02)
    assert body_of(disc(5, 5, 4)) is None
    assert body_of(np.zeros((20, 20), bool)) is None


def test_where_the_middle_is_can_be_said():
    two = disc(30, 30, 12) | disc(120, 90, 20)
    assert body_of(two, (slice(20, 40), slice(20, 40))).sum() == disc(30, 30, 12).sum()
    assert body_of(two, (slice(80, 100), slice(100, 160))).sum() == disc(120, 90, 20).sum()
    assert body_of(two, (slice(0, 10), slice(100, 160))) is None


def test_pieces_come_largest_first_and_noise_is_left_out():
    pieces = pieces_of(disc(40, 40, 10) | disc(100, 60, 20) | disc(10, 100, 1.5))
    assert [int(p.sum()) for p in pieces] == sorted([int(p.sum()) for p in pieces], reverse=True)
    assert len(pieces) == 2
    assert pieces_of(np.zeros((5, 5), bool)) == []


@pytest.mark.parametrize(
    "mask, lobes",
    [
        (np.zeros((120, 160), bool), 0),
        (disc(80, 60, 30), 1),
        (np.hypot((X - 80) / 50, (Y - 60) / 20) < 1, 1),
        (disc(80, 60, 34) & ~disc(80, 30, 24), 1),  # a kidney
        (disc(40, 60, 18) | disc(110, 60, 18) | bridge(40, 110, 60, 6), 2),
        (disc(30, 60, 15) | disc(80, 40, 15) | disc(130, 60, 15), 3),
        (
            disc(25, 60, 15) | disc(62, 60, 14) | disc(99, 60, 15) | disc(136, 60, 14)
            | bridge(25, 136, 60, 8),
            4,
        ),
        # A drop beside the nucleus is no lobe.
        (disc(80, 60, 30) | disc(140, 20, 6), 1),
    ],
)  # fmt: skip
def test_lobes(mask, lobes):
    assert lobe_count(mask) == lobes


def test_mean_colour_is_of_the_mask_alone():
    pixels = np.full((120, 160, 3), 200, np.uint8)
    mask = disc(80, 60, 10)
    pixels[mask] = (90, 40, 120)
    assert mean_colour(pixels, mask) == (90, 40, 120)
    assert mean_colour(pixels, np.zeros_like(mask)) is None
