"""Sources of pixels: files, arrays and PIL images come to the same, regions are what they say."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.sources import ArraySource, ImageSource, open_source, read_whole


@pytest.fixture
def rgb():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def test_an_array_is_an_image_source(rgb):
    source = ArraySource(rgb, "field", pixel_size=PixelSize(0.1, 0.1, "metadata"))
    assert isinstance(source, ImageSource)
    assert (source.name, source.size) == ("field", (64, 48))
    assert source.pixel_size.um_per_px_x == 0.1
    np.testing.assert_array_equal(source.read_region(5, 7, 20, 10), rgb[7:17, 5:25])
    assert np.shares_memory(read_whole(source), rgb)
    half = source.read_region(0, 0, 64, 48, downsample=2)
    np.testing.assert_allclose(half, rgb.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3)), atol=0.51)
    assert source.thumbnail(16).shape == (12, 16, 3)
    assert source.thumbnail(500).shape == rgb.shape


@pytest.mark.parametrize(
    "region", [(-1, 0, 9, 9), (0, 0, 65, 9), (60, 0, 9, 9), (0, 0, 0, 9), (0, 45, 9, 9)]
)
def test_a_region_outside_the_image_is_refused(rgb, region):
    with pytest.raises(ValueError, match="not inside the image of 64 x 48 px"):
        ArraySource(rgb).read_region(*region)
    with pytest.raises(ValueError, match=r"downsample 0\.5"):
        ArraySource(rgb).read_region(0, 0, 9, 9, downsample=0.5)


def test_a_closed_source_is_not_read(rgb):
    source = ArraySource(rgb, "field")
    source.close()
    with pytest.raises(ValueError, match="field: is closed"):
        read_whole(source)


def test_the_identity_of_a_file_is_of_its_bytes_that_of_an_array_of_its_pixels(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    file = open_source(tmp_path / "a.png")
    assert file.identity == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    assert file.name == str(tmp_path / "a.png")
    same, other = ArraySource(rgb.copy()), ArraySource(rgb.reshape(64, 48, 3))
    assert ArraySource(rgb).identity == same.identity != other.identity


def test_files_arrays_and_pil_images_come_to_the_same_pixels(rgb, tmp_path):
    Image.fromarray(rgb).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), rgb, Image.fromarray(rgb)):
        np.testing.assert_array_equal(read_whole(open_source(image)), rgb)
    source = ArraySource(rgb)
    assert open_source(source) is source


def pixels(image):
    return read_whole(open_source(image))


def test_arrays_of_other_depth_and_channels(rgb):
    grey = rgb[..., 0]
    for same in (grey, grey[..., None]):
        np.testing.assert_array_equal(pixels(same), np.repeat(grey[..., None], 3, axis=2))
    np.testing.assert_array_equal(pixels(rgb.astype(np.float32) / 255), rgb)
    np.testing.assert_array_equal(pixels(rgb.astype(np.float64)), rgb)
    np.testing.assert_array_equal(pixels(rgb.astype(np.uint16) * 257), rgb)
    clear = np.dstack([rgb, np.zeros((48, 64), np.uint8)])
    assert (pixels(clear) == 255).all()  # transparent is empty glass
    np.testing.assert_array_equal(pixels(np.dstack([rgb, np.full((48, 64), 255, np.uint8)])), rgb)
    assert codes(open_source(rgb / 255).issues) == {"float-pixels"}
    broken = rgb / 255
    broken[0, 0] = np.nan
    assert "non-finite-pixels" in codes(open_source(broken).issues)


def test_pil_images_of_all_modes(rgb):
    image = Image.fromarray(rgb)
    np.testing.assert_array_equal(
        pixels(image.convert("L"))[..., 0], np.asarray(image.convert("L"))
    )
    for mode in ("P", "1", "CMYK", "YCbCr", "HSV", "LA"):
        converted = image.convert(mode)
        np.testing.assert_array_equal(pixels(converted), np.asarray(converted.convert("RGB")))
    turned = image.copy()
    turned.getexif()[0x0112] = 6  # the camera was turned
    np.testing.assert_array_equal(pixels(turned), np.rot90(rgb, -1))


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(9), r"of shape \(9,\) is no image"),
        (np.zeros((3, 40, 40), np.uint8), "has 40 channels; move its first axis to the end"),
        (np.zeros((40, 40, 7), np.uint8), "has 7 channels; give"),
        (np.zeros((1, 40, 40, 3), np.uint8), "is no image"),
        (np.zeros((40, 40), bool), "type bool cannot be read"),
        (np.zeros((40, 40), complex), "type complex128 cannot be read"),
        (np.zeros((40, 40), object), "type object cannot be read"),
        (np.zeros((8, 40, 3), np.uint8), "40 x 8 pixels are too few"),
        (np.zeros((0, 40, 3), np.uint8), "40 x 0 pixels are too few"),
        (np.full((40, 40, 3), -0.7), "down to -0.7"),
        (np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), "more than the 100,000,000"),
        (42, "int is no image"),
        (None, "NoneType is no image"),
        ([[1, 2], [3, 4]], "list is no image"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line(array, says):
    with pytest.raises(DataError, match=says) as caught:
        open_source(array, "field 7")
    assert str(caught.value).startswith("field 7: ") and "\n" not in str(caught.value)
