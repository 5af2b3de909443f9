"""Another film's looks: what varies, what stays, and colours taken over from another crop."""

import cv2
import numpy as np
import pytest

from bloodfilm.imaging.colour_normalisation import ColourStandard, balanced_lab, normalise
from bloodfilm.training.config import AppearanceSection, AugmentSection
from bloodfilm.training.data.appearance import (
    colour_profile,
    measure_white,
    transfer_colours,
    vary_crop,
    vary_optics,
    vary_stain,
)
from bloodfilm.training.data.crop_views import CropView

STANDARD = ColourStandard(nucleus=None)
STILL = AugmentSection(scale=0, aspect=0, shift=0)
PLAIN = AppearanceSection(normalise=True, stain=0, optics=0, transfer=0, transfer_lone=0)


def drawn(side=128, nucleus=(95, 60, 150), glass=(230, 228, 224)):
    image = np.full((side, side, 3), glass, np.uint8)
    for x, y in ((0.1, 0.15), (0.85, 0.2), (0.15, 0.85)):
        cv2.circle(image, (round(x * side), round(y * side)), side // 7, (205, 150, 150), -1)
    cv2.circle(image, (side // 2, side // 2), side // 4, (200, 190, 220), -1)
    cv2.circle(image, (side // 2, side // 2), side // 6, nucleus, -1)
    return image


def rng(seed=0):
    return np.random.default_rng(seed)


def test_the_same_chance_gives_the_same_crop():
    crop, profile = drawn(), colour_profile(drawn(nucleus=(40, 90, 160)), STANDARD)
    strong = AppearanceSection(normalise=True)
    first, again = (vary_crop(crop, rng(5), strong, STANDARD, profile) for _ in range(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, vary_crop(crop, rng(6), strong, STANDARD, profile))


def test_without_strength_only_the_normalisation_is_a_little_off():
    crop = drawn()
    exact = normalise(crop, STANDARD).astype(float)
    off = [np.abs(vary_crop(crop, rng(i), PLAIN, STANDARD) - exact).mean() for i in range(20)]
    assert min(off) > 0 and np.mean(off) < 12


def test_stain_varies_cells_and_leaves_glass():
    image = drawn().astype(np.float32)
    varied = [vary_stain(image, rng(i), 1.0) for i in range(20)]
    glass = np.array([v[60, 4] for v in varied])
    nuclei = np.array([v[64, 64] for v in varied])
    assert np.abs(glass - image[60, 4]).max() < 3
    assert nuclei.std(axis=0).min() > 5


@pytest.mark.parametrize("side", [96, 128])
def test_optics_keep_shape_and_range_and_nearly_the_mean(side):
    image = drawn(side).astype(np.float32)
    for seed in range(60):
        varied = vary_optics(image, rng(seed), 1.0)
        assert varied.shape == image.shape and varied.dtype == np.float32
        assert varied.min() >= 0 and varied.max() <= 255
        # The cell stays where it was: darker than what surrounds it.
        assert varied[side // 2, side // 2].mean() < np.percentile(varied.mean(2), 80)


def test_profile_of_a_crop_changes_nothing_and_of_another_all():
    crop, other = drawn(), drawn(nucleus=(40, 90, 160))
    lab = balanced_lab(crop, STANDARD)
    own = transfer_colours(lab, colour_profile(crop, STANDARD), 1.0)
    assert np.abs(own.astype(int) - lab).mean() < 3
    taken = transfer_colours(lab, colour_profile(other, STANDARD), 1.0)
    goal = balanced_lab(other, STANDARD)[64, 64].astype(int)
    assert np.abs(taken[64, 64].astype(int) - goal).max() < 12
    assert np.array_equal(transfer_colours(lab, colour_profile(other, STANDARD), 0.0), lab)


def test_white_is_that_of_the_glass():
    assert measure_white(drawn().astype(np.float32)) == pytest.approx([230, 228, 224], abs=1)


def test_a_view_with_a_standard_turns_by_any_angle_about_the_cell():
    stored = drawn(224)
    stored[100:124, 112:160] = (60, 30, 120)  # a bar to the right of the middle
    view = CropView(0.175, STANDARD, PLAIN, STILL)
    angles = []
    for seed in range(24):
        seen = view.varied(stored, rng(seed))
        assert seen.shape == (128, 128, 3)
        dark = np.argwhere(seen.sum(axis=2) <= np.percentile(seen.sum(axis=2), 4))
        y, x = dark.mean(axis=0) - 63.5
        angles.append(np.arctan2(y, x))
    assert np.abs(np.mean(np.exp(1j * np.array(angles)))) < 0.6
