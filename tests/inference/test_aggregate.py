"""Tiles joined to a field: whatever lies on a seam is there once."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bloodfilm.core.detections import Detections
from bloodfilm.imaging.tiles import plan_tiles
from bloodfilm.inference.aggregate import MARGIN, TileAggregator, aggregate

SIDE = 30.0


def seen_by(tile, centres, jitter, rng):
    """What a detector finds in a tile: whole cells in it, each a little off, by its own error."""
    inside = (centres > [tile.x + SIDE / 2, tile.y + SIDE / 2]) & (
        centres < [tile.x + tile.w - SIDE / 2, tile.y + tile.h - SIDE / 2]
    )
    c = centres[inside.all(axis=1)]
    c = c + rng.uniform(-jitter, jitter, c.shape) - [tile.x, tile.y]
    n = len(c)
    boxes = np.concatenate([c - SIDE / 2, np.full((n, 2), SIDE)], axis=1)
    return Detections(boxes, rng.uniform(0.6, 1.0, n), np.ones(n, dtype=np.intp))


def cells(width, height, rng, step=40):
    xs = np.arange(20, width - 19, step)
    ys = np.arange(20, height - 19, step)
    grid = np.stack(np.meshgrid(xs, ys), -1).reshape(-1, 2).astype(float)
    return grid + rng.uniform(-3, 3, grid.shape)


@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(200, 900),
    height=st.integers(200, 700),
    jitter=st.floats(0, 3.5),
)
@example(seed=674, width=673, height=673, jitter=3.5)
def test_every_cell_is_found_once_wherever_the_seams_run(seed, width, height, jitter):
    rng = np.random.default_rng(seed)
    centres = cells(width, height, rng)
    centres = centres[
        ((centres > SIDE / 2) & (centres < [width - SIDE / 2, height - SIDE / 2])).all(axis=1)
    ]
    tiles = plan_tiles(width, height, 256, 48)
    found = aggregate(tiles, [seen_by(t, centres, jitter, rng) for t in tiles], 0.5)
    assert len(found) == len(centres)
    middle = found.boxes[:, :2] + SIDE / 2
    apart = np.abs(middle[:, None] - centres[None]).max(axis=2)
    assert (apart.min(axis=0) <= jitter + 1e-9).all()


def test_a_cell_that_each_tile_places_in_the_other_is_not_lost():
    left, right = plan_tiles(400, 200, 256, 48)
    seam = left.core[2]
    box = np.array([[0.0, 85.0, SIDE, SIDE]])

    def at(tile, x):
        shifted = box + np.array([x - SIDE / 2 - tile.x, 0, 0, 0])
        return Detections(shifted, np.array([0.9]), np.array([0]))

    lost_without_margin = [at(left, seam + 2.0), at(right, seam - 2.0)]
    assert len(aggregate([left, right], lost_without_margin, 0.5, margin=0.0)) == 0
    assert len(aggregate([left, right], lost_without_margin, 0.5)) == 1
    doubled_without_suppression = [at(left, seam - 2.0), at(right, seam + 2.0)]
    assert len(aggregate([left, right], doubled_without_suppression, 0.5)) == 1


def test_what_a_tile_sees_far_outside_its_core_is_not_its_business():
    left, right = plan_tiles(400, 200, 256, 48)
    seam = left.core[2]
    cut = Detections(
        np.array([[seam + MARGIN + 1 - SIDE / 2, 50.0, SIDE, SIDE]]), np.array([0.9]), np.array([0])
    )
    assert len(aggregate([left, right], [cut, Detections.empty()], 0.5)) == 0


def test_one_tile_passes_through():
    (tile,) = plan_tiles(100, 80, 256, 48)
    found = Detections(np.array([[-2.0, 70.0, 12.0, 14.0]]), np.array([0.9]), np.array([2]))
    joined = aggregate([tile], [found], 0.5)
    np.testing.assert_array_equal(joined.boxes, found.boxes)


def test_two_cells_that_touch_at_a_seam_stay_two():
    left, right = plan_tiles(400, 200, 256, 48)
    seam = left.core[2]

    def at(tile, error):
        """Both tiles see both cells, one on each side of the seam, overlapping by a third."""
        places = np.array([[seam - 7.5, 100.0], [seam + 7.5, 100.0]]) + error
        boxes = np.concatenate([places - SIDE / 2, np.full((2, 2), SIDE)], axis=1)
        boxes -= [tile.x, tile.y, 0, 0]
        return Detections(boxes, np.array([0.9, 0.8]), np.zeros(2, dtype=np.intp))

    assert len(aggregate([left, right], [at(left, 2.0), at(right, -2.0)], 0.5)) == 2


def test_a_cell_where_four_tiles_meet_is_one():
    tiles = plan_tiles(400, 400, 256, 48)
    x, y = tiles[0].core[2:]
    places = np.array([[x - 4, y - 4], [x + 4, y - 4], [x - 4, y + 4], [x + 4, y + 4.0]])
    found = []
    for tile, place in zip(tiles, places, strict=True):
        corner = place - SIDE / 2 - [tile.x, tile.y]
        box = np.array([[*corner, SIDE, SIDE]])
        found.append(Detections(box, np.array([0.9]), np.zeros(1, dtype=np.intp)))
    assert len(aggregate(tiles, found, 0.5)) == 1


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    width=st.integers(300, 700),
    height=st.integers(300, 900),
)
def test_what_scores_less_changes_nothing_and_rows_settle_as_they_are_complete(seed, width, height):
    rng = np.random.default_rng(seed)
    tiles = plan_tiles(width, height, 256, 48)
    parts = []
    for tile in tiles:
        n = int(rng.integers(0, 60))
        boxes = np.concatenate(
            [rng.uniform(0, [tile.w, tile.h], (n, 2)), rng.uniform(20, 40, (n, 2))], axis=1
        )
        parts.append(Detections(boxes, rng.integers(1, 100, n) / 100, rng.integers(0, 2, n)))
    certain = (0.6, 0.5)
    whole = aggregate(tiles, parts, 0.5, certain)
    aggregator = TileAggregator(tiles, 0.5, certain)
    settled = [d for pair in zip(tiles, parts, strict=True) for d in aggregator.add(*pair)]
    rows = len({tile.y for tile in tiles})
    assert len(settled) == rows - 1
    streamed = Detections.merge([*settled, aggregator.finish()])
    key = np.lexsort((*streamed.boxes.T, -streamed.scores))
    other = np.lexsort((*whole.boxes.T, -whole.scores))
    np.testing.assert_array_equal(streamed.boxes[key], whole.boxes[other])
    # Certain detections do not depend on others.
    above = [p.take(p.scores >= np.array(certain)[p.type_ids]) for p in parts]
    alone = aggregate(tiles, above, 0.5, certain)
    among = whole.take(whole.scores >= np.array(certain)[whole.type_ids])
    key = np.lexsort((*alone.boxes.T, -alone.scores))
    other = np.lexsort((*among.boxes.T, -among.scores))
    np.testing.assert_array_equal(alone.boxes[key], among.boxes[other])


def test_tiles_must_come_in_the_order_of_the_plan():
    tiles = plan_tiles(400, 400, 256, 48)
    aggregator = TileAggregator(tiles, 0.5)
    with pytest.raises(ValueError, match="not the next"):
        list(aggregator.add(tiles[1], Detections.empty()))
    with pytest.raises(ValueError, match="0 of 4"):
        aggregator.finish()


def test_what_is_settled_does_not_reach_into_the_next_row():
    tiles = plan_tiles(200, 900, 256, 48)
    aggregator = TileAggregator(tiles, 0.5)
    for tile in tiles:
        boxes = np.array([[50.0, 20.0 + 60 * i, 30.0, 30.0] for i in range(4)])
        found = Detections(boxes, np.full(4, 0.9), np.zeros(4, dtype=np.intp))
        for done in aggregator.add(tile, found):
            following = tiles[tiles.index(tile) + 1]
            assert (done.boxes[:, 1] + done.boxes[:, 3] <= following.y).all()
