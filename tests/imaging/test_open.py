"""Opening images: every kind comes out as upright uint8 RGB, every bad file as one clear line."""

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import FIRST_PAGE_ONLY, FLOAT_PIXELS, NON_FINITE_PIXELS
from bloodfilm.core.issues import codes
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.sources.image_file import open_image, open_with_notes


@pytest.fixture
def picture() -> np.ndarray:
    """48 x 64 RGB with a different colour in each quarter, smooth enough for lossy formats."""
    image = np.full((48, 64, 3), 230, np.uint8)
    image[:24, :32] = (200, 60, 40)
    image[24:, 32:] = (40, 80, 190)
    image[:24, 32:] = (60, 180, 70)
    return image


def encode(image: np.ndarray, suffix: str, *options: int) -> bytes:
    bgr = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    return cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))[1].tobytes()


def put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def refused(path: Path, **options: int) -> str:
    with pytest.raises(DataError) as caught:
        open_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".jp2"])
def test_lossless_formats_come_back_exactly(
    tmp_path: Path, picture: np.ndarray, suffix: str
) -> None:
    options = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000] if suffix == ".jp2" else []
    opened = open_image(put(tmp_path, f"a{suffix}", encode(picture, suffix, *options)))
    assert opened.dtype == np.uint8
    assert opened.flags.c_contiguous
    assert np.array_equal(opened, picture)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_keep_colours_in_their_channels(
    tmp_path: Path, picture: np.ndarray, suffix: str
) -> None:
    opened = open_image(put(tmp_path, f"a{suffix}", encode(picture, suffix)))
    assert np.abs(opened[12, 16].astype(int) - picture[12, 16]).max() < 12
    assert np.abs(opened[36, 48].astype(int) - picture[36, 48]).max() < 12


def test_suffix_does_not_matter(tmp_path: Path, picture: np.ndarray) -> None:
    path = put(tmp_path, "really_a_png.jpg", encode(picture, ".png"))
    assert np.array_equal(open_image(path), picture)


def test_grey_becomes_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    grey = picture[..., 0]
    opened = open_image(put(tmp_path, "g.png", encode(grey, ".png")))
    assert np.array_equal(opened, np.repeat(grey[..., None], 3, axis=2))


def test_palette_becomes_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(picture).quantize(8).save(tmp_path / "p.png")
    assert np.abs(open_image(tmp_path / "p.png").astype(int) - picture).max() < 12


def test_transparency_is_laid_over_white(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:24], alpha[24:36] = 0, 128
    bgra = np.dstack([picture[..., ::-1], alpha])
    opened = open_image(put(tmp_path, "t.png", encode(bgra, ".png")))
    assert (opened[:24] == 255).all()
    assert np.array_equal(opened[40:], picture[40:])
    expected = picture[30, 40] * (128 / 255) + 127
    assert np.abs(opened[30, 40] - expected).max() <= 1


def test_full_range_16_bit_drops_the_low_byte(tmp_path: Path, picture: np.ndarray) -> None:
    deep = picture.astype(np.uint16) * 256 + 77
    deep[0, 0] = 65535
    opened = open_with_notes(put(tmp_path, "d.png", encode(deep, ".png")))
    assert np.array_equal(opened.pixels[1:], picture[1:])
    assert opened.issues == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_shallow_data_in_16_bit_files_is_scaled_by_its_depth(
    tmp_path: Path, picture: np.ndarray, bits: int, suffix: str
) -> None:
    deep = picture.astype(np.uint16) << (bits - 8)
    opened = open_with_notes(put(tmp_path, f"d{suffix}", encode(deep, suffix)))
    assert np.array_equal(opened.pixels, picture)
    assert opened.issues[0].data["bits"] == bits
    assert "brightest pixel" in opened.issues[0].message


def test_stated_depth_beats_a_dark_image(tmp_path: Path, picture: np.ndarray) -> None:
    # 12-bit data so dark that its brightest pixel would pass for 10-bit data.
    deep = picture.astype(np.uint16) * 4
    data = encode(deep, ".png")
    chunk = b"sBIT" + bytes([12, 12, 12])
    stated = struct.pack(">I", 3) + chunk + struct.pack(">I", zlib.crc32(chunk))
    opened = open_with_notes(put(tmp_path, "s.png", data[:33] + stated + data[33:]))
    assert np.array_equal(opened.pixels, (deep >> 4).astype(np.uint8))
    assert "as the file states" in opened.issues[0].message


def test_float_tiff_of_0_to_1(tmp_path: Path, picture: np.ndarray) -> None:
    values = (picture / 255).astype(np.float32)
    values[0, 0, 0] = np.nan
    opened = open_with_notes(put(tmp_path, "f.tif", encode(values, ".tif")))
    assert np.array_equal(opened.pixels[1:], picture[1:])
    assert NON_FINITE_PIXELS in codes(opened.issues)
    assert FLOAT_PIXELS in codes(opened.issues)


def test_multi_page_tiff_gives_its_first_page_and_says_so(
    tmp_path: Path, picture: np.ndarray
) -> None:
    pages = [picture[..., ::-1].copy(), picture.copy(), picture.copy()]
    cv2.imwritemulti(str(tmp_path / "m.tif"), pages)
    opened = open_with_notes(tmp_path / "m.tif")
    assert np.array_equal(opened.pixels, picture)
    assert [(i.code, i.data) for i in opened.issues] == [(FIRST_PAGE_ONLY, {"pages": 3})]


