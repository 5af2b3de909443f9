"""Stitched fields in PNG and JPEG that are larger than a field may be.

PNG is read in bands: the stream of scanlines is unpacked from the nearest of some kept states, and
libpng undoes the filters of one band at a time, so memory stays flat. A JPEG can only be decoded
from its start to its end; it is held in memory if that takes less than `MAX_JPEG_BYTES`, and
refused with the remedy if not.
"""

import itertools
import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import imagecodecs
import numpy as np

from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.imaging.headers import BrokenImageError, read_header
from bloodfilm.imaging.pixel_size import stated_sizes
from bloodfilm.imaging.sources.array import rgb_over_white
from bloodfilm.imaging.sources.depth import to_8_bits
from bloodfilm.imaging.sources.slide import (
    ByteReader,
    Damage,
    SegmentCache,
    SlideSource,
    paste,
    slide_pixel_size,
)
from bloodfilm.imaging.sources.slide_tiff import SHRINK

BAND_ROWS = 128
KEPT_STATES = 64
MAX_ROW_BYTES = 1 << 21
MAX_JPEG_BYTES = 900_000_000
"""Of decoded pixels, and of the coefficients that a progressive JPEG needs beside them."""
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_INPUT = 1 << 20


class PngSlide(SlideSource):
    """A huge PNG, read in bands of rows.

    Raises:
        DataError: if it is interlaced, cut off or no PNG.
    """

    kind = "PNG"

    def __init__(self, path: str) -> None:
        self._bytes = ByteReader(path)
        try:
            self._layout = _png_layout(self._bytes)
        except (BrokenImageError, struct.error) as error:
            self._bytes.close()
            raise DataError(f"{path}: {error}; or convert it: {SHRINK}") from None
        layout = self._layout
        size, issues = slide_pixel_size(stated_sizes(self._bytes.read(0, _INPUT), "PNG"))
        super().__init__(path, [(layout.width, layout.height)], size, issues)
        self.band_rows = BAND_ROWS
        self._cache = SegmentCache()
        self._lock = threading.Lock()
        self._stream = _Scanlines(self._bytes, layout)
        bands = -(-layout.height // BAND_ROWS)
        self._every = max(1, bands // KEPT_STATES)
        self._kept: dict[int, _Scanlines] = {0: self._stream.copy()}
        self._band = 0

    def close(self) -> None:
        """Close the file and forget what was decoded."""
        self._bytes.close()
        self._cache.clear()
        self._kept.clear()

    def _read_level(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        out = np.empty((height, width, 3), np.uint8)
        for band in range(y // BAND_ROWS, (y + height - 1) // BAND_ROWS + 1):
            paste(out, (x, y), self._pixels(band), (0, band * BAND_ROWS))
        return out

    def _pixels(self, band: int) -> Image:
        found = self._cache.get(band)
        if found is not None:
            return found
        with self._lock:
            found = self._cache.get(band)
            if found is not None:
                return found
            if band < self._band:
                start = max(n for n in self._kept if n <= band)
                self._stream, self._band = self._kept[start].copy(), start
            while True:
                if self._band % self._every == 0 and self._band not in self._kept:
                    self._kept[self._band] = self._stream.copy()
                pixels = self._next_band()
                self._cache.put(self._band - 1, pixels)
                if self._band > band:
                    return pixels

    def _next_band(self) -> Image:
        layout = self._layout
        first = self._band * BAND_ROWS
        rows = min(BAND_ROWS, layout.height - first)
        self._band += 1
        try:
            return self._stream.band(rows)
        except BrokenImageError as error:
            name = f"rows {first + 1} to {first + rows}"
            area = 0, first, layout.width, rows
            self._note_damage(Damage(name, area, str(error)))
            return np.full((rows, layout.width, 3), 255, np.uint8)


@dataclass(frozen=True)
class _PngLayout:
    """What the chunks of a PNG say.

    Attributes:
        width, height: px.
        head: depth, colour type, compression, filter and interlace method, as in IHDR.
        colours: chunks PLTE and tRNS, whole.
        data: offset and length of every IDAT chunk's content.
    """

    width: int
    height: int
    head: bytes
    colours: bytes
    data: list[tuple[int, int]]

    @property
    def row_bytes(self) -> int:
        """Of one scanline, with the byte that names its filter."""
        bits = self.head[0] * _SAMPLES[self.head[1]]
        return 1 + (self.width * bits + 7) // 8


def _png_layout(data: ByteReader) -> _PngLayout:
    at = 8
    content: dict[bytes, bytes] = {}
    parts: list[tuple[int, int]] = []
    while True:
        begin = data.read(at, 8)
        if len(begin) < 8:
            raise BrokenImageError("the PNG ends too early; copy it again from its source")
        length, name = struct.unpack(">I4s", begin)
        if name == b"IDAT":
            parts.append((at + 8, length))
        elif name == b"IEND":
            break
        elif name in (b"IHDR", b"PLTE", b"tRNS") and length < 1 << 16:
            content[name] = data.read(at + 8, length)
        at += 12 + length
    header = content.get(b"IHDR", b"")
    width, height = struct.unpack(">II", header[:8].rjust(8, b"\0"))
    head = header[8:13]
    colours = b"".join(_chunk(n, content[n]) for n in (b"PLTE", b"tRNS") if n in content)
    if len(head) != 5 or head[1] not in _SAMPLES or min(width, height) < 1 or not parts:
        raise BrokenImageError("the PNG has no valid header or no pixels")
    if head[4]:
        raise BrokenImageError(
            "the PNG is interlaced and cannot be read in bands; save it without interlacing"
        )
    layout = _PngLayout(width, height, head, colours, parts)
    if layout.row_bytes > MAX_ROW_BYTES:
        raise BrokenImageError("the PNG is too wide; save it as a tiled TIFF")
    return layout


def _chunk(name: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


@dataclass
class _Scanlines:
    """The scanlines of a PNG from some row on.

    Attributes:
        number: of the IDAT chunk to read next; `offset`: where in it.
        crc: of what was read of that chunk.
        before: the row above, unfiltered, as bytes.
        broken: why nothing can be read from here on; empty where it can.
    """

    data: ByteReader
    layout: _PngLayout
    number: int = 0
    offset: int = 0
    pending: bytes = b""
    before: bytes = b""
    crc: int = zlib.crc32(b"IDAT")
    broken: str = ""
    unpacker: "zlib._Decompress" = field(default_factory=zlib.decompressobj)

    def copy(self) -> "_Scanlines":
        """Return an independent reader that stands at the same row."""
        return _Scanlines(
            self.data,
            self.layout,
            self.number,
            self.offset,
            self.pending,
            self.before,
            self.crc,
            self.broken,
            self.unpacker.copy(),
        )

    def band(self, rows: int) -> Image:
        """Return the next rows; `BrokenImageError` from the first damaged ones on."""
        try:
            if not self.broken:
                return self._next(rows)
        except BrokenImageError as error:
            self.broken = str(error)
        raise BrokenImageError(self.broken)

    def _next(self, rows: int) -> Image:
        layout = self.layout
        wanted = rows * layout.row_bytes
        lines = self._unpacked(wanted)
        # A small PNG of these rows, the row above as an unfiltered first one: libpng does the rest.
        above = b"\0" + (self.before or bytes(layout.row_bytes - 1))
        stream = zlib.compress(above + lines, 0)
        header = struct.pack(">II", layout.width, rows + 1) + layout.head
        small = b"".join(
            (
                b"\x89PNG\r\n\x1a\n",
                _chunk(b"IHDR", header),
                layout.colours,
                _chunk(b"IDAT", stream),
                _chunk(b"IEND", b""),
            )
        )
        try:
            samples = np.asarray(imagecodecs.png_decode(small))
        except Exception as error:  # the codec's own
            raise BrokenImageError(f"its rows cannot be decoded ({error})") from None
        self.before = self._row_above(small, samples, lines)
        eight = to_8_bits(samples[1:], [], 16 if samples.dtype == np.uint16 else None)
        if eight.ndim == 3 and eight.shape[2] == 2:
            eight = np.concatenate([np.repeat(eight[..., :1], 3, axis=2), eight[..., 1:]], axis=2)
        return rgb_over_white(eight)

    def _row_above(self, small: bytes, samples: np.ndarray, lines: bytes) -> bytes:
        """Return the last row as stored: of whole bytes per sample it is that of the samples."""
        depth, colour = self.layout.head[0], self.layout.head[1]
        if depth == 16:
            return samples[-1].astype(">u2").tobytes()
        if depth == 8 and colour != 3 and not self.layout.colours:
            return samples[-1].tobytes()
        return _unfiltered_last_row(lines, self.before, self.layout)

    def _unpacked(self, wanted: int) -> bytes:
        parts, got = [], 0
        while got < wanted:
            data = self.pending or self._input()
            if not data:
                raise BrokenImageError("its pixels end too early")
            try:
                part = self.unpacker.decompress(data, wanted - got)
            except zlib.error as error:
                raise BrokenImageError(f"its pixels are damaged ({error})") from None
            self.pending = self.unpacker.unconsumed_tail
            parts.append(part)
            got += len(part)
            if self.unpacker.eof and got < wanted:
                raise BrokenImageError("its pixels end too early")
        return b"".join(parts)

    def _input(self) -> bytes:
        """Return more of the stream, of one chunk at most; nothing of a small damaged chunk."""
        if self.number >= len(self.layout.data):
            return b""
        start, length = self.layout.data[self.number]
        part = self.data.read(start + self.offset, min(length - self.offset, _INPUT))
        self.crc = zlib.crc32(part, self.crc)
        self.offset += len(part)
        if self.offset >= length:
            if self.data.read(start + length, 4) != struct.pack(">I", self.crc):
                raise BrokenImageError("its pixels are damaged (wrong checksum)")
            self.number, self.offset, self.crc = self.number + 1, 0, zlib.crc32(b"IDAT")
        return part or self._input()


def _unfiltered_last_row(lines: bytes, before: bytes, layout: _PngLayout) -> bytes:
    """Undo the filters of a band (PNG specification, section 9) for palettes and small depths."""
    width = layout.row_bytes
    back = max(1, layout.head[0] * _SAMPLES[layout.head[1]] // 8)
    above = bytearray(before or bytes(width - 1))
    for start in range(0, len(lines), width):
        kind, row = lines[start], bytearray(lines[start + 1 : start + width])
        _unfilter(kind, row, above, back)
        above = row
    return bytes(above)


def _unfilter(kind: int, row: bytearray, above: bytearray, back: int) -> None:
    if kind == 0:
        return
    if kind == 2:
        row[:] = (
            np.frombuffer(bytes(row), np.uint8) + np.frombuffer(bytes(above), np.uint8)
        ).tobytes()
        return
    for i in range(len(row)):
        left = row[i - back] if i >= back else 0
        up = above[i]
        corner = above[i - back] if i >= back else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            guess = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
        row[i] = (row[i] + guess) & 255


class JpegSlide(SlideSource):
    """A huge JPEG, decoded whole at the first read, if it fits into `MAX_JPEG_BYTES`."""

    kind = "JPEG"

    def __init__(self, path: str) -> None:
        try:
            data = Path(path).read_bytes()
            header = read_header(data)
        except BrokenImageError as error:
            raise DataError(f"{path}: {error}; copy it again from its source") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from None
        if header.truncated:
            raise DataError(f"{path}: {header.truncated}; copy it again from its source")
        needed = header.width * header.height * (9 if is_progressive(data) else 3)
        if needed > MAX_JPEG_BYTES:
            raise DataError(
                f"{path}: a JPEG of {header.width} x {header.height} px can only be decoded whole, "
                f"which takes {needed / 1e9:.1f} GB; convert it to a tiled TIFF: {SHRINK}"
            )
        size, issues = slide_pixel_size(stated_sizes(data[:_INPUT], "JPEG"))
        super().__init__(path, [(header.width, header.height)], size, issues)
        self._lock = threading.Lock()
        self._pixels: Image | None = None

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = None

    def _read_level(self, number: int, x: int, y: int, width: int, height: int) -> Image:
        return self._whole()[y : y + height, x : x + width]

    def _whole(self) -> Image:
        from bloodfilm.imaging.sources.image_file import open_image

        with self._lock:
            if self._pixels is None:
                self._pixels = open_image(self._path, max_pixels=MAX_JPEG_BYTES // 3)
            return self._pixels


def is_progressive(data: bytes) -> bool:
    """Return whether a JPEG is progressive (SOF2), by its marker segments."""
    for name in _markers(data):
        if name in (0xC0, 0xC1):
            return False
        if name == 0xC2:
            return True
    return False


def _markers(data: bytes) -> Iterator[int]:
    at = 2
    for _ in itertools.repeat(None, 1000):
        if at + 4 > len(data) or data[at] != 0xFF:
            return
        yield data[at + 1]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
