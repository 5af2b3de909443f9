"""Regions: which points and pixels lie in them, and what it costs to ask."""

import tracemalloc

import numpy as np
import pytest

from bloodfilm.core import DataError
from bloodfilm.core.polygons import Region


def star(vertices: int, centre: tuple[float, float], inner: float, outer: float) -> Region:
    """A star-shaped outline, as a brush or a hand draws one."""
    angles = np.arange(vertices) * 2 * np.pi / vertices
    radii = np.where(np.arange(vertices) % 2, inner, outer)
    return Region.polygon(
        (centre[0] + r * np.cos(a), centre[1] + r * np.sin(a))
        for r, a in zip(radii, angles, strict=True)
    )


def centres(width: int, height: int, stride: float = 1.0) -> np.ndarray:
    ys, xs = np.mgrid[:height, :width]
    return (np.stack([xs, ys], axis=-1).reshape(-1, 2) + 0.5) * stride


@pytest.mark.parametrize("stride", [1.0, 4.0, 0.37])
def test_a_mask_is_what_contains_says_of_every_pixel_centre(stride: float) -> None:
    rng = np.random.default_rng(7)
    for trial in range(30):
        shapes = [
            [tuple(p) for p in rng.uniform(-20, 80, size=(rng.integers(3, 9), 2)) * stride]
            for _ in range(rng.integers(1, 4))
        ]
        if trial % 3 == 0:  # corners on pixel centres and pixel edges
            shapes = [
                [tuple(np.round(np.array(p) / stride * 2) / 2 * stride) for p in s] for s in shapes
            ]
        region = Region.union(Region.polygon(s) for s in shapes)
        expected = region.contains(centres(60, 50, stride)).reshape(50, 60)
        assert np.array_equal(region.mask(60, 50, stride), expected)


def test_a_rectangle_on_pixel_edges_holds_its_pixels_and_no_others() -> None:
    mask = Region.rect(10, 20, 30, 5).mask(64, 48)
    assert mask[20:25, 10:40].all()
    assert mask.sum() == 150
    assert Region.rect(10, 20, 30, 5).area(64, 48) == 150


def test_overlapping_polygons_count_once_and_a_field_cuts_them() -> None:
    both = Region.union([Region.rect(0, 0, 10, 10), Region.rect(5, 5, 100, 10)])
    assert both.area(20, 12) == 100 + 15 * 7 - 25
    assert Region.rect(-50, -50, 20, 20).area(100, 100) == 0
    assert Region.rect(200, 0, 20, 20).area(100, 100) == 0


def test_what_a_polygon_encloses_twice_is_a_hole() -> None:
    outline = [(0, 0), (40, 0), (40, 40), (0, 40)]
    hole = [(10, 10), (30, 10), (30, 30), (10, 30)]
    ring = Region.polygon([*outline, outline[0], *hole, hole[0]])
    assert ring.contains([[5, 5], [20, 20]]).tolist() == [True, False]
    assert ring.area(50, 50) == 40 * 40 - 20 * 20
    bow_tie = Region.polygon([(0, 0), (40, 40), (40, 0), (0, 40)])
    assert bow_tie.contains([[20, 5], [35, 20]]).tolist() == [False, True]


def test_the_area_of_a_disc_is_nearly_pi_r_squared() -> None:
    disc = star(400, (320, 320), 200, 200)
    assert disc.area(640, 640) == pytest.approx(np.pi * 200**2, rel=1e-3)


def test_many_corners_and_many_points_need_little_memory() -> None:
    region = star(2000, (320, 320), 150, 310)
    points = centres(640, 640)[:20_000]
    cases = {
        "mask": (lambda: region.mask(640, 640), 12 << 20),
        "area": (lambda: region.area(640, 640), 12 << 20),
        "contains": (lambda: region.contains(points), 8 << 20),
        "area of a wide field": (lambda: region.area(200_000, 700), 40 << 20),
    }
    for name, (ask, most) in cases.items():
        tracemalloc.start()
        ask()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most, f"{name}: {peak >> 10} KiB"


def test_no_points_no_corners_no_pixels() -> None:
    region = Region.polygon([(0, 0), (0, 5), (0, 9)])
    assert region.contains(np.zeros((0, 2))).shape == (0,)
    assert region.area(10, 10) == 0
    assert region.mask(0, 0).shape == (0, 0)
    assert Region.polygon([(1, 1), (1, 1), (1, 1)]).area(5, 5) == 0
    with pytest.raises(DataError, match="three or more"):
        Region.polygon([(0, 0), (1, 1)])
