"""Opening images: every kind comes out as upright uint8 RGB, every bad file as one clear line."""

import logging
import os
import struct
import threading
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import (
    ALPHA_UNUSED,
    EXTRA_BYTES,
    FIRST_PAGE_ONLY,
    FLOAT_PIXELS,
    NON_FINITE_PIXELS,
)
from bloodfilm.core.issues import codes
from bloodfilm.imaging import headers
from bloodfilm.imaging.decoder_messages import collected_messages
from bloodfilm.imaging.discovery import find_images
from bloodfilm.imaging.headers import image_size
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


def test_declared_depth_overrides_a_dark_image(tmp_path: Path, picture: np.ndarray) -> None:
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
    tifffile.imwrite(tmp_path / "f.tif", values, photometric="rgb")
    opened = open_with_notes(tmp_path / "f.tif")
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


def smooth(height: int = 240, width: int = 320) -> np.ndarray:
    yy, xx = np.mgrid[:height, :width]
    wave = 128 + 100 * np.sin(xx / 40)
    return np.stack([xx * 255 // width, yy * 255 // height, wave], -1).astype(np.uint8)


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("restart", [0, 4])
@pytest.mark.parametrize("damage", ["zeros to the end", "a hole", "end moved up"])
def test_damage_in_the_middle_of_a_jpeg_is_found(
    tmp_path: Path, progressive: int, restart: int, damage: str
) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    whole = encode(smooth(), ".jpg", *options)
    assert open_image(put(tmp_path, "whole.jpg", whole)).shape == (240, 320, 3)
    half = len(whole) // 2
    broken = {
        "zeros to the end": whole[:half] + bytes(len(whole) - half - 2) + whole[-2:],
        "a hole": whole[:half] + bytes(300) + whole[half + 300 :],
        "end moved up": whole[:half] + whole[-2:],
    }[damage]
    assert "damaged" in refused(put(tmp_path, "broken.jpg", broken))


def test_bytes_after_the_picture_do_no_harm(tmp_path: Path) -> None:
    whole = encode(smooth(), ".jpg")
    opened = open_with_notes(put(tmp_path, "a.jpg", whole + b"\0" * 40))
    assert np.array_equal(opened.pixels, open_image(put(tmp_path, "b.jpg", whole)))


def test_a_jpeg_of_many_scans_is_refused_at_once(tmp_path: Path) -> None:
    whole = encode(smooth(), ".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    at = whole.rindex(b"\xff\xda")
    scan = whole[at : at + 2 + int.from_bytes(whole[at + 2 : at + 4], "big")]
    assert "scans" in refused(put(tmp_path, "a.jpg", whole[:-2] + scan * 400 + whole[-2:]))


def test_gif_and_avif_are_read(tmp_path: Path) -> None:
    image = smooth()
    with Image.fromarray(image) as picture:
        flat = picture.quantize(200)
        flat.save(tmp_path / "a.gif")
        flat.save(tmp_path / "two.gif", save_all=True, append_images=[flat.rotate(90)])
    wanted = np.asarray(flat.convert("RGB"))
    assert np.array_equal(open_image(tmp_path / "a.gif"), wanted)
    assert FIRST_PAGE_ONLY in codes(open_with_notes(tmp_path / "two.gif").issues)
    put(tmp_path, "a.avif", imagecodecs.avif_encode(image, level=90))
    assert np.abs(open_image(tmp_path / "a.avif").astype(int) - image).mean() < 4
    assert image_size(tmp_path / "a.avif") == (320, 240)


def test_an_alpha_of_0_everywhere_is_not_used(tmp_path: Path) -> None:
    bgra = np.dstack([smooth()[..., ::-1], np.zeros((240, 320), np.uint8)])
    for suffix in (".png", ".bmp"):
        opened = open_with_notes(put(tmp_path, f"a{suffix}", encode(bgra, suffix)))
        assert np.array_equal(opened.pixels, smooth())
        assert codes(opened.issues) in ({ALPHA_UNUSED}, set())  # OpenCV reads no alpha of a BMP


@pytest.mark.parametrize(
    ("name", "head", "what"),
    [
        ("a.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("a.dng", b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0", "TIFF"),
        ("a.psd", b"8BPS\0\x01", "Photoshop"),
    ],
)
def test_other_photographs_are_named(tmp_path: Path, name: str, head: bytes, what: str) -> None:
    path = put(tmp_path, name, head + bytes(64))
    assert what in refused(path)
    put(tmp_path, "notes.txt", b"no picture")
    assert find_images([tmp_path]) == [path]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path: Path, suffix: str) -> None:
    options = [cv2.IMWRITE_TIFF_COMPRESSION, 8] if suffix == ".tif" else []
    data = encode(np.zeros((9000, 9000), np.uint16), suffix, *options)
    assert len(data) < 500_000
    assert "no photograph" in refused(put(tmp_path, f"a{suffix}", data))


def test_an_exif_block_full_of_long_entries_costs_nothing(tmp_path: Path) -> None:
    """Each of 5,000 entries claims 16,000 integers of the same bytes."""
    entries = b"".join(struct.pack("<HHII", 1000 + i, 4, 16_000, 8) for i in range(4000))
    block = b"II*\0" + struct.pack("<IH", 8, 4000) + entries + bytes(4)
    reads = []
    whole = headers.struct.unpack

    class Counting:
        error, calcsize = struct.error, staticmethod(struct.calcsize)

        @staticmethod
        def unpack(form: str, data: bytes) -> tuple[int, ...]:
            reads.append(len(data))
            return whole(form, data)

    headers.struct, before = Counting, headers.struct
    try:
        assert headers.exif_orientation(block) == 1
    finally:
        headers.struct = before
    assert sum(reads) < 10 * len(block)


# ---- what decoders say ------------------------------------------------------------------------


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_parts(picture: np.ndarray) -> tuple[bytes, bytes]:
    """Return a PNG up to its pixels, and the stream of these."""
    data = encode(picture, ".png")
    at, stream = 33, b""
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            stream += data[at + 8 : at + 8 + length]
        at += 12 + length
    return data[:33], stream


@pytest.mark.parametrize(
    ("before", "change", "says"),
    [
        (chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(200))), None, ()),
        (chunk(b"gAMA", b"\0\0"), None, ()),
        (chunk(b"tRNS", b"\0\1\0"), None, ()),
        (b"", lambda z: z + b"more", (EXTRA_BYTES,)),
        (b"", lambda z: zlib.compress(zlib.decompress(z) + bytes(5000)), (EXTRA_BYTES,)),
    ],
    ids=["profile", "gamma", "transparency", "bytes-behind", "rows-behind"],
)
def test_what_a_decoder_passes_over_is_not_printed(tmp_path, picture, capfd, before, change, says):
    head, stream = png_parts(picture)
    pixels = chunk(b"IDAT", stream if change is None else change(stream))
    path = put(tmp_path, "a.png", head + before + pixels + chunk(b"IEND", b""))
    opened = open_with_notes(path)
    assert np.array_equal(opened.pixels, picture)
    assert codes(opened.issues) == frozenset(says)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda z: zlib.compress(zlib.decompress(z)[:3000]),
        lambda z: z[: len(z) // 2],
        lambda z: zlib.compress(bytes([9]) + zlib.decompress(z)[1:]),
    ],
    ids=["too-few", "cut", "filter"],
)
def test_pixels_of_a_png_that_cannot_be_decoded_are_told_once(tmp_path, picture, capfd, change):
    head, stream = png_parts(picture)
    data = head + chunk(b"IDAT", change(stream)) + chunk(b"IEND", b"")
    assert "the PNG" in refused(put(tmp_path, "a.png", data))
    assert capfd.readouterr() == ("", "")


