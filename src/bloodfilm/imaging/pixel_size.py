"""The physical pixel size that an image file states in its metadata.

Read are, the first that states a believable size:
- TIFF: OME-XML (`PhysicalSizeX`), Philips' XML (`DICOM_PIXEL_SPACING`), Aperio's description
  (`MPP`), ImageJ's (`unit` with the resolution tags), and the resolution tags in pixels per inch or
  centimetre;
- PNG: the chunk `pHYs`, and EXIF;
- JPEG: EXIF, and the density of the JFIF header;
- WebP: EXIF;
- BMP: pixels per metre.

Screens and printers have resolutions, too: 72, 96 or 300 dots per inch, which many programs write
by default, are pixels of 85 to 350 um. A size outside `MIN_UM` to `MAX_UM`, or of pixels more than
`MAX_RATIO` times as long as wide, is not one of a blood film. Where it was written as a physical
size (OME-XML, Aperio, ImageJ) that is reported; elsewhere it is no statement about the glass.
"""

import io
import math
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import tifffile

from bloodfilm.core import issue_codes
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.headers import (
    BrokenImageError,
    exif_resolution,
    jpeg_segments,
    png_chunks,
    tiff_pages,
)

MIN_UM, MAX_UM = 0.02, 2.0
"""Micrometres per pixel: finer than any light microscope samples, and coarser than a cell needs."""
MAX_RATIO = 2.0
CONFIDENCE = 0.9

_INCH, _CENTIMETRE = 2, 3
_RESOLUTION_UNIT_UM = {_INCH: 25400.0, _CENTIMETRE: 10000.0}
_UNIT_UM = {
    "pm": 1e-6,
    "å": 1e-4,
    "angstrom": 1e-4,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "mm": 1e3,
    "millimeter": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "inch": 25400.0,
    "in": 25400.0,
}
_HEAD = 1 << 20
"""Bytes of a JPEG or PNG in which metadata are looked for."""


@dataclass(frozen=True)
class StatedSize:
    """A pixel size as a file states it, believable or not.

    Attributes:
        um_x, um_y: micrometres per pixel.
        origin: which metadata state it.
        physical: whether it was written as a size of what is shown, not as a resolution in print.
    """

    um_x: float
    um_y: float
    origin: str
    physical: bool

    @property
    def is_believable(self) -> bool:
        """Whether a micrograph of blood can have such pixels.

        >>> StatedSize(25400 / 300, 25400 / 300, "resolution", False).is_believable
        False
        """
        sizes = (self.um_x, self.um_y)
        return all(math.isfinite(v) and MIN_UM <= v <= MAX_UM for v in sizes) and max(
            sizes
        ) <= MAX_RATIO * min(sizes)


def read_pixel_size(data: bytes, kind: str) -> tuple[PixelSize | None, tuple[Issue, ...]]:
    """Return the pixel size that an encoded image states, and issues about what is implausible.

    Args:
        data: the file.
        kind: as `headers.Header` names it.

    The axes are those of the stored pixels, before the EXIF orientation is applied. Metadata that
    are damaged or missing state nothing; this never raises.
    """
    return chosen(stated_sizes(data, kind))


def chosen(stated: list[StatedSize]) -> tuple[PixelSize | None, tuple[Issue, ...]]:
    """Return the first believable size, and an issue if a physical one before it is not."""
    issues: list[Issue] = []
    for size in stated:
        if size.is_believable:
            return PixelSize(size.um_x, size.um_y, "metadata", CONFIDENCE), tuple(issues)
        if size.physical:
            message = (
                f"the pixel size in the file's {size.origin}, {size.um_x:.3g} x {size.um_y:.3g} "
                "um, is not that of a blood film under a microscope and is not used"
            )
            facts = {"origin": size.origin, "um_per_px": [_plain(size.um_x), _plain(size.um_y)]}
            issues.append(issue(issue_codes.METADATA_IGNORED, message, **facts))
    return None, tuple(issues)


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def stated_sizes(data: bytes, kind: str) -> list[StatedSize]:
    """Return every pixel size that an encoded image states, the most explicit first."""
    reader = _READERS.get(kind)
    if reader is None:
        return []
    found: list[StatedSize] = []
    with suppress(Exception):  # damaged metadata can fail in any way; the pixels may be well
        for size in reader(data):
            found.append(size)
    return found


# ---- TIFF ------------------------------------------------------------------------------------


def _tiff(data: bytes) -> Iterator[StatedSize]:
    index = tiff_pages(data).main
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        first: Any = file.pages[0]
        page: Any = file.pages[index]
        tags = [page.tags.get(tag) for tag in (282, 283, 296)]
        x, y, unit = (None if tag is None else tag.value for tag in tags)
        yield from tiff_sizes(first.description, (_number(x), _number(y)), int(unit or _INCH))


