"""One picture has one key, whatever file it lies in."""

import cv2
import numpy as np
import pytest

from bloodfilm.imaging.picture_key import (
    MOST_DIFFERENT,
    SYMMETRIES,
    KnownAppearances,
    PictureKey,
    Symmetry,
    appearance_of,
    difference,
)
from bloodfilm.imaging.sources.image_file import open_image
from fake_bundle import Disc, draw


def film(seed):
    """Draw a field of red cells anywhere, and two nucleated ones."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(5, (155, 115), (80, 2))
    discs = [Disc(float(x), float(y)) for x, y in places[2:]]
    discs += [Disc(float(x), float(y), 13.0, (90, 60, 140)) for x, y in places[:2]]
    return draw(discs, (640, 480))


@pytest.fixture(scope="module")
def fields():
    """Three drawn fields, RGB."""
    return [film(seed) for seed in range(3)]


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_lossless_formats_have_the_same_pixels(fields, tmp_path, name):
    file = tmp_path / name
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if name.endswith("webp") else []
    cv2.imwrite(str(file), fields[0][..., ::-1], options)
    assert PictureKey.of_image(open_image(file)) == PictureKey.of_image(fields[0])


@pytest.mark.parametrize("quality", [95, 75, 50])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_picture_compressed_or_resized_anew_looks_the_same(fields, quality, scale):
    for field in fields:
        small = cv2.resize(field, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        again = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        assert difference(appearance_of(again), appearance_of(field)) <= MOST_DIFFERENT
        assert PictureKey.of_image(again).pixels != PictureKey.of_image(field).pixels


def test_other_fields_and_turned_ones_look_different(fields):
    looks = [appearance_of(f) for f in fields] + [
        appearance_of(np.ascontiguousarray(f))
        for f in (fields[0][::-1], fields[0][:, ::-1], fields[0][::-1, ::-1])
    ]
    for i, one in enumerate(looks):
        for two in looks[i + 1 :]:
            assert difference(one, two) > 2 * MOST_DIFFERENT


def test_empty_glass_looks_like_nothing():
    glass = np.full((64, 96, 3), 240, np.uint8)
    assert appearance_of(glass) == ""
    known = KnownAppearances()
    known.add("", 96, 64)
    assert known.find("", 96, 64) == [] and known.find("00" * 32, 96, 64) == []


def test_many_pictures_are_searched_by_look_and_shape():
    rng = np.random.default_rng(1)
    looks = [rng.bytes(32).hex() for _ in range(200)]
    known = KnownAppearances()
    for look in looks:
        known.add(look, 640, 480)
    for number, look in enumerate(looks):
        assert known.find(look, 320, 240) == [(number, Symmetry())]
        assert known.find(look, 480, 620) == []
    known.add(looks[7], 1280, 960)
    assert [number for number, _ in known.find(looks[7], 640, 480)] == [7, 200]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_turned_or_mirrored_picture_is_found_with_where_its_cells_lie(fields, symmetry):
    known = KnownAppearances()
    for field in fields:
        known.add(appearance_of(field), 640, 480)
    marked = np.zeros((480, 640), np.uint8)
    marked[100:140, 200:220] = 255  # y, x

    def turned(picture):
        picture = picture.swapaxes(0, 1) if symmetry.transposed else picture
        picture = picture[:, ::-1] if symmetry.flipped_x else picture
        return np.ascontiguousarray(picture[::-1] if symmetry.flipped_y else picture)

    picture, mark = turned(fields[1]), turned(marked)
    height, width = mark.shape
    small = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    assert known.find(appearance_of(small), width, height) == [(1, symmetry)]
    y, x = np.nonzero(mark)
    box = np.array([[200 / 640, 100 / 480, 20 / 640, 40 / 480]])
    expected = [x.min() / width, y.min() / height, np.ptp(x + 1) / width, np.ptp(y + 1) / height]
    assert symmetry.boxes(box)[0] == pytest.approx(expected, abs=2 / 480)
    corners = np.array([[200, 100, 1], [220, 140, 1]]) @ symmetry.map_of(640, 480).T
    assert corners.min(axis=0) == pytest.approx([x.min(), y.min()])
    assert corners.max(axis=0) == pytest.approx([x.max() + 1, y.max() + 1])
