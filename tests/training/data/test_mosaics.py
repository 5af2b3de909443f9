"""Mosaics: boxes and regions follow the pixels, whatever is done to them."""

import numpy as np
import pytest

from bloodfilm.core import Region
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.data import mosaics as module
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.mosaics import Mosaics
from tiny import STILL

COLOURS = np.array([(90, 40, 120), (200, 120, 120), (150, 90, 200)], np.uint8)
TURNS = [
    mirror @ np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), k)
    for mirror in (np.eye(2), np.diag([-1, 1]))
    for k in range(4)
]


def field(boxes=(), kinds=None, size=(600, 500), region=None, ignore=(), repeat=1.0):
    """A field at twice the training scale with a coloured rectangle for each box."""
    image = np.full((size[1], size[0], 3), 245, np.uint8)
    kinds = [0] * len(boxes) if kinds is None else kinds
    for (x, y, w, h), kind in zip(boxes, kinds, strict=True):
        image[y : y + h, x : x + w] = COLOURS[kind]
    return CanonicalField(
        image,
        np.array(boxes, float).reshape(-1, 4),
        np.array(kinds, np.int64),
        np.array(ignore, float).reshape(-1, 4),
        Region.everything() if region is None else region,
        repeat,
    )


def scattered(seed=0, size=(600, 500)):
    rng = np.random.default_rng(seed)
    boxes = []
    for x in range(10, size[0] - 90, 100):
        for y in range(10, size[1] - 90, 90):
            w, h = rng.integers(24, 80, 2)
            boxes.append((x, y, int(w), int(h)))
    return field(boxes, rng.integers(0, 3, len(boxes)), size)


def extent(image, colour):
    """The rectangle of pixels nearer to a colour than to the background, to half a pixel."""
    apart = np.abs(image.astype(float) - colour).sum(2)
    weight = 1 - np.clip(apart / np.abs(245.0 - colour).sum(), 0, 1)
    ys, xs = np.nonzero(weight > 0.5)
    return np.array([xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()])


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("stretch", [(1.0, 1.0), (1.3, 0.8), (0.9, 0.93)])
def test_boxes_follow_the_pixels(monkeypatch, turn, stretch):
    monkeypatch.setattr(module, "random_orientation", lambda _: TURNS[turn])
    monkeypatch.setattr(module, "random_stretch", lambda *_: np.diag(stretch))
    one = field([(110, 60, 81, 46)], size=(300, 260))
    image, target = Mosaics([one], 128, STILL, 0)[0, 0]
    whole = target.boxes[(target.boxes[:, 2] * target.boxes[:, 3]).argmax()]
    assert sorted(whole[2:]) == pytest.approx(
        sorted(np.abs(TURNS[turn] @ np.diag(stretch)) @ [81, 46] / 2), abs=0.01
    )
    assert np.abs(extent(image, COLOURS[0]) - whole).max() <= 1.0


def test_the_same_number_gives_the_same_image_whatever_came_before():
    one, two = (Mosaics([scattered(0), scattered(1)], 160, AugmentSection(), 5) for _ in range(2))
    two[0, 3], two[1, 1]
    image, target = one[2, 7]
    again, retarget = two[2, 7]
    assert (image == again).all()
    for name in ("boxes", "type_ids", "weights", "known"):
        assert (getattr(target, name) == getattr(retarget, name)).all()
    others = [one[2, 8], one[3, 7], Mosaics(one.pool, 160, one.augment, 6)[2, 7]]
    assert all((other[0] != image).any() for other in others)


@pytest.mark.parametrize("size", [(600, 500), (150, 170), (61, 47)])
def test_boxes_lie_on_the_canvas_and_are_of_their_kind(size):
    """Also of fields smaller than it, many of which then lie side by side."""
    few = field([(6, 7, 25, 30)], [1], size)
    fields = [scattered(0, size), scattered(3, size)] if size[0] > 100 else [few]
    seen = 0
    for number in range(6):
        image, target = Mosaics(fields, 128, STILL, 1)[0, number]
        assert image.shape == (128, 128, 3) and target.known.shape == (32, 32)
        low, high = target.boxes[:, :2], target.boxes[:, :2] + target.boxes[:, 2:]
        assert (low >= 0).all() and (high <= 128).all() and (high > low).all()
        for (x, y), kind in zip((low + high) / 2, target.type_ids, strict=True):
            colour = image[min(int(y), 127), min(int(x), 127)].astype(int)
            assert np.abs(COLOURS.astype(int) - colour).sum(1).argmin() == kind
            seen += 1
        assert (target.weights == 1).all()
    assert seen > 10


def test_every_visible_cell_is_in_the_truth_or_unknown():
    """No cell's pixels are labelled as background."""
    for number in range(6):
        image, target = Mosaics([scattered(2)], 128, STILL, 4)[0, number]
        centres = (np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1) + 0.5) * 4
        inside = np.zeros((32, 32), bool)
        for x, y, w, h in target.boxes:
            inside |= ((centres > [x, y]) & (centres < [x + w, y + h])).all(-1)
        coloured = image[2::4, 2::4].min(2) < 215
        deep = coloured & (image[1::4, 1::4].min(2) < 215)
        assert not (deep & target.known & ~inside).any()


POLYGON = [(60.0, 40.0), (420.0, 90.0), (500.0, 430.0), (260.0, 200.0), (90.0, 380.0)]


