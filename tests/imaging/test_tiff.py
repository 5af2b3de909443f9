"""TIFF: every supported combination is read right, everything else is refused by name."""

import io
import itertools
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import tifffile

from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import FIRST_PAGE_ONLY, SAMPLES_LEFT_OUT
from bloodfilm.core.issues import codes
from bloodfilm.imaging.headers import image_size
from bloodfilm.imaging.sources.image_file import open_image, open_with_notes

HEIGHT, WIDTH = 48, 80


def picture() -> np.ndarray:
    """A picture in which a turn, a mirror, a swap of channels and a wrong depth all show."""
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    image = np.stack([xx * 255 // WIDTH, yy * 255 // HEIGHT, 128 + 100 * np.sin(xx / 10)], -1)
    image[4:14, 4:24] = (200, 30, 30)
    return image.astype(np.uint8)


def write(path: Path, array: np.ndarray, **options: object) -> Path:
    options = {"photometric": "rgb", "metadata": None, **options}
    tifffile.imwrite(path, array, **options)
    return path


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_image(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


LOSSLESS = ("none", "lzw", "deflate", "packbits", "zstd", "lzma")
LAYOUTS = ({}, {"rowsperstrip": 7}, {"tile": (16, 32)})


@pytest.mark.parametrize("compression", LOSSLESS)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["strip", "strips", "tiles"])
@pytest.mark.parametrize("bits", [8, 16])
def test_rgb_of_every_layout_comes_back(
    tmp_path: Path, compression: str, planar: str, layout: dict, bits: int
) -> None:
    stored = picture() if bits == 8 else picture().astype(np.uint16) * 257
    array = np.moveaxis(stored, -1, 0) if planar == "separate" else stored
    path = write(tmp_path / "a.tif", array, compression=compression, planarconfig=planar, **layout)
    assert np.array_equal(open_image(path), picture())


@pytest.mark.parametrize(
    ("byteorder", "big", "predictor"), [*itertools.product("<>", (0, 1), (0, 1))]
)
def test_byte_order_big_files_and_predictors(
    tmp_path: Path, byteorder: str, big: int, predictor: int
) -> None:
    stored = picture().astype(np.uint16) * 257
    path = write(
        tmp_path / "a.tif", stored, byteorder=byteorder, bigtiff=bool(big),
        compression="deflate", predictor=bool(predictor),
    )  # fmt: skip
    assert np.array_equal(open_image(path), picture())


@pytest.mark.parametrize("compression", ["none", "lzw", "deflate", "packbits"])
def test_a_second_decoder_sees_the_same(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "a.tif", picture(), compression=compression)
    ours = open_image(path)
    with PIL.Image.open(path) as image:
        assert np.array_equal(ours, np.asarray(image.convert("RGB")))
    assert np.array_equal(ours, cv2.imread(str(path))[..., ::-1])


@pytest.mark.parametrize("compression", ["jpeg", "jpeg2000", "webp", "jpegxl"])
def test_lossy_compressions_are_close(tmp_path: Path, compression: str) -> None:
    image = cv2.GaussianBlur(picture(), (0, 0), 2)
    path = write(tmp_path / "a.tif", image, compression=compression, tile=(48, 80))
    assert np.abs(open_image(path).astype(int) - image).mean() < 4


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_is_dark_where_it_is_dark(tmp_path: Path, bits: int, photometric: str) -> None:
    grey = picture()[..., 0]
    stored = grey if bits == 8 else grey.astype(np.uint16) * 257
    top = 255 if bits == 8 else 65535
    array = stored if photometric == "minisblack" else (top - stored).astype(stored.dtype)
    path = write(tmp_path / "a.tif", array, photometric=photometric)
    assert np.array_equal(open_image(path), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_pictures_are_black_and_white(tmp_path: Path) -> None:
    mask = picture()[..., 0] > 100
    with PIL.Image.fromarray(mask) as image:
        image.save(tmp_path / "a.tif", compression="group4")
        image.save(tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        assert np.array_equal(open_image(tmp_path / name)[..., 0], mask * np.uint8(255))


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    with PIL.Image.fromarray(picture()) as image:
        flat = image.quantize(32, method=PIL.Image.Quantize.MEDIANCUT)
        flat.save(tmp_path / "palette.tif")
        wanted = np.asarray(flat.convert("RGB"))
        cmyk = image.convert("CMYK")
        cmyk.save(tmp_path / "cmyk.tif")
    assert np.array_equal(open_image(tmp_path / "palette.tif"), wanted)
    close = np.abs(open_image(tmp_path / "cmyk.tif").astype(int) - np.asarray(cmyk.convert("RGB")))
    assert close.mean() < 2


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_depths_are_scaled_by_the_declared_depth(tmp_path: Path, bits: int) -> None:
    stored = (picture().astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
    path = write(tmp_path / "a.tif", stored[..., 0], photometric="minisblack", bitspersample=bits)
    assert np.abs(open_image(path)[..., 0].astype(int) - picture()[..., 0]).max() <= 1


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_is_read_from_0_to_1(tmp_path: Path, dtype: type) -> None:
    path = write(tmp_path / "a.tif", (picture() / 255).astype(dtype))
    assert np.abs(open_image(path).astype(int) - picture()).max() <= 1


TURNS = {
    1: lambda i: i,
    2: np.fliplr,
    3: lambda i: np.rot90(i, 2),
    4: np.flipud,
    5: lambda i: i.transpose(1, 0, 2),
    6: lambda i: np.rot90(i, -1),
    7: lambda i: np.rot90(i, 2).transpose(1, 0, 2),
    8: lambda i: np.rot90(i, 1),
}


@pytest.mark.parametrize("number", TURNS)
@pytest.mark.parametrize("bits", [8, 16])
def test_orientation_is_applied_once_and_sizes_follow(
    tmp_path: Path, number: int, bits: int
) -> None:
    stored = picture() if bits == 8 else picture().astype(np.uint16) * 257
    path = write(tmp_path / "a.tif", stored, extratags=[(274, "H", 1, number, True)])
    upright = TURNS[number](picture())
    assert np.array_equal(open_image(path), upright)
    assert image_size(path) == upright.shape[1::-1]


def test_a_fourth_sample_is_alpha_only_where_the_file_says_so(tmp_path: Path) -> None:
    zero = np.dstack([picture(), np.zeros((HEIGHT, WIDTH), np.uint8)])
    half = np.dstack([picture(), np.full((HEIGHT, WIDTH), 128, np.uint8)])
    opened = open_with_notes(write(tmp_path / "x.tif", zero, extrasamples=["unspecified"]))
    assert np.array_equal(opened.pixels, picture())
    assert SAMPLES_LEFT_OUT in codes(opened.issues)
    plain = open_image(write(tmp_path / "u.tif", half, extrasamples=["unassalpha"]))
    over_white = picture() * (128 / 255) + 255 * (127 / 255)
    assert np.abs(plain - over_white).max() <= 1
    premultiplied = half.copy()
    premultiplied[..., :3] = np.rint(half[..., :3] * (128 / 255))
    again = open_image(write(tmp_path / "a.tif", premultiplied, extrasamples=["assocalpha"]))
    assert np.abs(again - over_white).max() <= 2


def test_the_field_is_read_and_not_its_thumbnail(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(picture()[::2, ::2].copy(), photometric="rgb", subfiletype=1, metadata=None)
        file.write(picture(), photometric="rgb", metadata=None)
    opened = open_with_notes(path)
    assert np.array_equal(opened.pixels, picture())
    assert FIRST_PAGE_ONLY not in codes(opened.issues)
    assert image_size(path) == (WIDTH, HEIGHT)


def test_skipped_pages_are_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.stack([picture(), picture()]))
    assert FIRST_PAGE_ONLY in codes(open_with_notes(path).issues)


def test_a_composite_of_channels_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    channels = np.moveaxis(picture(), -1, 0)
    tifffile.imwrite(path, channels, imagej=True, metadata={"axes": "CYX", "mode": "composite"})
    assert "composite of 3 channels" in refused(path)


def test_what_is_not_read_is_refused_by_name(tmp_path: Path) -> None:
    assert "CIELAB" in refused(write(tmp_path / "lab.tif", picture(), photometric="cielab"))
    data = bytearray(write(tmp_path / "a.tif", picture()).read_bytes())
    at = data.index((259).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    data[at + 8 : at + 10] = (34676).to_bytes(2, "little")  # SGI LogLuv
    (tmp_path / "log.tif").write_bytes(data)
    assert "34676" in refused(tmp_path / "log.tif")


@pytest.mark.parametrize("compression", ["lzw", "deflate", "zstd", "jpeg"])
def test_damage_in_the_middle_is_found(tmp_path: Path, compression: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    path = write(tmp_path / "a.tif", noisy, compression=compression, rowsperstrip=256)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(data)
    assert "damage" in refused(path) or "missing" in refused(path)


def test_a_missing_strip_is_no_white_stripe(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(), rowsperstrip=8)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        where = file.pages[0].tags[279].valueoffset
    data[where + 2 : where + 4] = b"\0\0"
    path.write_bytes(data)
    assert "strip 2 of 6 is missing" in refused(path)


def test_many_pages_and_many_values_are_refused_at_once(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        for _ in range(1002):
            file.write(np.zeros((32, 32), np.uint8), metadata=None)
    (tmp_path / "pages.tif").write_bytes(buffer.getvalue())
    assert "more than 1000 pages" in refused(tmp_path / "pages.tif")
