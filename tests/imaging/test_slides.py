"""Slides are read by region, whatever the layout of their file; what cannot be read is named."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
import tifffile

from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import codes
from bloodfilm.imaging.sources import slide_scanlines, slide_tiff
from bloodfilm.imaging.sources.base import ImageSource
from bloodfilm.imaging.sources.open_slide import is_slide, open_slide
from bloodfilm.imaging.sources.slide import SegmentCache

W, H = 700, 500


def picture(width=W, height=H):
    """A smooth picture, so that lossy codecs and resampling change it little."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [120 + 80 * np.sin(x / 60), 130 + 70 * np.cos(y / 45), 90 + x / width * 90], axis=2
    ).astype(np.uint8)


def write(path, pixels, levels=(4,), **options):
    """Write a pyramid with SubIFDs."""
    options = {"photometric": "rgb", "tile": (128, 128), "compression": "jpeg", **options}
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as file:
        file.write(pixels, subifds=len(levels), metadata=None, **options)
        for step in levels:
            small = pixels[::step, ::step]
            file.write(small, subfiletype=1, metadata=None, **options)
    return path


def near(a, b, limit=4.0):
    """Whether two pictures are alike."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean()) < limit


CODECS = ["jpeg", "jpeg2000", "lzw", "zlib", None]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiles_of_every_codec_are_read_by_region(tmp_path, codec, bigtiff):
    pixels = picture()
    path = write(tmp_path / "slide.tif", pixels, compression=codec, bigtiff=bigtiff)
    slide = open_slide(path)
    assert isinstance(slide, ImageSource)
    assert slide.size == (W, H)
    assert [(level.width, level.height) for level in slide.levels] == [(W, H), (175, 125)]
    part = slide.read_region(100, 90, 300, 200)
    assert part.shape == (200, 300, 3)
    assert near(part, pixels[90:290, 100:400])
    assert near(slide.read_region(0, 0, W, H, downsample=4), pixels[::4, ::4], 8)
    slide.close()


def test_separate_pages_are_levels_as_in_svs(tmp_path):
    pixels = picture()
    path = tmp_path / "slide.svs"
    label = np.zeros((90, 60, 3), np.uint8)
    with tifffile.TiffWriter(path) as file:
        common = {"tile": (128, 128), "photometric": "rgb", "metadata": None}
        about = "Aperio Image Library v1\r\n700x500|AppMag = 40|MPP = 0.2520"
        file.write(pixels, description=about, **common)
        file.write(pixels[::4, ::4], description="Aperio level", **common)
        file.write(label, description="Aperio label", photometric="rgb", metadata=None)
    slide = open_slide(path)
    assert [level.downsample for level in slide.levels] == [1.0, 4.0]
    assert slide.pixel_size is not None
    assert slide.pixel_size.um_per_px_x == pytest.approx(0.252)
    assert "levels-left-out" in codes(slide.issues)
    slide.close()


def test_size_of_ome_and_of_plain_resolution_tags(tmp_path):
    pixels = picture()
    ome = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(ome, ome=True) as file:
        size = {"axes": "YXS", "PhysicalSizeX": 250.0, "PhysicalSizeXUnit": "nm"}
        size |= {"PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}
        file.write(pixels, tile=(128, 128), photometric="rgb", metadata=size)
    plain = tmp_path / "b.tif"
    tifffile.imwrite(
        plain,
        pixels,
        tile=(128, 128),
        photometric="rgb",
        resolution=(50_000, 50_000),
        resolutionunit="CENTIMETER",
    )
    for path, um in ((ome, 0.25), (plain, 0.2)):
        slide = open_slide(path)
        assert slide.pixel_size is not None
        assert slide.pixel_size.um_per_px_x == pytest.approx(um)
        assert slide.pixel_size.um_per_px_y == pytest.approx(um)
        slide.close()


@pytest.mark.parametrize(
    ("mpp", "ignored"), [("0.0", True), ("1000", True), ("-1", True), ("nan", False)]
)
def test_absurd_microns_per_pixel_are_not_used(tmp_path, mpp, ignored):
    path = tmp_path / "slide.svs"
    about = f"Aperio Image Library v1\r\n700x500|MPP = {mpp}"
    tifffile.imwrite(
        path, picture(), tile=(128, 128), photometric="rgb", description=about, metadata=None
    )
    slide = open_slide(path)
    assert slide.pixel_size is None
    assert "pixel-size-missing" in codes(slide.issues)
    assert ("metadata-ignored" in codes(slide.issues)) == ignored
    slide.close()


def test_screen_resolution_is_no_pixel_size(tmp_path):
    path = tmp_path / "slide.tif"
    tifffile.imwrite(
        path, picture(), tile=(128, 128), photometric="rgb", resolution=(72, 72), metadata=None
    )
    slide = open_slide(path)
    assert slide.pixel_size is None
    assert "pixel-size-missing" in codes(slide.issues)
    slide.close()


def test_one_bad_tile_is_glass_and_is_named(tmp_path):
    pixels = picture()
    path = write(tmp_path / "slide.tif", pixels)
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[7], file.pages[0].databytecounts[7]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(data)
    slide = open_slide(path)
    whole = slide.read_region(0, 0, W, H)
    (damage,) = slide.damage_in(0, 0, W, H)
    # Six tiles a row: the eighth is the second of the second row.
    assert damage.area == (128, 128, 128, 128)
    assert damage.name == "tile 8 of 24"
    assert (whole[128:256, 128:256] == 255).all()
    assert near(whole[:128], pixels[:128])
    assert near(whole[256:], pixels[256:])
    assert slide.damage_in(300, 300, 100, 100) == []
    slide.close()


def test_a_bad_tile_of_a_reduced_level_is_shown_from_full_resolution(tmp_path):
    pixels = picture()
    path = write(tmp_path / "slide.tif", pixels)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0].pages[0]
        offset, count = page.dataoffsets[0], page.databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset + 20 : offset + count] = bytes(count - 20)
    path.write_bytes(data)
    slide = open_slide(path)
    assert near(slide.read_region(0, 0, W, H, downsample=4), pixels[::4, ::4], 8)
    assert slide.damage_in(0, 0, W, H) == []
    slide.close()


def test_a_truncated_slide_is_refused_in_one_line(tmp_path):
    path = write(tmp_path / "slide.tif", picture(), compression="zlib")
    data = path.read_bytes()
    for share in (0.2, 0.5, 0.97):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(DataError) as refused:
            open_slide(path)
        message = str(refused.value)
        assert message.startswith(str(path))
        assert "\n" not in message
        assert "again" in message


def test_strips_are_read_in_bands(tmp_path):
    pixels = picture(600, 900)
    for name, options in (
        ("lzw", {"compression": "lzw", "rowsperstrip": 16}),
        ("raw", {"rowsperstrip": 16}),
        ("planar", {"rowsperstrip": 16, "planarconfig": "separate"}),
    ):
        stored = np.moveaxis(pixels, 2, 0) if name == "planar" else pixels
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, stored, photometric="rgb", metadata=None, **options)
        slide = slide_tiff.TiffSlide(str(path))
        assert slide.band_rows == 16
        assert (slide.read_region(30, 100, 500, 700) == pixels[100:800, 30:530]).all()
        slide.close()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_uncompressed_rows_in_one_strip_are_not_read_whole(tmp_path, dtype):
    pixels = picture(2500, 2000).astype(dtype) * (1 if dtype == np.uint8 else 256)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", rowsperstrip=2000, metadata=None, byteorder=">"
    )
    slide = slide_tiff.TiffSlide(str(path))
    assert slide.band_rows == slide_tiff.ROWS
    expected = (pixels[900:1100, 100:400] >> (0 if dtype == np.uint8 else 8)).astype(np.uint8)
    assert (slide.read_region(100, 900, 300, 200) == expected).all()
    slide.close()


def test_a_compressed_strip_that_is_too_large_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(slide_tiff, "MAX_SEGMENT_PIXELS", 100_000)
    path = tmp_path / "one.tif"
    tifffile.imwrite(
        path, picture(), photometric="rgb", compression="lzw", rowsperstrip=H, metadata=None
    )
    with pytest.raises(DataError, match="vips tiffsave"):
        slide_tiff.TiffSlide(str(path))


def test_channels_in_pages_are_refused(tmp_path):
    path = tmp_path / "c.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        planes = np.moveaxis(picture(), 2, 0)
        file.write(planes, tile=(128, 128), photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(DataError, match="one colour each; export it as RGB"):
        open_slide(path)


def test_which_files_are_slides(tmp_path):
    pyramid = write(tmp_path / "a.tif", np.repeat(np.repeat(picture(), 4, 0), 4, 1), (2, 4))
    field = tmp_path / "b.tif"
    rng = np.random.default_rng(1)
    tifffile.imwrite(field, rng.integers(0, 255, (400, 400, 3), dtype=np.uint8))
    text = tmp_path / "c.tif"
    text.write_bytes(b"no picture" * 20_000)
    assert is_slide(pyramid)
    assert not is_slide(field)
    assert not is_slide(text)
    assert not is_slide(tmp_path / "missing.tif")
    assert is_slide("any/slide.ndpi")
    assert is_slide("any/slide.MRXS")


@pytest.mark.parametrize("mode", ["rgb", "rgba", "grey", "grey16", "rgb16", "palette", "grey4"])
def test_png_is_read_in_bands(tmp_path, mode):
    from PIL import Image

    rgb = picture(150, 700)
    path = tmp_path / "field.png"
    expected = rgb
    if mode == "rgb":
        Image.fromarray(rgb).save(path)
    elif mode == "rgba":
        alpha = np.full((*rgb.shape[:2], 1), 255, np.uint8)
        alpha[300:400] = 0
        Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(path)
        expected = rgb.copy()
        expected[300:400] = 255
    elif mode == "palette":
        image = Image.fromarray(rgb).quantize(64)
        image.save(path)
        expected = np.asarray(image.convert("RGB"))
    elif mode == "grey4":
        image = Image.fromarray(rgb[..., 0]).quantize(16)
        image.save(path, bits=4)
        expected = np.asarray(image.convert("RGB"))
    else:
        deep = mode.endswith("16")
        samples = rgb[..., 0] if mode.startswith("grey") else rgb[..., ::-1]
        samples = samples.astype(np.uint16) * 256 + 77 if deep else samples
        assert cv2.imwrite(str(path), samples)
        expected = np.repeat(rgb[..., :1], 3, axis=2) if mode.startswith("grey") else rgb
    slide = slide_scanlines.PngSlide(str(path))
    # Backwards, so that kept states are used.
    for top in (560, 250, 130, 0, 333):
        rows = min(200, 700 - top)
        part = slide.read_region(20, top, 100, rows)
        assert (part == expected[top : top + rows, 20:120]).all(), top
    assert not slide.damage_in(0, 0, 150, 700)
    slide.close()


def test_a_damaged_png_keeps_what_comes_before(tmp_path):
    path = tmp_path / "field.png"
    rgb = picture(150, 700)
    assert cv2.imwrite(str(path), rgb[..., ::-1])
    data = bytearray(path.read_bytes())
    data[int(len(data) * 0.7)] ^= 0xFF
    path.write_bytes(data)
    slide = slide_scanlines.PngSlide(str(path))
    whole = slide.read_region(0, 0, 150, 700)
    damage = slide.damage_in(0, 0, 150, 700)
    assert damage
    assert damage[-1].area[1] + damage[-1].area[3] == 700
    assert (whole[:128] == rgb[:128]).all()
    slide.close()


def test_png_that_cannot_be_read_in_bands(tmp_path):
    path = tmp_path / "field.png"
    assert cv2.imwrite(str(path), picture()[..., ::-1])
    data = bytearray(path.read_bytes())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="ends too early"):
        slide_scanlines.PngSlide(str(path))
    data[28] = 1  # interlaced
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    with pytest.raises(DataError, match="without interlacing"):
        slide_scanlines.PngSlide(str(path))


def test_jpeg_is_held_whole_or_refused_with_the_remedy(tmp_path, monkeypatch):
    path = tmp_path / "field.jpg"
    pixels = picture()
    path.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 95))
    slide = slide_scanlines.JpegSlide(str(path))
    assert near(slide.read_region(100, 100, 200, 200), pixels[100:300, 100:300])
    slide.close()
    monkeypatch.setattr(slide_scanlines, "MAX_JPEG_BYTES", W * H * 3 - 1)
    with pytest.raises(DataError, match="vips tiffsave"):
        slide_scanlines.JpegSlide(str(path))


def test_progressive_jpeg_is_recognised():
    pixels = np.ascontiguousarray(picture())
    plain = simplejpeg.encode_jpeg(pixels, 90)
    _, progressive = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert not slide_scanlines.is_progressive(plain)
    assert slide_scanlines.is_progressive(progressive.tobytes())


def test_the_cache_stays_within_its_limit():
    tile = np.zeros((100, 100, 3), np.uint8)
    cache = SegmentCache(limit=3 * tile.nbytes)
    for key in range(5):
        cache.put(key, tile)
    assert [cache.get(key) is not None for key in range(5)] == [False, False, True, True, True]


def test_a_missing_slide_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.svs: no such file"):
        open_slide(Path(tmp_path / "gone.svs"))


def test_dicom_that_is_no_slide(tmp_path):
    pytest.importorskip("wsidicom")
    path = tmp_path / "scan.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(200))
    with pytest.raises(DataError, match="no DICOM whole-slide image") as refused:
        open_slide(path)
    assert "\n" not in str(refused.value)


def test_dicom_is_read_by_region_from_its_folder_or_file(tmp_path):
    pytest.importorskip("wsidicom")
    from bloodfilm.imaging.discovery import find_images
    from fixtures.dicom_slide import write_dicom_slide

    pixels = picture()
    folder = write_dicom_slide(tmp_path / "dicom", pixels, 0.25)
    assert find_images([tmp_path]) == [folder]
    assert find_images([folder]) == [folder]
    for path in (folder, folder / "level0.dcm"):
        slide = open_slide(path)
        assert slide.size == (W, H)
        assert slide.pixel_size is not None
        assert slide.pixel_size.um_per_px_x == pytest.approx(0.25)
        assert near(slide.read_region(100, 90, 500, 350), pixels[90:440, 100:600])
        slide.close()


def test_openslide_reads_the_same(tmp_path):
    pytest.importorskip("openslide")
    from bloodfilm.imaging.sources.slide_openslide import OpenSlideSource

    pixels = picture()
    path = write(tmp_path / "slide.tif", pixels, levels=())
    slide = OpenSlideSource(str(path))
    ours = open_slide(path)
    region = 90, 120, 400, 300
    assert near(slide.read_region(*region), ours.read_region(*region), 1.5)
    slide.close()
    ours.close()


def test_without_the_extra_the_remedy_is_named(tmp_path, monkeypatch):
    import sys

    for module in ("openslide", "wsidicom"):
        monkeypatch.setitem(sys.modules, module, None)
    for name in ("slide.mrxs", "slide.dcm"):
        path = tmp_path / name
        path.write_bytes(b"x" * 200)
        with pytest.raises(Exception, match=r"pip install 'bloodfilm\[slides\]'"):
            open_slide(path)
