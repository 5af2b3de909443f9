"""Measuring: aspect ratio, scale and white point of drawn fields come back as drawn."""

import numpy as np
import pytest

from bloodfilm.imaging.corrections import Corrections
from bloodfilm.imaging.scale import OUTLINE_TO_BOX, Measurement, aspect_ratio_of, measure, pool
from imaging.drawing import ellipse, field

WHITES = [(235, 228, 215), (163, 164, 155), (255, 229, 202)]
INKS = [(205, 150, 140), (70, 100, 130), (150, 105, 165), (138, 142, 140)]


@pytest.mark.parametrize("cell", [(40, 40), (30, 52), (22, 22), (79, 79), (60, 45)])
def test_scale_and_aspect_ratio_of_a_field(cell: tuple[int, int]) -> None:
    m = measure(field(cell=cell, count=40))
    assert m.is_measurable
    assert m.diameter_x / OUTLINE_TO_BOX == pytest.approx(cell[0], rel=0.05)
    assert m.diameter_y / OUTLINE_TO_BOX == pytest.approx(cell[1], rel=0.05)
    assert m.pixel_aspect_ratio == pytest.approx(cell[0] / cell[1], rel=0.04)
    assert m.confidence > 0.5


@pytest.mark.parametrize("white", WHITES)
@pytest.mark.parametrize("ink", INKS)
def test_stain_and_illumination_do_not_matter(
    white: tuple[int, int, int], ink: tuple[int, int, int]
) -> None:
    m = measure(field(size=(480, 400), cell=(30, 52), white=white, ink=ink, count=30))
    assert m.white_point == pytest.approx(white, abs=3)
    assert m.pixel_aspect_ratio == pytest.approx(30 / 52, rel=0.05)


def test_dark_nuclei_platelets_and_clumps_are_not_the_ruler() -> None:
    image = field(cell=(40, 40), count=35, white=(165, 165, 158), ink=(132, 136, 140))
    rng = np.random.default_rng(3)
    for _ in range(6):
        x, y = rng.uniform(60, 580, 2)
        ellipse(image, (x, y), (70, 70), (1, 1, 0), (75, 35, 110))
        ellipse(image, (x + 50, y), (9, 9), (1, 1, 0), (110, 80, 130))
    m = measure(image)
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(40, rel=0.07)
    assert m.pixel_aspect_ratio == pytest.approx(1, abs=0.06)


def test_elongated_cells_in_all_directions_do_not_bias_the_aspect_ratio() -> None:
    rng = np.random.default_rng(0)
    angle = rng.uniform(0, np.pi, 4000)
    long, short = 100.0, 36.0
    xx = long * np.cos(angle) ** 2 + short * np.sin(angle) ** 2
    yy = long * np.sin(angle) ** 2 + short * np.cos(angle) ** 2
    xy = (long - short) * np.sin(angle) * np.cos(angle)
    s = 0.562
    assert aspect_ratio_of(np.stack([s * s * xx, yy, s * xy], axis=1)) == pytest.approx(s, rel=0.02)


@pytest.mark.parametrize("level", [0, 128, 255])
def test_an_even_image_does_not_speak(level: int) -> None:
    m = measure(np.full((200, 300, 3), level, np.uint8))
    assert not m.is_measurable
    assert m.confidence == 0
    assert (m.diameter, m.pixel_aspect_ratio) == (0, 1)


def test_noise_does_not_speak() -> None:
    rng = np.random.default_rng(0)
    assert not measure(rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)).is_measurable
    assert not measure(
        np.clip(rng.normal(200, 3, (300, 300, 3)), 0, 255).astype(np.uint8)
    ).is_measurable


def test_cells_cut_by_the_edge_are_not_counted() -> None:
    image = np.full((100, 100, 3), 230, np.uint8)
    for x, y in ((0, 50), (100, 50), (50, 0), (50, 100)):
        ellipse(image, (x, y), (60, 60), (1, 1, 0), (190, 130, 130))
    assert measure(image).cells == 0


def test_cells_that_touch_are_parted_in_close_ups() -> None:
    image = np.full((300, 400, 3), 230, np.uint8)
    for x, y in ((80, 100), (157, 100), (80, 220), (157, 222), (300, 150)):
        ellipse(image, (x, y), (78, 78), (1, 1, 0), (190, 130, 130))
    m = measure(image)
    assert m.cells == 5
    assert m.diameter / OUTLINE_TO_BOX == pytest.approx(78, rel=0.05)


