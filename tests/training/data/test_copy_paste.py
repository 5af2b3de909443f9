"""Marked cells copied into other fields: whole, where nothing is hidden, and known there."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core import Region
from bloodfilm.core.boxes import centres, intersection
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.copy_paste import CopyPasteSampler
from bloodfilm.training.data.samplers import InMemorySampler

COLOURS = np.array([(90, 40, 120), (220, 120, 120), (150, 90, 200)], np.uint8)
GROUND = 245


def field(cells, region=None, size=(200, 150), values=None):
    """Return ellipses (x, y, w, h, kind) in the colour of their kind on light ground."""
    image = np.full((size[1], size[0], 3), GROUND, np.uint8)
    ys, xs = np.mgrid[: size[1], : size[0]] + 0.5
    for x, y, w, h, kind in cells:
        inside = ((xs - x - w / 2) / w) ** 2 + ((ys - y - h / 2) / h) ** 2 <= 0.25
        image[inside] = COLOURS[kind]
    rows = np.array(cells, float).reshape(-1, 5)
    return CanonicalField(
        image, rows[:, :4], rows[:, 4].astype(int), np.zeros((0, 4)),
        Region.everything() if region is None else region, values=values,
    )  # fmt: skip


RED = [(10 + 40 * i, 60 + 30 * j, 24, 24, 1) for i in range(4) for j in range(2)]
GIVER = field([(80, 20, 40, 30, 0), *RED])


def drawn(fields, into, copies, seed=0):
    pool = CopyPasteSampler(fields, InMemorySampler([into], None), copies)
    return next(pool.pieces((0, 0), np.random.default_rng(seed))).field


@pytest.mark.parametrize("seed", range(20))
def test_a_copy_is_a_marked_cell_in_a_free_place_that_is_known(seed):
    into = field([(20, 20, 30, 30, 1)], Region.rect(0, 0, 60, 60))
    more = drawn([GIVER], into, 4.0, seed)
    new = more.boxes[1:]
    assert (more.boxes[0] == into.boxes[0]).all() and len(more.type_ids) == len(more.boxes)
    assert not intersection(new, into.boxes).any()
    assert all(not intersection(new[i : i + 1], new[:i]).any() for i in range(len(new)))
    assert more.region.contains(centres(new)).all()
    for (x, y, w, h), kind in zip(new, more.type_ids[1:], strict=True):
        assert sorted((w, h)) == ([30, 40] if kind == 0 else [24, 24])
        cut = more.image[int(y) : int(y + h), int(x) : int(x + w)]
        assert (cut[cut.shape[0] // 2, cut.shape[1] // 2] == COLOURS[kind]).all()
        # The box is as tight as it was: the colour reaches each of its sides, and ends there.
        hit = np.abs(more.image.astype(int) - COLOURS[kind]).max(axis=2) < 3
        around = hit[int(y) - 1 : int(y + h) + 1, int(x) - 1 : int(x + w) + 1]
        assert around[1:-1, 1:-1].any(axis=0).mean() > 0.9
        assert around[1:-1, 1:-1].any(axis=1).mean() > 0.9
    # What was not copied over is as it was, and as known or unknown.
    far = np.ones(more.image.shape[:2], bool)
    for x, y, w, h in new:
        far[
            max(int(y - h / 4), 0) : int(y + 1.25 * h), max(int(x - w / 4), 0) : int(x + 1.25 * w)
        ] = 0
    assert (more.image[far] == into.image[far]).all()
    points = np.argwhere(far)[::97][:, ::-1] + 0.5
    assert (more.region.contains(points) == into.region.contains(points)).all()


def test_every_marked_kind_is_copied_equally_often():
    into = field([], Region.nothing(), size=(400, 400))
    kinds = np.concatenate([drawn([GIVER], into, 4.0, seed).type_ids for seed in range(60)])
    assert len(kinds) > 150 and 0.35 < (kinds == 0).mean() < 0.65


def test_nothing_that_is_marked_or_to_be_ignored_is_hidden():
    full = replace(field([(0, 0, 100, 150, 1)]), ignore=np.array([[100.0, 0, 100, 150]]))
    assert len(drawn([GIVER], full, 20.0).boxes) == 1


def test_cells_that_the_picture_cuts_are_not_copied():
    cut = field([(-10, 20, 40, 30, 0), (50, 50, 24, 24, 1), (150, 0, 40, 30, 0)])
    into = field([], size=(300, 300))
    kinds = [drawn([cut], into, 5.0, seed).type_ids for seed in range(10)]
    assert set(np.concatenate(kinds)) == {1}


def test_without_marked_cells_or_copies_fields_are_what_they_were():
    into = field([])
    assert drawn([into], into, 5.0) is into
    assert drawn([GIVER], into, 0.0) is into
    before = GIVER.image.copy()
    assert len(drawn([GIVER], GIVER, 9.0).boxes) > len(GIVER.boxes)
    assert (GIVER.image == before).all() and len(GIVER.boxes) == 9


def test_attributes_come_along():
    said = np.eye(9, 4, dtype=np.float32)
    giver = replace(GIVER, values=said)
    more = drawn([giver], field([], Region.nothing(), size=(400, 400)), 6.0, seed=1)
    assert more.values is not None and len(more.values) == len(more.boxes) > 1
    white = more.type_ids == 0
    assert white.any() and (more.values[white] == said[0]).all()


def test_the_same_number_gives_the_same_copies():
    into = field([], Region.nothing(), size=(300, 300))
    one, two, other = (drawn([GIVER], into, 3.0, seed) for seed in (5, 5, 6))
    assert (one.image == two.image).all() and (one.boxes == two.boxes).all()
    assert one.boxes.shape != other.boxes.shape or (one.boxes != other.boxes).any()