@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_an_animation_gives_its_first_frame_and_says_so(
    tmp_path: Path, picture: np.ndarray, suffix: str
) -> None:
    first, *rest = (Image.fromarray(np.roll(picture, n, 1)) for n in (0, 5, 9))
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=rest, lossless=True)
    opened = open_with_notes(path)
    assert np.array_equal(opened.pixels, picture)
    assert [(i.code, i.data) for i in opened.issues] == [(FIRST_PAGE_ONLY, {"pages": 3})]


def test_a_link_to_nothing_is_listed_and_named(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (listed,) = find_images([tmp_path])
    with pytest.raises(DataError, match=r"gone\.png: a link to a file that is not there"):
        open_image(listed)


def exif(orientation: int) -> bytes:
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 274, 3, 1, orientation, 0) + bytes(4)


def turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """The stored pixels that a viewer turns back into `image`, one case at a time."""
    return {
        1: lambda i: i,
        2: np.fliplr,
        3: lambda i: np.rot90(i, 2),
        4: np.flipud,
        5: lambda i: i.transpose(1, 0, 2),
        6: lambda i: np.rot90(i, 1),
        7: lambda i: np.rot90(i, 2).transpose(1, 0, 2),
        8: lambda i: np.rot90(i, 3),
    }[orientation](image)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_exif_orientation_is_applied(
    tmp_path: Path, picture: np.ndarray, orientation: int, kind: str
) -> None:
    pillow = pytest.importorskip("PIL.Image")
    path = tmp_path / f"o.{kind}"
    stored = np.ascontiguousarray(turn(picture, orientation))
    options = {"quality": 95} if kind == "jpg" else {}
    pillow.fromarray(stored).save(path, exif=b"Exif\0\0" + exif(orientation), **options)
    opened = open_image(path)
    assert opened.shape == picture.shape
    assert np.abs(opened[::4, 4::8].astype(int) - picture[::4, 4::8]).mean() < 6


def test_cmyk_jpeg_is_converted(tmp_path: Path, picture: np.ndarray) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(picture).convert("CMYK").save(tmp_path / "c.jpg", quality=98)
    opened = open_image(tmp_path / "c.jpg").astype(int)
    assert np.abs(opened[12, 16] - picture[12, 16]).max() < 25
    assert np.abs(opened[36, 48] - picture[36, 48]).max() < 25


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp", ".jp2"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    data = encode(noise, suffix)
    refused(put(tmp_path, f"cut{suffix}", data[: int(len(data) * share)]))


def test_damaged_png_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    data = bytearray(encode(picture, ".png"))
    data[len(data) // 2] ^= 0xFF
    assert "corrupt" in refused(put(tmp_path, "bad.png", bytes(data)))


def test_jpeg_thumbnail_does_not_hide_a_cut(tmp_path: Path, picture: np.ndarray) -> None:
    data = encode(picture, ".jpg")
    thumbnail = b"Exif\0\0" + encode(picture[::4, ::4], ".jpg")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    assert "end marker" in refused(put(tmp_path, "cut.jpg", data[:2] + segment + data[2:-40]))


@pytest.mark.parametrize("data", [b"", b"hello, this is a text file", b"\x89PNG\r\n\x1a\n", b"BM"])
def test_what_is_not_an_image_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(put(tmp_path, "x.png", data))


def test_folder_missing_file_and_pipe_are_refused(tmp_path: Path) -> None:
    assert "folder" in refused(tmp_path)
    assert "no such file" in refused(tmp_path / "none.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp"])
def test_huge_claims_are_refused_from_the_header(
    tmp_path: Path, picture: np.ndarray, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(encode(picture, suffix))
    if suffix == ".png":
        data[16:24] = struct.pack(">II", 50_000, 50_000)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    elif suffix == ".jpg":
        at = data.find(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 50_000, 50_000)
    else:
        data[18:26] = struct.pack("<ii", 50_000, 50_000)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded a bomb"))
    assert "50000 x 50000" in refused(put(tmp_path, f"bomb{suffix}", bytes(data)))


def test_max_pixels_is_the_callers_choice(tmp_path: Path, picture: np.ndarray) -> None:
    path = put(tmp_path, "a.png", encode(picture, ".png"))
    assert "max_pixels" in refused(path, max_pixels=1000)
    assert open_image(path, max_pixels=48 * 64).shape == (48, 64, 3)


def test_a_single_pixel_is_too_small(tmp_path: Path) -> None:
    path = put(tmp_path, "dot.png", encode(np.zeros((1, 1, 3), np.uint8), ".png"))
    assert "too few" in refused(path)


def test_unreadable_file(tmp_path: Path, picture: np.ndarray) -> None:
    path = put(tmp_path, "a.png", encode(picture, ".png"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    assert "permissions" in refused(path)


def test_random_damage_never_raises_anything_but_data_error(
    tmp_path: Path, picture: np.ndarray
) -> None:
    rng = np.random.default_rng(1)
    for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp", ".jp2"):
        whole = encode(picture, suffix)
        for _ in range(40):
            data = bytearray(whole)
            for at in rng.integers(0, min(len(data), 400), 6):
                data[at] = rng.integers(0, 256)
            path = put(tmp_path, f"r{suffix}", bytes(data))
            try:
                opened = open_image(path, max_pixels=1_000_000)
            except DataError:
                continue
            assert opened.ndim == 3


def test_a_damaged_file_makes_opencv_print_nothing(tmp_path: Path, capfd) -> None:
    path = tmp_path / "cut.png"
    _, data = cv2.imencode(".png", np.full((64, 64, 3), 200, np.uint8))
    path.write_bytes(data.tobytes()[:-40])
    with pytest.raises(DataError):
        open_image(path)
    assert capfd.readouterr().err == ""