def drawn(diameter: float, aspect: float, cells: int, seed: int, size: int = 640) -> Measurement:
    """A measurement as `cells` red cells of a size would give it, without an image."""
    rng = np.random.default_rng(seed)
    across = diameter / OUTLINE_TO_BOX / 4 * rng.normal(1, 0.07, cells)
    xx, yy = across**2 * aspect, across**2 / aspect
    moments = np.stack([xx, yy, np.zeros(cells)], axis=1)
    from bloodfilm.imaging.scale import confidence, summarise

    found = summarise(moments)
    sure = confidence(cells, found[2]) if cells >= 3 else 0.0
    return Measurement(
        size,
        size,
        Corrections((230.0, 230.0, 230.0)),
        cells,
        *found,
        sure,
        moments,
        np.zeros((cells, 2)),
    )


def test_pooling_one_microscope_is_steadier_than_any_field() -> None:
    fields = [drawn(40, 0.562, 5, seed) for seed in range(30)]
    pooled = pool(fields)
    (group,) = pooled.groups
    assert group.diameter == pytest.approx(40, rel=0.02)
    assert group.pixel_aspect_ratio == pytest.approx(0.562, rel=0.01)
    assert group.confidence > max(m.confidence for m in fields)
    assert pooled.note == ""


@pytest.mark.parametrize(("other", "aspect"), [(78, 0.562), (40, 1.0)])
def test_a_mixed_folder_is_kept_apart(other: float, aspect: float) -> None:
    ours = [drawn(40, 0.562, 9, seed) for seed in range(12)]
    theirs = [drawn(other, aspect, 9, seed, 360) for seed in range(5)]
    pooled = pool(ours + theirs)
    assert len(pooled.groups) == 2
    assert "kept apart" in pooled.note
    assert pooled.group_for(ours[0]) is pooled.groups[0]
    assert pooled.group_for(theirs[0]) is pooled.groups[1]
    # A silent field follows the images of its own size, or nobody.
    assert pooled.group_for(drawn(40, 0.562, 1, 99, 360)) is pooled.groups[1]
    assert pooled.group_for(drawn(40, 0.562, 1, 99, 500)) is None


def test_two_cameras_of_similar_scale_are_separated_by_image_size() -> None:
    ours = [drawn(100, 1, 6, seed, 640) for seed in range(6)]
    theirs = [drawn(80, 1, 6, seed, 360) for seed in range(8)]
    assert [g.fields for g in pool(ours + theirs).groups] == [8, 6]
    crops = [drawn(80, 1, 6, seed, 300 + seed) for seed in range(8)]
    assert [g.fields for g in pool(theirs + crops).groups] == [16]


def test_one_mismeasured_field_does_not_make_a_group() -> None:
    fields = [drawn(40, 1, 9, seed) for seed in range(12)] + [drawn(54, 1, 4, 99)]
    pooled = pool(fields)
    assert len(pooled.groups) == 1
    assert pooled.groups[0].diameter == pytest.approx(40, rel=0.03)


def test_silent_fields_speak_together() -> None:
    pooled = pool([drawn(40, 1, 1, seed) for seed in range(9)])
    assert pooled.groups[0].diameter == pytest.approx(40, rel=0.06)
    assert pool([]).groups == ()
    assert "too few" in pool([drawn(40, 1, 1, 0)]).note


def test_lld_aspect_ratio_on_real_fields(real_data) -> None:  # type: ignore[no-untyped-def]
    from bloodfilm.imaging.discovery import find_images
    from bloodfilm.imaging.sources.image_file import open_image

    images = find_images([real_data / "lld40x" / "H_40X_C2" / "Images"])[::9]
    measured = [measure(open_image(p)) for p in images]
    (group,) = pool(measured).groups
    assert group.pixel_aspect_ratio == pytest.approx(0.562, abs=0.02)
    near = [m.is_measurable and abs(m.pixel_aspect_ratio - 0.562) < 0.08 for m in measured]
    assert np.mean(near) > 0.9


def test_pbc_has_square_pixels(real_data) -> None:  # type: ignore[no-untyped-def]
    from bloodfilm.imaging.open import find_images, open_image

    images = find_images([real_data / "pbc" / "ig"])[::29]
    (group,) = pool([measure(open_image(p)) for p in images]).groups
    assert group.pixel_aspect_ratio == pytest.approx(1.0, abs=0.03)
    assert group.diameter == pytest.approx(79, rel=0.07)
