"""Slides in TIFF: pyramids of tiles (plain, BigTIFF, SVS, NDPI, OME-TIFF) and huge strip images.

Levels are all pages and SubIFDs that show the same area as the largest page, at a lower resolution,
however a writer arranges them. Tiles and strips are read and decoded one by one, with the checks
that `imaging.tiff` makes of photographs; a tile that cannot be decoded is shown as empty glass and
recorded as damage. Uncompressed images in a single strip are read by rows.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.imaging.decoder_messages import collected_messages
from bloodfilm.imaging.headers import BrokenImageError
from bloodfilm.imaging.pixel_size import StatedSize, tiff_sizes
from bloodfilm.imaging.sources.array import rgb_over_white
from bloodfilm.imaging.sources.depth import to_8_bits
from bloodfilm.imaging.sources.slide import (
    ByteReader,
    Damage,
    SegmentCache,
    SlideSource,
    colour_profile,
    missing_levels,
    paste,
    slide_pixel_size,
    usable_levels,
)
from bloodfilm.imaging.tiff import DEFLATE, JPEG, check_deflate, check_jpeg, check_kind, colours_of

MAX_DIRECTORIES = 4096
MAX_SEGMENT_PIXELS = 1 << 25
"""Of a tile or strip, which is decoded whole."""
ROWS = 128
"""Rows that are read together from an uncompressed strip that is too large."""
SHRINK = "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg --Q 90 --bigtiff"
"""The remedy for layouts that cannot be read in parts."""


class TiffSlide(SlideSource):
    """A slide in a TIFF file.

    Args:
        path: of the file.

    Raises:
        DataError: in one line, if it is no TIFF that is read by tiles or strips, or cut off.
    """

    kind = "TIFF slide"

    @collected_messages()
    def __init__(self, path: str) -> None:
        self._bytes = ByteReader(path)
        self._cache = SegmentCache()
        try:
            self._file = tifffile.TiffFile(path)
            layout = _layout(self._file)
            self._pages = [_Page(page, self._bytes) for page in layout.levels]
            stated = _stated(self._file, layout.levels[0])
        except (BrokenImageError, DataError) as error:
            self.close()
            raise DataError(_with_remedy(path, str(error))) from None
        except MemoryError:
            raise
        except Exception as error:  # a damaged file can fail in any way inside tifffile
            self.close()
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise DataError(
                f"{path}: the TIFF is damaged or not read here ({why}); copy it again from its "
                "source"
            ) from None
        size, issues = slide_pixel_size(stated)
        issues += _level_issues(self._pages, layout.rest)
        if 34675 in layout.levels[0].tags:
            issues.append(colour_profile())
        sizes = [(p.width, p.height) for p in self._pages]
        super().__init__(path, sizes, size, issues, layout.downsamples)
        self.kind = _kind(self._file)
        first = self._pages[0]
        self.band_rows = None if first.tiled else first.segment_height
        self._bits = self._significant_bits()

    def close(self) -> None:
        """Close the file and forget what was decoded."""
        self._bytes.close()
        self._cache.clear()
        file = getattr(self, "_file", None)
        if file is not None:
            file.close()

    @collected_messages()
    def _read_level(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        page = self._pages[number]
        out = np.empty((height, width, 3), np.uint8)
        for column, row in page.segments_in(x, y, width, height):
            at = column * page.segment_width, row * page.segment_height
            paste(out, (x, y), self._segment(number, column, row), at)
        return out

    def _segment(self, number: int, column: int, row: int) -> Image:
        """Return one decoded tile or strip, cut to the level; glass where it cannot be decoded."""
        key = number, column, row
        found = self._cache.get(key)
        if found is None:
            page = self._pages[number]
            try:
                found = self._decoded(page, column, row)
            except BrokenImageError as error:
                found = self._replaced(number, column, row, str(error))
            self._cache.put(key, found)
        return found

    def _decoded(self, page: "_Page", column: int, row: int) -> Image:
        samples = page.decode(column, row)
        if samples is None:
            return np.full((*page.shape_of(column, row), 3), 255, np.uint8)
        colours = colours_of(page.page, samples)
        eight = to_8_bits(colours.samples, [], self._bits)
        return rgb_over_white(eight, colours.premultiplied)

    def _replaced(self, number: int, column: int, row: int, why: str) -> Image:
        """Return what stands for a damaged segment: of a reduced level, level 0 shows the same."""
        page = self._pages[number]
        height, width = page.shape_of(column, row)
        x, y = column * page.segment_width, row * page.segment_height
        if number == 0:
            name = page.name_of(column, row)
            self._note_damage(Damage(name, (x, y, width, height), why))
            return np.full((height, width, 3), 255, np.uint8)
        return self._made_anew(number, x, y, width, height)

    def _significant_bits(self) -> int | None:
        """Return the depth of samples of more than 8 bits, so that all tiles are scaled alike."""
        page = self._pages[0].page
        bits = int(page.bitspersample)
        if bits <= 8 or np.dtype(page.dtype).kind == "f":
            return None
        tag = page.tags.get(281)
        if tag is not None:
            stated = max(np.atleast_1d(tag.value).tolist())
            return int(stated).bit_length() or None
        if bits < 16:
            return bits
        top = max((int(np.max(s)) for s in self._samples_across()), default=0)
        return next((b for b in (8, 10, 12, 14) if top < 2**b), 16)

    def _samples_across(self) -> Iterator[NDArray[np.generic]]:
        """Decoded segments from all over the smallest level."""
        page = self._pages[-1]
        every = [(c, r) for r in range(page.down) for c in range(page.across)]
        for column, row in every[:: max(1, len(every) // 64)]:
            try:
                samples = page.decode(column, row)
            except BrokenImageError:
                continue
            if samples is not None:
                yield samples


class _Page:
    """One page as a grid of segments, tiles or strips, that are decoded one at a time."""

    def __init__(self, page: Any, data: ByteReader) -> None:
        check_kind(page)
        if page.tags.valueof(274, 1) != 1:
            raise BrokenImageError("its pixels are stored turned or mirrored; save it upright")
        self.page = page
        self._data = data
        self.width, self.height = int(page.imagewidth), int(page.imagelength)
        self.tiled = bool(page.is_tiled)
        self.planes = int(page.samplesperpixel) if page.planarconfig == 2 else 1
        if self.tiled:
            self.segment_width, self.segment_height = int(page.tilewidth), int(page.tilelength)
        else:
            rows = int(page.rowsperstrip or page.imagelength)
            self.segment_width, self.segment_height = self.width, min(rows, self.height)
        self._rows_of_strip = self.segment_height
        self._raw = self._by_rows()
        if self._raw:
            self.segment_height = min(ROWS, self.height)
        if self.segment_width * self.segment_height > MAX_SEGMENT_PIXELS:
            kind = "tiles" if self.tiled else "strips"
            raise BrokenImageError(
                f"its {kind} of {self.segment_width} x {self.segment_height} px can only be "
                f"decoded whole; convert it to small tiles: {SHRINK}"
            )
        self.across = -(-self.width // self.segment_width)
        self.down = -(-self.height // self.segment_height)
        self._check_tables()

    def segments_in(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int]]:
        """Yield (column, row) of the segments that a rectangle touches."""
        w, h = self.segment_width, self.segment_height
        rows = range(y // h, (y + height - 1) // h + 1)
        columns = range(x // w, (x + width - 1) // w + 1)
        yield from ((column, row) for row, column in itertools.product(rows, columns))

    def shape_of(self, column: int, row: int) -> tuple[int, int]:
        """Return height and width of the part of a segment that lies inside the page."""
        height = min(self.segment_height, self.height - row * self.segment_height)
        return height, min(self.segment_width, self.width - column * self.segment_width)

    def name_of(self, column: int, row: int) -> str:
        """Return what a segment is called in messages, counted from 1."""
        kind = "rows" if self._raw else "tile" if self.tiled else "strip"
        return f"{kind} {row * self.across + column + 1} of {self.across * self.down}"

    def decode(self, column: int, row: int) -> NDArray[np.generic] | None:
        """Return the samples (h, w, samples per pixel) of a segment; `None` if it is left empty.

        Raises:
            BrokenImageError: if it is damaged.
        """
        height, width = self.shape_of(column, row)
        if self._raw:
            return self._rows(row * self.segment_height, height)
        planes = []
        for plane in range(self.planes):
            index = (plane * self.down + row) * self.across + column
            offset, count = int(self._offsets[index]), int(self._counts[index])
            if count == 0:
                return None
            planes.append(self._decoded(index, self._data.read(offset, count)))
        samples = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)
        if samples.shape[0] < height or samples.shape[1] < width:
            raise BrokenImageError(f"it holds {samples.shape[1]} x {samples.shape[0]} px")
        return samples[:height, :width]

    def _decoded(self, index: int, data: bytes) -> NDArray[np.generic]:
        page = self.page
        if int(page.compression) in DEFLATE:
            check_deflate(data, f"segment {index + 1}")
        elif int(page.compression) == JPEG and page.jpegheader is None:
            check_jpeg(data, page.jpegtables, f"segment {index + 1}")
        try:
            found = page.decode(
                data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader
            )[0]
        except MemoryError:
            raise
        except Exception as error:  # of any codec
            why = " ".join(str(error).split())[:120] or type(error).__name__
            raise BrokenImageError(why) from None
        if found is None:
            raise BrokenImageError("it is empty")
        return np.asarray(found)[0]

    def _by_rows(self) -> bool:
        """Whether rows of the page lie in the file as they are, in strips too large to decode."""
        page = self.page
        return (
            not self.tiled
            and int(page.compression) == 1
            and int(page.predictor) == 1
            and self.planes == 1
            and int(page.bitspersample) in (8, 16)
            and np.dtype(page.dtype).kind == "u"
            and self.segment_height > ROWS
            and self.segment_width * self.segment_height > 1 << 22
        )

    def _rows(self, first: int, count: int) -> NDArray[np.generic]:
        page = self.page
        kind = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        row_bytes = self.width * int(page.samplesperpixel) * kind.itemsize
        parts = []
        at = first
        while at < first + count:
            strip, within = divmod(at, self._rows_of_strip)
            rows = min(first + count - at, self._rows_of_strip - within)
            start = int(self._offsets[strip]) + within * row_bytes
            parts.append(self._data.read(start, rows * row_bytes))
            at += rows
        data = b"".join(parts)
        if len(data) != count * row_bytes:
            raise BrokenImageError("the file ends inside these rows")
        return (
            np.frombuffer(data, kind).reshape(count, self.width, -1).astype(kind.newbyteorder("="))
        )

    def _check_tables(self) -> None:
        """Refuse a page whose segments are not listed, or lie beyond the end of the file."""
        page = self.page
        kind = "tiles" if self.tiled else "strips"
        self._offsets = np.asarray(page.dataoffsets, dtype=np.uint64)
        self._counts = np.asarray(page.databytecounts, dtype=np.uint64)
        down = -(-self.height // self._rows_of_strip) if self._raw else self.down
        expected = self.across * down * self.planes
        if min(len(self._offsets), len(self._counts)) < expected:
            raise BrokenImageError(f"the TIFF lists {len(self._offsets)} of {expected} {kind}")
        beyond = int(np.count_nonzero(self._offsets + self._counts > self._data.size))
        if beyond:
            raise BrokenImageError(
                f"the file ends before {beyond} of its {len(self._offsets)} {kind}; it was not "
                "copied whole, copy it again from its source"
            )


@dataclass(frozen=True)
class _Layout:
    """Which pages of a file are levels of its slide.

    Attributes:
        levels: their pages, largest first.
        rest: sizes of the other pages.
        downsamples: of the levels, where they do not follow from the sizes.
    """

    levels: list[Any]
    rest: list[tuple[int, int]]
    downsamples: list[float] | None = None


def _layout(file: tifffile.TiffFile) -> _Layout:
    """Find the levels of the slide in a file."""
    pages, others = _pages(file)
    left_out = [(int(p.imagewidth), int(p.imagelength)) for p in others]
    padded = _padded_levels(pages) if file.is_philips else None
    if padded is not None:
        return replace(padded, rest=padded.rest + left_out)
    kept, rest = usable_levels([(p.imagewidth, p.imagelength) for p in pages])
    return _Layout([pages[n] for n in kept], rest + left_out)


def _check_chain(file: tifffile.TiffFile) -> None:
    """Refuse a file that ends before the directory that its last one names."""
    kind, handle = file.tiff, file.filehandle
    handle.seek(file.pages[len(file.pages) - 1].offset)
    (count,) = struct.unpack(kind.tagnoformat, handle.read(kind.tagnosize))
    handle.seek(count * kind.tagsize, 1)
    (following,) = struct.unpack(kind.offsetformat, handle.read(kind.offsetsize))
    if following >= handle.size:
        raise BrokenImageError(
            "the file ends before its last page; it was not copied whole, copy it again from its "
            "source"
        )


def _ndpi_levels(pages: list[Any]) -> list[Any]:
    """Return the pages of an NDPI file that are levels in the plane of focus.

    The objective's magnification is negative for pictures of the whole glass, and the Z offset is 0
    in the plane of focus (https://openslide.org/formats/hamamatsu/).
    """
    levels = [
        p
        for p in pages
        if float(p.tags.valueof(65421, default=1.0)) > 0 and not p.tags.valueof(65424, default=0)
    ]
    if not levels:
        raise BrokenImageError("none of its pages is a level in the plane of focus (Z offset 0)")
    return levels


def _padded_levels(pages: list[Any]) -> _Layout | None:
    """Return the levels of a Philips file, each of which states the size that its tiles cover.

    A level is half as large as the one before, and then padded to whole tiles; so sizes tell the
    reduction only roughly (https://openslide.org/formats/philips/). `None` if its pages differ.
    """
    first = pages[0]
    levels, rest, downsamples = [first], [], [1.0]
    for page in sorted(pages[1:], key=lambda p: -int(p.imagewidth)):
        factor = downsamples[-1] * 2
        sides = [
            (page.imagewidth, first.imagewidth / factor, page.tilewidth),
            (page.imagelength, first.imagelength / factor, page.tilelength),
        ]
        fits = page.is_tiled and all(
            least - tile / 2 <= side <= least + tile for side, least, tile in sides
        )
        if fits:
            levels.append(page)
            downsamples.append(factor)
        else:
            rest.append((page.imagewidth, page.imagelength))
    return _Layout(levels, rest, downsamples) if len(levels) > 1 else None


def _with_remedy(path: str, reason: str) -> str:
    remedy = "" if "; " in reason else "; export it as a tiled TIFF with RGB colours"
    return f"{path}: {reason}{remedy}"


def _pages(file: tifffile.TiffFile) -> tuple[list[Any], list[Any]]:
    """Return the pages that could be levels, the slide itself first, and all other pages."""
    found: list[Any] = []
    for number, page in enumerate(file.pages):
        if number >= MAX_DIRECTORIES:
            raise BrokenImageError(f"the TIFF has more than {MAX_DIRECTORIES} pages; split it")
        found.append(page)
        found.extend(itertools.islice(page.pages or (), 64))
    _check_chain(file)
    # Bit 2 of NewSubfileType: a transparency mask.
    found = [p for p in found if not int(p.subfiletype) & 4 and p.imagewidth and p.imagelength]
    if not found:
        raise BrokenImageError("the TIFF has no pages")
    possible = _ndpi_levels(found) if file.is_ndpi else found
    main = max(possible, key=lambda p: p.imagewidth * p.imagelength)
    if int(main.samplesperpixel) == 1 and int(main.photometric) != 3:
        same = [p for p in found if p.shape == main.shape]
        if file.is_ome and len(same) > 1:
            raise BrokenImageError(
                f"it holds {len(same)} channels or planes of one colour each; export it as RGB"
            )
    alike = [
        p
        for p in possible
        if p is not main
        and int(p.samplesperpixel) == int(main.samplesperpixel)
        and p.dtype == main.dtype
        and p.imagewidth < main.imagewidth
    ]
    levels = [main, *alike]
    return levels, [p for p in found if all(p is not level for level in levels)]


def _level_issues(pages: list[_Page], rest: list[tuple[int, int]]) -> list[Issue]:
    issues = missing_levels([(p.width, p.height) for p in pages])
    if rest:
        sizes = ", ".join(f"{w} x {h}" for w, h in rest[:5])
        more = f" and {len(rest) - 5} more" if len(rest) > 5 else ""
        message = (
            "pages that are no level of the slide (label, macro image, other focal planes) are not "
            f"used: {sizes} px{more}"
        )
        issues.append(issue(issue_codes.LEVELS_LEFT_OUT, message, pages=len(rest)))
    return issues


def _kind(file: tifffile.TiffFile) -> str:
    for name in ("SVS", "NDPI", "Philips", "OME", "SCN", "BIF"):
        if getattr(file, f"is_{name.lower()}"):
            return f"{name} slide"
    return "TIFF slide"


def _stated(file: tifffile.TiffFile, page: Any) -> list[StatedSize]:
    """Return the pixel sizes that a file states of a page."""
    x, y = (_ratio(page.tags.valueof(tag)) for tag in (282, 283))
    description = str(file.pages.first.description)
    return list(tiff_sizes(description, (x, y), int(page.tags.valueof(296, 2))))


def _ratio(value: Any) -> float:
    """Return a TIFF's fraction; 0 where it is missing or none."""
    try:
        return float(value[0]) / float(value[1])
    except (TypeError, ZeroDivisionError, IndexError):
        return 0.0


@collected_messages()
def looks_like_slide(path: Path, most_pixels: int) -> bool:
    """Return whether a TIFF is a pyramid, or larger than a field may be.

    A file that cannot be judged is none: opening it as a field says what is wrong.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if file.is_svs or file.is_ndpi or file.is_scn or file.is_bif:
                return True
            levels = _layout(file).levels
            if levels[0].imagewidth * levels[0].imagelength > most_pixels:
                return True
            return bool(levels[0].is_tiled) and len(levels) > 1
    except (
        BrokenImageError,
        OSError,
        ValueError,
        TypeError,
        struct.error,
        LookupError,
        RuntimeError,
    ):
        return False
