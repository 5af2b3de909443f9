"""Standard colours: what stain, lamp and camera change is undone, and what a cell is stays."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from bloodfilm.core.errors import DataError
from bloodfilm.imaging.colour_normalisation import (
    ColourStandard,
    Jitter,
    balanced_lab,
    measure_white,
    normalise,
    standardised,
)

STANDARD = ColourStandard()
SIDE = 128


def drawn_crop(nucleus: tuple[int, int, int] = (95, 60, 150)) -> NDArray[np.uint8]:
    """A nucleus in pale cytoplasm between red cells on clear glass."""
    image = np.full((SIDE, SIDE, 3), (235, 232, 228), np.uint8)
    for x, y in ((12, 20), (110, 30), (20, 112), (108, 105)):
        cv2.circle(image, (x, y), 20, (205, 150, 150), -1)
    cv2.circle(image, (64, 64), 34, (200, 190, 220), -1)
    cv2.circle(image, (64, 64), 24, nucleus, -1)
    return image


def lab(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """CIELAB, L* 0 to 100."""
    converted = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return converted.astype(np.float64)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    """Mean distance in CIELAB."""
    return float(np.linalg.norm(lab(a) - lab(b), axis=2).mean())


def test_glass_and_nucleus_come_to_the_standard() -> None:
    seen = normalise(drawn_crop(), STANDARD)
    assert np.abs(seen[64, 4].astype(int) - STANDARD.white).max() <= 2
    light, red_green, yellow_blue = lab(seen)[64, 64]
    white = lab(np.full((1, 1, 3), 240, np.uint8))[0, 0, 0]
    assert white - light == pytest.approx(STANDARD.depth, abs=2)
    assert STANDARD.nucleus is not None
    goal = np.arctan2(STANDARD.nucleus[1], STANDARD.nucleus[0])
    assert np.arctan2(yellow_blue, red_green) == pytest.approx(goal, abs=0.12)


@pytest.mark.parametrize(
    ("gain", "haze"),
    [((0.6, 0.6, 0.6), 0.0), ((1.0, 0.8, 0.75), 0.0), ((0.62, 0.7, 0.64), 0.0), ((1, 1, 1), 0.4)],
)
def test_lamp_white_balance_and_haze_hardly_show(gain: tuple[float, ...], haze: float) -> None:
    crop = drawn_crop()
    other = crop * np.array(gain) * (1 - haze) + 215 * haze
    changed = np.clip(other + 0.5, 0, 255).astype(np.uint8)
    before = difference(crop, changed)
    after = difference(normalise(crop, STANDARD), normalise(changed, STANDARD))
    assert before > 8
    assert after < before / 3


def test_a_bluish_and_a_reddish_nucleus_become_alike() -> None:
    blue, red = (normalise(drawn_crop(n), STANDARD) for n in ((70, 90, 170), (120, 60, 130)))
    plain = ColourStandard(nucleus=None)
    blue_as_it_is, red_as_it_is = (
        normalise(drawn_crop(n), plain) for n in ((70, 90, 170), (120, 60, 130))
    )
    apart = np.linalg.norm(lab(blue)[64, 64] - lab(red)[64, 64])
    assert apart < np.linalg.norm(lab(blue_as_it_is)[64, 64] - lab(red_as_it_is)[64, 64]) / 2


def test_noise_of_an_empty_crop_is_not_blown_up() -> None:
    rng = np.random.default_rng(0)
    empty = np.clip(200 + rng.normal(0, 1, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    assert normalise(empty, STANDARD).std() < 5 * empty.std() + 2


def test_white_is_that_of_the_place_and_black_is_no_glass() -> None:
    dim = (drawn_crop() * 0.5).astype(np.uint8)
    assert measure_white(dim) == pytest.approx([117, 116, 114], abs=2)
    assert measure_white(np.zeros((SIDE, SIDE, 3), np.uint8)).min() > 0


def test_jitter_moves_what_it_names() -> None:
    crop = drawn_crop()
    exact = normalise(crop, STANDARD)
    assert np.array_equal(standardised(balanced_lab(crop, STANDARD), STANDARD), exact)
    turned = standardised(balanced_lab(crop, STANDARD), STANDARD, Jitter(turn=0.5))
    before, after = (np.arctan2(*lab(i)[64, 64][[2, 1]]) for i in (exact, turned))
    assert after - before == pytest.approx(0.5, abs=0.1)
    darker = standardised(balanced_lab(crop, STANDARD), STANDARD, Jitter(light=0.2))
    assert lab(darker)[64, 64, 0] < lab(exact)[64, 64, 0] - 8


@pytest.mark.parametrize("standard", [STANDARD, ColourStandard(nucleus=None, depth=50.0)])
def test_standard_survives_json(standard: ColourStandard) -> None:
    assert ColourStandard.from_json(standard.to_json()) == standard


@pytest.mark.parametrize("change", [{"depth": "deep"}, {"nucleus": [1.0]}, {"nucleus": 3}])
def test_a_wrong_standard_is_named(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match="colour standard"):
        ColourStandard.from_json(STANDARD.to_json() | change)
