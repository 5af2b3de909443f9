"""The pixel size that files state, and what becomes of it."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import PixelSize, ViewRecord
from bloodfilm.imaging.canonical import CanonicalView, canonical_view
from bloodfilm.imaging.pixel_size import (
    MAX_UM,
    MIN_UM,
    StatedSize,
    chosen,
    read_pixel_size,
    stated_sizes,
    tiff_sizes,
)
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources import open_source
from imaging.drawing import field

PIXELS = np.full((48, 64, 3), 230, np.uint8)
OME = (
    '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image>'
    '<Pixels PhysicalSizeX="{x}" PhysicalSizeXUnit="{unit}" PhysicalSizeY="{y}" '
    'PhysicalSizeYUnit="{unit}" SizeX="64"/></Image></OME>'
)


def tiff(**options) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, PIXELS, photometric="rgb", **options)
    return out.getvalue()


def pillow(kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind, **options)
    return out.getvalue()


def exif(x: float, y: float, unit: int = 3, orientation: int = 1) -> bytes:
    block = Image.Exif()
    block[282], block[283], block[296], block[274] = x, y, unit, orientation
    return block.tobytes()


def size_of(data: bytes, kind: str) -> tuple[float, float] | None:
    found, _ = read_pixel_size(data, kind)
    return None if found is None else (found.um_per_px_x, found.um_per_px_y)


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (tiff(resolution=(100000, 50000), resolutionunit="CENTIMETER"), "TIFF", (0.1, 0.2)),
        (tiff(resolution=(254000, 254000), resolutionunit="INCH"), "TIFF", (0.1, 0.1)),
        (tiff(description=OME.format(x=0.25, y=0.26, unit="µm").encode()), "TIFF", (0.25, 0.26)),
        (tiff(description=OME.format(x=250, y=250, unit="nm")), "TIFF", (0.25, 0.25)),
        (tiff(description="Aperio Image Library v11\r\n|AppMag = 40|MPP = 0.2520"), "TIFF", 0.252),
        (tiff(description="ImageJ=1.54f\nunit=micron\n", resolution=(8, 4)), "TIFF", (0.125, 0.25)),
        (tiff(description="ImageJ=1.54f\nunit=\\u00B5m\n", resolution=(8, 8)), "TIFF", 0.125),
        (pillow("PNG", dpi=(254000, 254000)), "PNG", 0.1),
        (pillow("PNG", exif=exif(100000, 100000)), "PNG", 0.1),
        (pillow("JPEG", exif=exif(100000, 50000)), "JPEG", (0.1, 0.2)),
        (pillow("JPEG", dpi=(50800, 50800)), "JPEG", 0.5),
        (pillow("WebP", exif=exif(40000, 40000)), "WebP", 0.25),
        (pillow("BMP", dpi=(127000, 127000)), "BMP", 0.2),
    ],
)
def test_a_stated_pixel_size_is_read(data, kind, expected):
    expected = expected if isinstance(expected, tuple) else (expected, expected)
    assert size_of(data, kind) == pytest.approx(expected, rel=1e-4)


def test_entries_that_point_nowhere_are_passed_over_in_silence():
    """Pillow would print a warning for each of them."""
    wild = b"".join(struct.pack("<HHII", 1000 + n, 3, 1 << 30, 8) for n in range(50))
    x, y, unit = (282, 5, 1, 686), (283, 5, 1, 694), (296, 3, 1, 3)
    entries = b"".join(struct.pack("<HHII", *e) for e in (x, y, unit)) + wild
    block = b"II*\0" + struct.pack("<IH", 8, 53) + entries + bytes(4)
    block = block.ljust(686, b"\0") + struct.pack("<4I", 100000, 1, 50000, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert size_of(pillow("PNG", exif=block), "PNG") == pytest.approx((0.1, 0.2))
        assert size_of(pillow("JPEG", exif=b"Exif\0\0" + block), "JPEG") == pytest.approx(
            (0.1, 0.2)
        )


@pytest.mark.parametrize("dpi", [1, 72, 96, 150, 300, 600, 2400])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_the_resolution_of_a_screen_or_a_printer_is_no_pixel_size(kind, dpi):
    data = pillow(kind, dpi=(dpi, dpi))
    assert read_pixel_size(data, kind) == (None, ())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WebP", "BMP", "GIF"])
def test_a_file_that_states_nothing_has_no_pixel_size(kind):
    assert read_pixel_size(pillow(kind), kind) == (None, ())


def test_explicit_metadata_come_before_resolution_tags():
    text = OME.format(x=0.2, y=0.2, unit="µm")
    sizes = list(tiff_sizes(text, (100000.0, 100000.0), 3))
    assert [(s.origin, s.um_x) for s in sizes] == [("OME-XML", 0.2), ("resolution tags", 0.1)]


def test_a_physical_size_that_no_film_has_is_reported_and_the_next_is_used():
    text = OME.format(x=3.45, y=3.45, unit="µm")  # of the sensor
    found, issues = chosen(list(tiff_sizes(text, (100000.0, 100000.0), 3)))
    assert found == PixelSize(0.1, 0.1, "metadata", 0.9)
    (ignored,) = issues
    assert ignored.code == issue_codes.METADATA_IGNORED
    assert ignored.data == {"origin": "OME-XML", "um_per_px": [3.45, 3.45]}


@pytest.mark.parametrize(
    ("x", "y", "believable"),
    [
        (MIN_UM, MIN_UM, True),
        (MAX_UM, MAX_UM, True),
        (0.9 * MIN_UM, 0.9 * MIN_UM, False),
        (1.1 * MAX_UM, 1.1 * MAX_UM, False),
        (0.1, 0.21, False),
        (float("nan"), 0.1, False),
        (float("inf"), 0.1, False),
    ],
)
def test_what_is_believable(x, y, believable):
    assert StatedSize(x, y, "test", physical=True).is_believable is believable


@pytest.mark.parametrize(
    "description",
    [
        OME.format(x="nan", y=1, unit="µm"),
        OME.format(x="", y="", unit="µm"),
        OME.format(x=0.1, y=0.1, unit="parsec"),
        "<OME><Pixels/></OME>",
        "<OME",
        "Aperio |MPP = .e.",
        "ImageJ=\nunit=pixel\n",
    ],
)
def test_nonsense_states_nothing(description):
    assert chosen(list(tiff_sizes(description, (0.0, 0.0), 2)))[0] is None


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "WebP", "BMP"])
def test_damaged_files_state_nothing_and_never_raise(kind):
    options = {"dpi": (254000, 254000)} if kind in ("PNG", "TIFF") else {}
    whole = pillow(kind, **options)
    for end in range(0, len(whole), 7):
        stated_sizes(whole[:end], kind)
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), 4):
            damaged[place] = rng.integers(256)
        stated_sizes(bytes(damaged), kind)


def test_a_phys_chunk_without_a_unit_is_no_size():
    body = struct.pack(">IIB", 10_000_000, 10_000_000, 0)
    chunk = struct.pack(">I", 9) + b"pHYs" + body + struct.pack(">I", zlib.crc32(b"pHYs" + body))
    png = pillow("PNG")
    assert read_pixel_size(png[:33] + chunk + png[33:], "PNG") == (None, ())


def test_a_turned_picture_has_its_axes_exchanged(tmp_path):
    path = tmp_path / "turned.jpg"
    path.write_bytes(pillow("JPEG", exif=exif(100000, 50000, orientation=6)))
    source = open_source(path)
    assert source.size == (48, 64)
    size = source.pixel_size
    assert (size.um_per_px_x, size.um_per_px_y) == pytest.approx((0.2, 0.1))
    assert (size.source, size.confidence) == ("metadata", 0.9)


# ---- what becomes of it ----------------------------------------------------------------------


def prior(um: float, **known) -> ScalePrior:
    return ScalePrior(**known).with_image(PixelSize(um, um, "metadata"))


def test_metadata_are_used_where_no_red_cell_is_measured():
    view = canonical_view(np.full((200, 200, 3), 240, np.uint8), prior(0.13))
    assert (view.um_per_px_x, view.um_per_px_y) == (0.13, 0.13)
    assert (view.scale_source, view.aspect_source) == ("metadata", "metadata")
    assert issue_codes.SCALE_ASSUMED not in codes(view.issues)


def test_what_a_user_provides_comes_before_metadata_and_the_conflict_is_named():
    blank = np.full((200, 200, 3), 240, np.uint8)
    view = canonical_view(blank, prior(0.13, um_per_px=0.2))
    assert (view.scale_source, view.um_per_px_y) == ("user", 0.2)
    (conflict,) = [i for i in view.issues if i.code == issue_codes.METADATA_CONFLICT]
    assert conflict.data == {"metadata": [0.13, 0.13], "used": [0.2, 0.2]}
    agreed = canonical_view(blank, prior(0.13, um_per_px=0.135))
    assert issue_codes.METADATA_CONFLICT not in codes(agreed.issues)


def test_red_cells_come_before_metadata_and_the_conflict_is_named():
    red_cell_field = field(cell=(40, 40))
    free = canonical_view(red_cell_field)
    view = canonical_view(red_cell_field, prior(4 * free.um_per_px_y))
    assert (view.scale_source, view.um_per_px_y) == ("measured", free.um_per_px_y)
    assert issue_codes.METADATA_CONFLICT in codes(view.issues)
    same = canonical_view(red_cell_field, prior(free.um_per_px_y))
    assert issue_codes.METADATA_CONFLICT not in codes(same.issues)


def test_a_view_records_what_the_metadata_state():
    view = canonical_view(np.full((200, 200, 3), 240, np.uint8), prior(0.13, um_per_px=0.2))
    record = view.record()
    data = record.to_json()
    assert data["metadata_um_per_px"] == [0.13, 0.13]
    assert ViewRecord.from_json(data) == record
    assert CanonicalView.from_record(record).metadata_um_per_px == (0.13, 0.13)
    plain = canonical_view(np.full((200, 200, 3), 240, np.uint8)).record().to_json()
    assert "metadata_um_per_px" not in plain
    assert ViewRecord.from_json(plain).metadata_um_per_px is None