def tiff_sizes(
    description: str, resolution: tuple[float, float], resolution_unit: int = _INCH
) -> Iterator[StatedSize]:
    r"""Yield the sizes that a TIFF's tags state.

    Args:
        description: tag 270 of the first page.
        resolution: tags 282 and 283, pixels per unit along x and y; 0 where they are missing.
        resolution_unit: tag 296: 2 inch, 3 centimetre, 1 none.

    >>> next(tiff_sizes("Aperio |AppMag = 40|MPP = 0.2520", (0, 0))).um_x
    0.252
    >>> next(tiff_sizes("ImageJ=1.53\nunit=micron\n", (10.0, 10.0), 1)).um_x
    0.1
    """
    yield from _ome(description)
    yield from _philips(description)
    found = re.search(r"^Aperio.*?\|\s*MPP\s*=\s*([-+.\deE]+)", description, re.DOTALL)
    if found:
        um = _number(found[1])
        yield StatedSize(um, um, "Aperio description", physical=True)
    x, y = resolution
    if not (x > 0 and y > 0):
        return
    if description.startswith("ImageJ="):
        named = re.search(r"^unit=(.*)$", description, re.MULTILINE)
        length = _unit(named[1]) if named else None
        if length is not None:
            yield StatedSize(length / x, length / y, "ImageJ description", physical=True)
            return
    if resolution_unit in _RESOLUTION_UNIT_UM:
        length = _RESOLUTION_UNIT_UM[resolution_unit]
        yield StatedSize(length / x, length / y, "resolution tags", physical=False)


def _ome(description: str) -> Iterator[StatedSize]:
    if "<OME" not in description and ":OME" not in description:
        return
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    given = dict(re.findall(r"""(\w+)\s*=\s*["']([^"']*)["']""", pixels[0])) if pixels else {}
    sides = []
    for axis in "XY":
        um = _unit(given.get(f"PhysicalSize{axis}Unit", "µm"))
        value = _number(given.get(f"PhysicalSize{axis}"))
        if um is None or value <= 0:
            return
        sides.append(value * um)
    yield StatedSize(sides[0], sides[1], "OME-XML", physical=True)


def _philips(description: str) -> Iterator[StatedSize]:
    """Yield the pixel size of the largest level of a Philips TIFF: millimetres, rows first."""
    if "DPUfsImport" not in description:
        return
    sizes = []
    for text in re.findall(r"DICOM_PIXEL_SPACING[^>]*>([^<]*)<", description):
        values = [_number(v) for v in re.findall(r"[-+.\deE]+", text.replace("&quot;", " "))]
        if len(values) == 2 and min(values) > 0:
            sizes.append((1e3 * values[1], 1e3 * values[0]))
    if sizes:
        yield StatedSize(*min(sizes), "Philips description", physical=True)


def _unit(name: str) -> float | None:
    """Return the micrometres of a unit of length, however its micro sign is written."""
    plain = name.strip().strip('"').replace("\\u00B5", "u").replace("\\u00b5", "u")
    return _UNIT_UM.get(plain.replace("µ", "u").replace("μ", "u").lower())


def _number(value: Any) -> float:
    """Return a number, a fraction or the text of one; 0 if it is none of these."""
    try:
        if isinstance(value, tuple):
            return float(value[0]) / float(value[1])
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return 0.0


# ---- other files -----------------------------------------------------------------------------


def _exif(block: bytes) -> Iterator[StatedSize]:
    """Yield what the resolution tags of an EXIF block state."""
    x, y, unit = exif_resolution(block.removeprefix(b"Exif\0\0"))
    um = _RESOLUTION_UNIT_UM.get(unit)
    if um is not None and x > 0 and y > 0:
        yield StatedSize(um / x, um / y, "EXIF", physical=False)


def _png(data: bytes) -> Iterator[StatedSize]:
    for name, body in png_chunks(data[:_HEAD]):
        if name == b"pHYs" and len(body) >= 9 and body[8] == 1:
            x, y = struct.unpack(">II", body[:8])
            if x and y:
                yield StatedSize(1e6 / x, 1e6 / y, "pHYs chunk", physical=False)
        elif name == b"eXIf":
            yield from _exif(body)


def _jpeg(data: bytes) -> Iterator[StatedSize]:
    density: list[StatedSize] = []
    try:
        for marker, body, _ in jpeg_segments(data[:_HEAD]):
            if marker == 0xE1 and body[:6] == b"Exif\0\0":
                yield from _exif(body)
            elif marker == 0xE0 and body[:5] == b"JFIF\0" and len(body) >= 12:
                um = {1: 25400.0, 2: 10000.0}.get(body[7])
                x, y = struct.unpack(">HH", body[8:12])
                if um is not None and x and y:
                    density.append(StatedSize(um / x, um / y, "JFIF header", physical=False))
    except BrokenImageError:
        pass
    yield from density


def _webp(data: bytes) -> Iterator[StatedSize]:
    at = 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            yield from _exif(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)


def _bmp(data: bytes) -> Iterator[StatedSize]:
    if int.from_bytes(data[14:18], "little") >= 40 and len(data) >= 46:
        x, y = struct.unpack("<ii", data[38:46])
        if x > 0 and y > 0:
            yield StatedSize(1e6 / x, 1e6 / y, "BMP header", physical=False)


_READERS = {"TIFF": _tiff, "PNG": _png, "JPEG": _jpeg, "WebP": _webp, "BMP": _bmp}
