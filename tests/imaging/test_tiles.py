"""Tiles: cores partition the image, crops have their margins, small images give one tile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.imaging.tiles import Tile, plan_tiles


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, int, int, int]:
    tile = draw(st.integers(8, 300))
    overlap = draw(st.integers(0, (tile - 1) // 2))
    core = tile - 2 * overlap
    # Bounded so that a plan has at most a few hundred tiles.
    width = draw(st.integers(1, tile + 12 * core))
    height = draw(st.integers(1, tile + 12 * core))
    return width, height, tile, overlap


@given(plans())
def test_every_pixel_is_owned_exactly_once(plan: tuple[int, int, int, int]) -> None:
    width, height, tile, overlap = plan
    owners = np.zeros((height, width), dtype=int) if width * height < 400_000 else None
    area = 0
    for t in plan_tiles(width, height, tile, overlap):
        x0, y0, x1, y1 = t.core
        area += (x1 - x0) * (y1 - y0)
        assert x0 < x1 and y0 < y1
        if owners is not None:
            owners[y0:y1, x0:x1] += 1
    assert area == width * height
    assert owners is None or (owners == 1).all()


@given(plans())
def test_crops_lie_inside_and_keep_their_margin(plan: tuple[int, int, int, int]) -> None:
    width, height, tile, overlap = plan
    for t in plan_tiles(width, height, tile, overlap):
        assert (t.w, t.h) == (min(tile, width), min(tile, height))
        assert t.x >= 0 and t.x + t.w <= width and t.y >= 0 and t.y + t.h <= height
        x0, y0, x1, y1 = t.core
        assert x0 == 0 or x0 - t.x >= overlap
        assert y0 == 0 or y0 - t.y >= overlap
        assert x1 == width or t.x + t.w - x1 >= overlap
        assert y1 == height or t.y + t.h - y1 >= overlap


@given(plans(), st.lists(st.tuples(st.floats(-50, 5000), st.floats(-50, 5000)), max_size=20))
def test_any_point_even_outside_has_one_owner(
    plan: tuple[int, int, int, int], points: list[tuple[float, float]]
) -> None:
    tiles = plan_tiles(*plan)
    owners = sum((t.owns(np.array(points)).astype(int) for t in tiles), np.zeros(len(points), int))
    assert (owners == 1).all()


def test_a_point_on_a_seam_belongs_to_the_tile_that_begins_there() -> None:
    tiles = plan_tiles(300, 100, 200, 20)
    seam = tiles[0].core[2]
    assert not tiles[0].owns([[seam, 50]])[0]
    assert tiles[1].owns([[seam, 50]])[0]


def test_small_image_is_one_tile_and_crop_is_the_image() -> None:
    image = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    tiles = plan_tiles(40, 30, 64, 8)
    assert tiles == [Tile(0, 0, 40, 30, (0, 0, 40, 30), 40, 30)]
    assert np.array_equal(tiles[0].crop(image), image)


@pytest.mark.parametrize("plan", [(0, 10, 8, 1), (10, 10, 8, 4), (10, 10, 8, -1), (10, 10, 0, 0)])
def test_senseless_plans_are_refused(plan: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="pixels"):
        plan_tiles(*plan)