@pytest.mark.parametrize("number", range(8))
def test_the_region_is_carried_exactly(number):
    region = Region.union([Region.polygon(POLYGON), Region.rect(431, 31, 133, 99)])
    one = field(region=region)
    one.image[region.mask(600, 500)] = (0, 255, 0)
    strength = STILL.model_copy(update={"scale": 0.2, "aspect": 0.1})
    image, target = Mosaics([one], 160, strength, 9)[0, number]
    assert target.known.any() and not target.known.all()
    # A location's centre is the corner of four pixels.
    apart = np.abs(image.astype(int) - [0, 255, 0]).sum(2)
    corners = np.stack([apart[dy::4, dx::4] for dy in (1, 2) for dx in (1, 2)])
    inside, outside = (corners < 20).all(0), (corners > 250).all(0)
    assert target.known[inside].all() and not target.known[outside].any()
    assert (inside | outside).mean() > 0.9


def test_the_border_of_a_region_falls_to_a_fraction_of_a_pixel(monkeypatch):
    monkeypatch.setattr(module, "random_orientation", lambda _: np.eye(2))
    for left, first in (
        (19.9, 2),
        (20.1, 3),
    ):  # in training pixels 9.95 and 10.05; centres 2, 6, 10
        one = field(region=Region.rect(left, 0, 900, 900), size=(256, 256))
        known = Mosaics([one], 128, STILL, 0)[0, 0][1].known
        assert not known[:, :first].any() and known[:, first:].all()


def test_fields_of_which_nothing_or_all_is_known(monkeypatch):
    assert not Mosaics([field(region=Region.nothing())], 128, STILL, 0)[0, 0][1].known.any()
    assert Mosaics([field()], 128, STILL, 0)[0, 0][1].known.all()


def test_ignore_boxes_are_unknown_ground(monkeypatch):
    monkeypatch.setattr(module, "random_orientation", lambda _: np.eye(2))
    one = field([(20, 20, 40, 40)], ignore=[(100, 40, 60, 32)], size=(256, 256))
    target = Mosaics([one], 128, STILL, 0)[0, 0][1]
    wanted = np.ones((32, 32), bool)
    wanted[5:9, 13:20] = False  # centres 54 ... 78 across, 22 ... 34 down
    assert (target.known == wanted).all()
    assert len(target.boxes) == 1


def test_a_sliver_of_a_cell_is_neither_cell_nor_background(monkeypatch):
    monkeypatch.setattr(module, "random_orientation", lambda _: np.eye(2))
    mosaics = Mosaics([field([(240, 40, 80, 60)], size=(560, 256))], 128, STILL, 0)
    shares = set()
    for number in range(100):
        image, target = mosaics[0, number]
        visible = (image[..., 1] < 140).sum() / (40 * 30)
        if 0.12 < visible < 0.28:
            assert not len(target.boxes) and not target.known.all()
            shares.add("sliver")
        elif visible > 0.32:
            assert len(target.boxes) == 1 and target.known.all()
            shares.add("cell")
    assert shares == {"sliver", "cell"}


def test_fields_are_drawn_as_often_as_their_repeat_says():
    fields = [field(size=(100, 100)), field(size=(100, 102), repeat=3.0)]
    mosaics = Mosaics(fields, 64, STILL, 0)
    pieces = mosaics.pool.pieces((0, 0), np.random.default_rng(0))
    second = sum(next(pieces).field is fields[1] for _ in range(800))
    assert 540 < second < 660


def test_pieces_side_by_side_keep_their_own_regions():
    """A location belongs to the piece its centre lies on, wherever the seam runs."""
    marked, unmarked = field(size=(102, 94)), field(size=(86, 118), region=Region.nothing())
    marked.image[:], unmarked.image[:] = 200, 100
    for number in range(4):
        image, target = Mosaics([marked, unmarked], 160, STILL, 2)[0, number]
        corners = np.stack([image[dy::4, dx::4, 0] for dy in (1, 2) for dx in (1, 2)])
        on_unmarked, elsewhere = (corners == 100).all(0), (corners != 100).all(0)
        assert on_unmarked.any() and (corners == 200).all(0).any()
        assert not target.known[on_unmarked].any() and target.known[elsewhere].all()


def test_an_aimed_cut_holds_a_whole_cell_of_the_type():
    boxes = [(40, 1100, 60, 80), (700, 300, 70, 60), (200, 200, 60, 60)]
    large = field(boxes, kinds=[0, 0, 1], size=(1400, 1200))
    aimed = Mosaics([large], 128, STILL.model_copy(update={"aim": 1.0}), 0, aimed_at=0)
    plain = Mosaics([large], 128, STILL, 0)
    sizes = {(30.0, 40.0), (40.0, 30.0), (35.0, 30.0), (30.0, 35.0)}
    held = {True: 0, False: 0}
    for number in range(40):
        for mosaics in (aimed, plain):
            target = mosaics[0, number][1]
            cells = target.boxes[target.type_ids == 0]
            whole = any(tuple(np.round(b[2:])) in sizes for b in cells.tolist())
            held[mosaics is aimed] += whole
    assert held[True] == 40 and held[False] < 20


def test_optics_change_pixels_and_no_truth():
    one = scattered()
    dim = Mosaics([one], 160, STILL.model_copy(update={"optics": 1.0}), 0)
    plain = Mosaics([one], 160, STILL, 0)
    image, target = dim[0, 3]
    assert image.dtype == np.uint8 and (image == dim[0, 3][0]).all()
    assert (image != plain[0, 3][0]).any()
    # The first piece lies where it lay: chance of the optics is drawn after its place.
    assert (target.boxes[0] == plain[0, 3][1].boxes[0]).all()
