"""Uneven light: found where it is, left alone where it is not, divided out, recorded."""

import json
from itertools import permutations

import numpy as np
import pytest

from bloodfilm.core.errors import DataError
from bloodfilm.imaging.illumination import (
    EVEN,
    MIN_STRENGTH,
    Illumination,
    Survey,
    _median,
    _quantile,
    better,
    of_field,
    of_folder,
    survey,
)
from bloodfilm.imaging.red_cells import background_colour
from bloodfilm.imaging.scale import OUTLINE_TO_BOX, measure, measure_fields, pool
from imaging.cameras import nucleus, refractile, spotted, vignetted
from imaging.drawing import ellipse, field

WHITE = (205, 190, 195)


def glass_spread(image: np.ndarray) -> float:
    """How much the glass differs between nine parts of a field: largest ratio less 1."""
    height, width = image.shape[:2]
    parts = [
        np.percentile(
            image[j * height // 3 : (j + 1) * height // 3, i * width // 3 : (i + 1) * width // 3],
            80,
            axis=(0, 1),
        )
        for i in range(3)
        for j in range(3)
    ]
    return float((np.max(parts, axis=0) / np.min(parts, axis=0)).max() - 1)


def test_a_coloured_vignette_is_divided_out() -> None:
    plain = field(white=WHITE, ink=(170, 130, 140), count=60)
    image = vignetted(plain)
    light = of_field(survey(image))
    assert light.method == "field"
    assert 0.3 < light.strength < 0.5
    assert glass_spread(image) > 0.25
    assert glass_spread(light.even(image)) < 0.04


def test_red_cells_under_a_vignette_are_measured() -> None:
    image = vignetted(field(white=WHITE, ink=(172, 150, 158), count=60))
    m = measure(image)
    assert m.cells >= 15
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(40, rel=0.05)
    assert m.pixel_aspect_ratio == pytest.approx(1, abs=0.05)


def test_pale_refractile_cells_under_a_vignette_are_measured() -> None:
    m = measure(vignetted(refractile(), (0.4, 0.25, 0.3)))
    assert m.cells >= 10
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(40, rel=0.1)


@pytest.mark.parametrize("cell", [(40, 40), (79, 79), (30, 52)])
def test_an_even_field_is_left_as_it_is(cell: tuple[int, int]) -> None:
    image = field(cell=cell)
    m = measure(image)
    assert m.corrections.illumination.method == "none"
    assert m.corrections.illumination.strength < MIN_STRENGTH
    assert m.corrections.apply(image) is image


def test_a_white_cell_that_fills_a_close_up_is_no_shading() -> None:
    image = field(size=(360, 360), cell=(79, 79), count=9)
    nucleus(image, 180, 170, 170)
    assert of_field(survey(image)).method == "none"
    fields = []
    for seed in range(8):
        image = field(size=(360, 360), cell=(79, 79), count=9, seed=seed)
        nucleus(image, 180, 180, 150)
        fields.append(survey(image))
    assert of_folder(fields).method == "none"


def test_cells_crowded_in_one_half_are_no_shading() -> None:
    image = np.full((600, 600, 3), WHITE, np.uint8)
    rng = np.random.default_rng(0)
    for x in range(10, 600, 21):
        for y in range(310, 600, 21):
            at = (x + rng.uniform(-2, 2), y + rng.uniform(-2, 2))
            ellipse(image, at, (20, 20), (1, 1, 0), (170, 90, 160))
    assert of_field(survey(image)).method == "none"


def test_a_folder_shows_a_reflex_that_no_field_can() -> None:
    fields = [
        spotted(vignetted(field(white=(150, 140, 145), count=50, seed=s)), (200, 380), 40, 1.4)
        for s in range(8)
    ]
    surveys = [survey(image) for image in fields]
    common = of_folder(surveys)
    assert (common.method, common.fields) == ("folder", 8)
    spot = common.even(fields[0])[360:400, 180:220]
    glass = background_colour(common.even(fields[0]))
    assert np.percentile(spot, 80, axis=(0, 1)) == pytest.approx(glass, rel=0.1)
    for seen in surveys:
        assert better(seen, common) is common


def test_the_order_of_the_fields_does_not_matter() -> None:
    surveys = [survey(vignetted(field(white=WHITE, seed=s, size=(300, 200)))) for s in range(6)]
    maps = {of_folder(order) for order in list(permutations(surveys))[::97]}
    assert len(maps) == 1


def test_few_fields_and_other_sizes_make_no_folder() -> None:
    ours = [survey(vignetted(field(white=WHITE, seed=s, size=(300, 200)))) for s in range(5)]
    assert of_folder(ours) == EVEN
    theirs = [survey(vignetted(field(white=WHITE, seed=s, size=(200, 300)))) for s in range(3)]
    assert of_folder([*ours, *theirs]) == EVEN
    assert of_folder([]) == EVEN


def test_a_field_of_another_camera_keeps_its_own_light() -> None:
    ours = [survey(vignetted(field(white=WHITE, seed=s))) for s in range(6)]
    common = of_folder(ours)
    other = survey(vignetted(field(white=WHITE, seed=9), (0.0, 0.4, 0.4), (0.1, 0.9)))
    assert better(other, common).method == "field"
    even = survey(field(white=WHITE, seed=9))
    assert better(even, common).method == "none"
    shape = survey(field(white=WHITE, size=(600, 300)))
    assert better(shape, common).method == "none"


def test_fields_are_measured_with_the_light_of_their_folder() -> None:
    images = {s: vignetted(field(white=WHITE, seed=s)) for s in range(7)}
    pooled, measured = measure_fields([*images, 99], images.get)
    assert set(measured) == set(images)
    assert pooled.light.illumination.method == "folder"
    assert {m.corrections.illumination.method for m in measured.values()} == {"folder"}
    assert pooled.groups[0].diameter / OUTLINE_TO_BOX == pytest.approx(40, rel=0.05)
    assert pool([]).light.illumination == EVEN


def test_each_camera_of_a_mixed_folder_has_its_own_light() -> None:
    # More fields of one image size, which are even, do not take the light from those of another.
    even = {s: field(white=WHITE, seed=s) for s in range(8)}
    shaded = {20 + s: vignetted(field(white=WHITE, size=(600, 400), seed=s)) for s in range(7)}
    alone, by_itself = measure_fields(shaded, shaded.get)
    pooled, measured = measure_fields([*even, *shaded], {**even, **shaded}.get)
    assert pooled.light_of(600, 400) == alone.light
    assert pooled.light_of(600, 400).illumination.method == "folder"
    assert {measured[k].corrections.illumination.method for k in even} == {"none"}
    for key in shaded:
        assert measured[key].corrections == by_itself[key].corrections
    assert pooled.light_of(10, 10) == pooled.light


def test_a_part_of_the_field_is_divided_like_the_whole() -> None:
    image = vignetted(field(white=WHITE, size=(500, 400)))
    light = of_field(survey(image))
    whole = light.even(image)
    part = light.divide(image[100:220, 50:350], (50, 100, 300, 120), (500, 400))
    assert np.abs(part.astype(int) - whole[100:220, 50:350]).max() <= 1


def test_large_fields_are_divided_in_parts_without_seams() -> None:
    light = of_field(survey(vignetted(field(white=WHITE, size=(500, 400)))))
    grey = np.full((300, 4500, 3), 120, np.uint8)
    drawn = light.divide(grey, (0, 0, 4500, 300), (4500, 300)).astype(int)
    assert np.abs(np.diff(drawn, axis=1)).max() <= 1


def test_json_round_trip_and_what_is_refused() -> None:
    light = of_field(survey(vignetted(field(white=WHITE))))
    record = json.loads(json.dumps(light.to_json()))
    assert Illumination.from_json(record) == light
    assert Illumination.from_json(EVEN.to_json()) == EVEN
    for broken in (
        {},
        {**record, "map": "AAAA"},
        {**record, "method": "guess"},
    ):
        with pytest.raises(DataError, match="illumination"):
            Illumination.from_json(broken)


def test_outside_a_round_field_nothing_counts() -> None:
    image = vignetted(field(white=WHITE))
    mask = np.zeros(image.shape[:2], bool)
    mask[100:500, 100:500] = True
    seen = survey(np.where(mask[..., None], image, 0).astype(np.uint8), mask)
    assert isinstance(seen, Survey) and 0 < seen.valid.mean() < 0.5
    assert of_field(seen).strength < 0.5


@pytest.mark.parametrize("count", [1, 2, 7, 576, 577])
def test_medians_are_those_of_numpy(count):
    values = np.random.default_rng(count).normal(size=count)
    assert _median(values) == np.median(values)


@pytest.mark.parametrize("percent", [0.0, 12.0, 75.0, 95.0, 100.0])
def test_percentiles_of_blocks_are_those_of_numpy(percent):
    values = np.random.default_rng(4).integers(0, 256, (7, 3, 144)).astype(np.uint16)
    ordered = np.sort(values, axis=-1)
    assert np.array_equal(_quantile(ordered, percent), np.percentile(values, percent, axis=-1))
