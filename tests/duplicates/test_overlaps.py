"""Common glass is found at any shift and turn, and nowhere else."""

import numpy as np
import pytest

from bloodfilm.duplicates.overlaps import (
    FieldOverlap,
    alike_pairs,
    find_overlaps,
    reduced,
    small_picture,
)

SIDE = 320


@pytest.fixture(scope="module")
def glass():
    """A large grey picture of random discs."""
    import cv2

    rng = np.random.default_rng(3)
    picture = np.full((900, 900), 200, np.float32)
    for _ in range(900):
        x, y = rng.integers(0, 900, 2)
        level, radius = float(rng.uniform(60, 170)), int(rng.integers(6, 22))
        cv2.circle(picture, (int(x), int(y)), radius, level, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.2) + rng.normal(0, 1.5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def cut(glass, x, y, turned=False):
    part = glass[y : y + SIDE, x : x + SIDE]
    return np.ascontiguousarray(part[::-1, ::-1] if turned else part)


def search(pictures):
    return find_overlaps(
        [small_picture(p) for p in pictures],
        pictures.__getitem__,
        [reduced(p) for p in pictures].__getitem__,
        range(len(pictures)),
    )


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shift", [(0, 0), (41, 0), (17, 203), (-120, 90), (190, -77)])
def test_any_shift_is_found_to_the_pixel(glass, shift, turned):
    pictures = [cut(glass, 300, 300), cut(glass, 300 + shift[0], 300 + shift[1], turned)]
    (found,) = search(pictures)
    assert found.shift == shift
    assert found.turned == turned
    assert found.ncc > 0.98
    expected = (SIDE - abs(shift[0])) * (SIDE - abs(shift[1])) / SIDE**2
    assert found.share == pytest.approx(expected, abs=1e-3)
    assert found.identical == (shift == (0, 0))


def test_unrelated_fields_do_not_overlap(glass):
    places = [(0, 0), (400, 0), (0, 400), (400, 400)]
    assert search([cut(glass, *p) for p in places]) == []


def test_empty_fields_are_not_called_the_same():
    rng = np.random.default_rng(0)
    empty = [(200 + rng.normal(0, 1, (SIDE, SIDE))).astype(np.uint8) for _ in range(3)]
    assert search(empty) == []


def test_whole_pictures_that_are_alike_are_listed(glass):
    pictures = [cut(glass, 0, 0), cut(glass, 400, 400), cut(glass, 0, 0, turned=True)]
    assert list(alike_pairs([small_picture(p) for p in pictures])) == [(0, 2, True)]


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_go_there_and_back(turned):
    overlap = FieldOverlap(0, 1, turned, (30.0, -12.0), 1.0, 0.8, (640, 480))
    boxes = np.array([[10.0, 20.0, 30.0, 40.0], [300.0, 100.0, 50.0, 90.0]])
    there = overlap.to_first(boxes)
    assert np.allclose(overlap.swapped().to_first(there), boxes)
    assert (there[:, 2:] == boxes[:, 2:]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_what_both_show_is_outlined_in_each(glass, turned):
    pictures = [cut(glass, 300, 300), cut(glass, 341, 250, turned)]
    (found,) = search(pictures)
    (x, y, w, h), (u, v, s, t) = (tuple(map(int, box)) for box in found.common())
    assert (x, y, w, h) == (41, 0, SIDE - 41, SIDE - 50) and (s, t) == (w, h)
    here, there = pictures[0][y : y + h, x : x + w], pictures[1][v : v + t, u : u + s]
    assert np.array_equal(here, there[::-1, ::-1] if turned else there)
