"""Varied looks and orientations: pixels stay pixels, the middle stays the middle."""

import numpy as np
import pytest

from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.training.config import AugmentSection
from bloodfilm.training.data.augment import (
    random_orientation,
    random_stretch,
    transform_boxes,
    vary_appearance,
)
from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM, augmented_crop, plain_crop
from fake_bundle import Disc, draw
from tiny import STILL


def rng(*seed):
    return np.random.default_rng(seed)


def noise(size=40):
    return rng(1).integers(1, 256, (size, size, 3), dtype=np.uint8)


def test_strength_zero_changes_nothing():
    image = noise()
    varied = vary_appearance(image, rng(0), STILL).astype(int)
    assert np.abs(varied - image).max() <= 1


@pytest.mark.parametrize(
    ("part", "strong"), [("stain", 1.0), ("light", 3.0), ("blur", 4.0), ("noise", 6.0)]
)
def test_every_part_does_something_and_repeats_exactly(part, strong):
    image = noise()
    strength = STILL.model_copy(update={part: strong})
    looks = [vary_appearance(image, rng(i), strength) for i in range(6)]
    assert max(np.abs(a.astype(int) - image).max() for a in looks) > 3
    assert all((vary_appearance(image, rng(i), strength) == a).all() for i, a in enumerate(looks))
    assert all(a.dtype == np.uint8 and a.shape == image.shape for a in looks)


def test_dyes_leave_the_clear_background_clear():
    strength = STILL.model_copy(update={"stain": 1.0, "permute": 1.0})
    background = np.full((8, 8, 3), 245, np.uint8)
    assert all((vary_appearance(background, rng(i), strength) == 245).all() for i in range(5))


def test_mild_images_are_varied_less():
    image = noise()

    def change(mild):
        strength = STILL.model_copy(update={"stain": 1.0, "mild": mild})
        return np.mean(
            [np.abs(vary_appearance(image, rng(i), strength) - 1.0 * image) for i in range(8)]
        )

    assert 0 < change(1.0) < 0.6 * change(0.0)


def test_there_are_eight_orientations_equally_often():
    seen = [tuple(random_orientation(rng(7, i)).astype(int).ravel()) for i in range(400)]
    counts = {m: seen.count(m) for m in set(seen)}
    assert len(counts) == 8 and min(counts.values()) > 20
    assert all(abs(np.linalg.det(np.reshape(m, (2, 2)))) == 1 for m in counts)


def test_stretches_stay_within_their_bounds():
    strength = AugmentSection(scale=0.2, aspect=0.1)
    logs = np.log([np.diag(random_stretch(rng(i), strength)) for i in range(200)])
    assert np.abs(logs.mean(1)).max() <= 0.2 and np.abs(logs.mean(1)).max() > 0.15
    assert np.abs(logs[:, 0] - logs[:, 1]).max() <= 0.1
    assert (random_stretch(rng(0), STILL) == np.eye(2)).all()


def test_boxes_go_through_turns_mirrors_and_stretches():
    quarter = np.array([[0, -2, 10], [1, 0, 0.0]])
    assert transform_boxes(np.array([[1, 2, 3, 1.0]]), quarter).tolist() == [[4, 1, 2, 3]]
    assert transform_boxes(np.zeros((0, 4)), quarter).shape == (0, 4)


def stored_crop(x=16.0, y=13.0):
    """A crop as `load_crops` stores it, of an upright ellipse-like pair of discs."""
    discs = [Disc(x, y, 9.0, (90, 60, 120)), Disc(x + 6, y, 5.0, (40, 30, 90))]
    image = draw(discs, (200, 160), 0.16)
    view = canonical_view(image, prior=ScalePrior(0.16, 1.0))
    at = [(x / 0.16, y / 0.16)]
    return view.crops(image, at, STORE_SIZE, STORE_UM)[0], view.crops(image, at)[0]


def test_a_plain_crop_is_what_the_runtime_cuts():
    stored, runtime = stored_crop()
    ours = plain_crop(stored)
    assert ours.shape == runtime.shape == (128, 128, 3)
    difference = np.abs(ours.astype(int) - runtime)
    assert difference.mean() < 1.5 and np.median(difference) <= 1


def middle(crop):
    ys, xs = np.nonzero(crop[..., 1] < 150)
    return np.array([xs.mean(), ys.mean()]) + 0.5


def test_a_varied_crop_keeps_the_cell_in_the_middle():
    stored, _ = stored_crop()
    lopsided = middle(plain_crop(stored)) - 64
    places = [middle(augmented_crop(stored, rng(i), STILL)) - 64 for i in range(30)]
    assert max(np.abs(p).max() for p in places) < np.abs(lopsided).max() + 1
    assert len({tuple(np.round(p)) for p in places}) > 3  # it is turned
    shifted = STILL.model_copy(update={"shift": 0.1})
    far = [np.abs(middle(augmented_crop(stored, rng(i), shifted)) - 64).max() for i in range(30)]
    assert 6 < max(far) < 12.8 + np.abs(lopsided).max() + 1