def test_messages_of_other_threads_are_not_taken(caplog):
    log = logging.getLogger("tifffile")
    with collected_messages() as said:
        thread = threading.Thread(target=log.warning, args=("of another",))
        thread.start()
        thread.join()
        log.warning("of\nthis one")
    log.warning("later")
    assert said == ["of this one"]
    assert [r.getMessage() for r in caplog.records] == ["of another", "later"]


# ---- AVIF ---------------------------------------------------------------------------------------


def avif(width: int, height: int, quality: int = 75) -> bytes:
    picture = np.full((height, width, 3), (200, 60, 40), np.uint8)
    return bytes(imagecodecs.avif_encode(picture, level=quality))


@pytest.mark.parametrize("size", [(640, 480), (33, 57), (64, 64), (1000, 37), (257, 511)])
@pytest.mark.parametrize("quality", [30, 90])
def test_an_avif_has_the_size_that_it_states(tmp_path, size, quality):
    path = put(tmp_path, "a.avif", avif(*size, quality=quality))
    assert open_image(path).shape[:2] == size[::-1] and image_size(path) == size


@pytest.mark.parametrize("stated", [(32, 32), (64, 47), (48, 64), (128, 96)])
def test_an_avif_that_states_another_size_is_refused(tmp_path, stated):
    """Its decoder would scale the picture to that size, and every cell with it."""
    data = avif(64, 48)
    at = data.index(b"ispe") + 8
    changed = data[:at] + struct.pack(">II", *stated) + data[at + 8 :]
    message = refused(put(tmp_path, "a.avif", changed))
    assert f"states {stated[0]} x {stated[1]} pixels, but its picture has 64 x 48" in message
