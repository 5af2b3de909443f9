"""Whether two fields show common glass: by patches, and in narrow strips by all that both show."""

import cv2
import numpy as np
import pytest

from bloodfilm.cases.candidates import CandidatePair
from bloodfilm.cases.landmarks import FieldDetail, common_scale, field_detail
from bloodfilm.cases.pairs import verify_pair
from fixtures.drawn_case import SIZE, UM, Shot, photograph

UM_PER_PX = 0.4


def texture(height, width, seed):
    """Return a detail image of blobs as large as cells."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def detail(pixels):
    return FieldDetail(pixels, np.full_like(pixels, 255))


def shifted(x, y=0.0):
    """Return the map, um, of a field whose left edge lies at `x` in the other."""
    return np.array([[1.0, 0.0, -x], [0.0, 1.0, -y]])


@pytest.mark.parametrize("strip", [4.0, 6.0, 9.0])
@pytest.mark.parametrize("off", [(0.0, 0.0), (0.8, -1.2)])
def test_a_strip_in_which_no_patch_fits_is_verified_by_what_both_show(strip, off):
    glass = texture(220, 500, 1)
    away = 200 - round(strip / UM_PER_PX)
    first, second = glass[:, :200].copy(), glass[:, away : away + 200].copy()
    second = np.clip(cv2.GaussianBlur(second, (0, 0), 1) * 0.9 + 10, 0, 255).astype(np.uint8)
    true = shifted(away * UM_PER_PX)
    guess = true + np.array([[0, 0, off[0]], [0, 0, off[1]]])
    pair = verify_pair(CandidatePair(0, 1, guess, 4), detail(first), detail(second), UM_PER_PX)
    assert pair is not None
    assert pair.matrix == pytest.approx(true, abs=0.4)
    assert pair.overlap_um2 == pytest.approx(strip * 220 * UM_PER_PX, rel=0.2)


@pytest.mark.parametrize("strip", [2.0, 4.0, 6.0, 9.0, 14.0])
def test_strips_of_other_glass_are_never_verified(strip):
    away = 200 - round(strip / UM_PER_PX)
    for seed in range(40):
        one, two = texture(220, 200, seed), texture(220, 200, 1000 + seed)
        guess = CandidatePair(0, 1, shifted(away * UM_PER_PX), 4)
        assert verify_pair(guess, detail(one), detail(two), UM_PER_PX) is None


def test_a_few_patches_do_not_outweigh_cells_that_only_one_field_shows():
    """Where one field is empty and the other is not, there is no patch to compare."""
    glass = texture(200, 200, 3)
    first, second = glass.copy(), glass.copy()
    second[75:] = 128
    first[:75, 75:] = 128
    first[:, 120:] = texture(200, 80, 4)
    guess = CandidatePair(0, 1, np.eye(2, 3), 6)
    assert verify_pair(guess, detail(first), detail(second), UM_PER_PX) is None
    half = glass.copy()
    half[150:] = 128
    assert verify_pair(guess, detail(glass), detail(half), UM_PER_PX) is not None


def test_drawn_fields_with_six_micrometres_in_common_are_verified():
    width, strip = SIZE[0] * UM, 6.0
    fields = photograph([Shot(60, 60), Shot(60 + width - strip, 60)], glass=(220, 120), seed=11)
    um = common_scale([f.result for f in fields])
    one, two = (field_detail(f.image, f.result, um) for f in fields)
    pair = verify_pair(CandidatePair(0, 1, shifted(width - strip, 0.5), 4), one, two, um)
    assert pair is not None
    assert pair.matrix == pytest.approx(shifted(width - strip), abs=0.4)
