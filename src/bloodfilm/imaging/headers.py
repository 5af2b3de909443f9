"""Image headers read without decoding: size, depth, orientation, and whether the file is whole.

OpenCV decodes a truncated PNG or JPEG without complaint and allocates whatever a header claims.
So the header is read here first, in plain Python, from bytes that are already in memory.
Every parser raises `BrokenImageError` with a short reason; `open_image` turns that into a
`DataError`.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bloodfilm.core.errors import DataError
from bloodfilm.core.files import regular_file

_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
_JPEG_SCAN = 0xDA
MAX_SCANS = 128
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


READABLE = "PNG, JPEG, TIFF, BMP, WebP, JPEG 2000, GIF, AVIF and HEIC are read"


class BrokenImageError(Exception):
    """The bytes are not a whole image; the message gives the defect."""


@dataclass(frozen=True)
class Header:
    """Contents of a header: pixel size before rotation, EXIF orientation 1..8, depth hints.

    `significant_bits` is the real depth of a 16-bit container where the file states it (PNG sBIT,
    TIFF MaxSampleValue), else None. `pages` is the number of images in the file (TIFF without its
    thumbnails, frames of an animated PNG or WebP). `bytes_per_pixel` is what decoding will need.
    """

    kind: str
    width: int
    height: int
    orientation: int = 1
    significant_bits: int | None = None
    pages: int = 1
    truncated: str | None = None
    bytes_per_pixel: int = 3


def read_header(data: bytes) -> Header:
    """The header of one encoded image; `BrokenImageError` for anything that is not one we read."""
    for magic, parse in _READERS:
        if magic.match(data):
            return parse(data)
    for magic, name in _STRANGERS:
        if magic.match(data):
            raise BrokenImageError(f"it is {name}, which is not read here")
    raise BrokenImageError("it is not an image" if data else "the file is empty")


def _png(data: bytes) -> Header:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise BrokenImageError("the PNG header is cut off")
    width, height, depth = struct.unpack(">IIB", data[16:25])
    channels = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}.get(data[25], 4)
    orientation, bits, pages = 1, None, 1
    truncated: str | None = "the PNG ends before its end marker"
    for name, body, crc in _png_chunks(data):
        if zlib.crc32(body, zlib.crc32(name)) != crc:
            truncated = f"the PNG is corrupt (checksum of its {name.decode('latin-1')!r} chunk)"
            break
        if name == b"eXIf":
            orientation = exif_orientation(bytes(body))
        elif name == b"sBIT" and depth == 16 and len(body):
            bits = max(body)
        elif name == b"acTL" and len(body) >= 4:
            pages = max(1, int.from_bytes(body[:4], "big"))
        elif name == b"IEND":
            truncated = None
            break
    needed = channels * (2 if depth == 16 else 1)
    return Header("PNG", width, height, orientation, bits, pages, truncated, needed)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Name, body and stored checksum of each whole chunk."""
    view, at = memoryview(data), 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        yield data[at + 4 : at + 8], view[at + 8 : end - 4], int.from_bytes(view[end - 4 : end])
        at = end


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each whole chunk before the pixels, and of those after them."""
    for name, body, _ in _png_chunks(data):
        if name != b"IDAT":
            yield name, bytes(body)


def _jpeg(data: bytes) -> Header:
    orientation, size, at = 1, None, 2
    for marker, body, end in jpeg_segments(data):
        at = end
        if marker == 0xE1 and body[:6] == b"Exif\0\0":
            orientation = exif_orientation(body[6:])
        elif marker in _JPEG_FRAMES and len(body) >= 5:
            height, width = struct.unpack(">HH", body[1:5])
            size = (width, height)
    if size is None:
        raise BrokenImageError("the JPEG is cut off before its picture begins")
    # A thumbnail has its own end marker, so the search starts where the picture's data start.
    whole = data.rfind(b"\xff\xd9", at) >= 0
    truncated = None if whole else "the JPEG ends before its end marker"
    scans = data.count(b"\xff\xda", at - 2)
    if scans > MAX_SCANS:
        raise BrokenImageError(f"the JPEG has {scans} scans, which no camera writes")
    return Header("JPEG", size[0], size[1], orientation, truncated=truncated)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Marker, body and end of each segment up to the start of the first scan."""
    at, marker = 2, 0
    while at + 4 <= len(data) and marker != _JPEG_SCAN:
        if data[at] != 0xFF:
            raise BrokenImageError("the JPEG is corrupt (its segments do not line up)")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            yield marker, data[at + 4 : end], end
            at = max(end, at + 4)


def _webp(data: bytes) -> Header:
    claimed = int.from_bytes(data[4:8], "little") + 8
    truncated = None if claimed <= len(data) + 1 else "the WebP is shorter than it says"
    at, size, orientation, frames = 12, None, 1, 0
    while at + 8 <= len(data):
        name = data[at : at + 4]
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + min(length, 1 << 16)]
        if name == b"VP8X" and len(body) >= 10:
            size = (
                1 + int.from_bytes(body[4:7], "little"),
                1 + int.from_bytes(body[7:10], "little"),
            )
        elif name == b"VP8 " and size is None and len(body) >= 10:
            width, height = struct.unpack("<HH", body[6:10])
            size = (width & 0x3FFF, height & 0x3FFF)
        elif name == b"VP8L" and size is None and len(body) >= 5:
            bits = int.from_bytes(body[1:5], "little")
            size = (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
        elif name == b"EXIF":
            orientation = exif_orientation(body[6:] if body[:4] == b"Exif" else body)
        elif name == b"ANMF":
            frames += 1
        at += 8 + length + (length & 1)
    if size is None:
        raise BrokenImageError("the WebP header is cut off")
    return Header("WebP", *size, orientation, pages=max(1, frames), truncated=truncated)


def _bmp(data: bytes) -> Header:
    offset, header_size = struct.unpack("<II", data[10:18])
    if header_size == 12:
        width, height = struct.unpack("<HH", data[18:22])
        bits, compression = int.from_bytes(data[24:26], "little"), 0
    elif len(data) >= 34:
        width, height, _, bits, compression = struct.unpack("<iiHHI", data[18:34])
    else:
        raise BrokenImageError("the BMP header is cut off")
    height = abs(height)
    needed = offset + (width * bits + 31) // 32 * 4 * height
    short = compression in (0, 3) and needed > len(data)
    truncated = "the BMP is shorter than its header says" if short else None
    return Header("BMP", width, height, truncated=truncated)


def _jp2(data: bytes) -> Header:
    at = data.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(data) < at + 40:
        raise BrokenImageError("the JPEG 2000 header is cut off")
    x1, y1, x0, y0 = struct.unpack(">IIII", data[at + 8 : at + 24])
    bits = (data[at + 42] & 0x7F) + 1 if len(data) > at + 42 else 8
    whole = data.rfind(b"\xff\xd9", max(at, len(data) - 64)) >= 0
    truncated = None if whole else "the JPEG 2000 file ends before its end marker"
    depth = bits if bits > 8 else None
    return Header("JPEG 2000", x1 - x0, y1 - y0, 1, depth, truncated=truncated)


def exif_orientation(block: bytes) -> int:
    """EXIF orientation 1..8 of a TIFF-style EXIF block; 1 if missing or invalid."""
    try:
        tags, _, _ = _ifd(block, first=True, wanted=frozenset({274}))
    except (BrokenImageError, struct.error, IndexError):
        return 1
    value = tags.get(274, (1,))
    return value[0] if value and 1 <= value[0] <= 8 else 1


def exif_resolution(block: bytes) -> tuple[float, float, int]:
    """Pixels per unit along x and y, 0 where they are not stated, and the unit, of an EXIF block.

    Raises:
        BrokenImageError, struct.error, IndexError: if the block is damaged.
    """
    tags, _, _ = _ifd(block, first=True, wanted=frozenset({*_RESOLUTION, 296}))
    sides = [tags.get(tag, ()) for tag in _RESOLUTION]
    x, y = (s[0] / s[1] if len(s) == 2 and s[1] else 0.0 for s in sides)
    return x, y, _first(tags, 296, 2)


Tags = dict[int, tuple[int, ...]]
_RATIONAL, _RESOLUTION = 5, (282, 283)
_PICTURE_TAGS = frozenset({254, 256, 257, 258, 259, 262, 273, 274, 277, 279, 281, 324, 325, 338})
"""What is looked at; the values of other tags are not even read, however many they claim."""
MAX_PAGES = 1000
MAX_DIRECTORY_ENTRIES = 4096
MAX_VALUES = 1 << 22


def _ifd(
    data: bytes, first: bool, at: int = 0, wanted: frozenset[int] = _PICTURE_TAGS
) -> tuple[Tags, int, str]:
    """One TIFF directory: wanted tags (a fraction is a pair), offset of the next, byte order."""
    order = "<" if data[:2] == b"II" else ">"
    if len(data) < 8 or data[:2] not in (b"II", b"MM"):
        raise BrokenImageError("the TIFF header is cut off")
    big = struct.unpack(order + "H", data[2:4])[0] == 43
    word, step, entry = ("Q", 8, 20) if big else ("I", 4, 12)
    if first:
        at = struct.unpack(order + word, data[8:16] if big else data[4:8])[0]
    counter = 8 if big else 2
    if at + counter > len(data):
        raise BrokenImageError("the TIFF ends before its directory")
    count = struct.unpack(order + ("Q" if big else "H"), data[at : at + counter])[0]
    end = at + counter + count * entry
    if end > len(data):
        raise BrokenImageError("the TIFF ends inside its directory")
    if count > MAX_DIRECTORY_ENTRIES:
        raise BrokenImageError(f"the TIFF claims {count} entries in one directory")
    tags: Tags = {}
    for start in range(at + counter, end, entry):
        tag, kind = struct.unpack(order + "HH", data[start : start + 4])
        if tag not in wanted or tag in tags:
            continue
        if kind in _TIFF_INTEGERS:
            tags[tag] = _values(data, start + 4, order, word, _TIFF_INTEGERS[kind])
        elif kind == _RATIONAL and tag in _RESOLUTION:
            tags[tag] = _values(data, start + 4, order, word, "I", each=2)
    following = data[end : end + step]
    nxt = struct.unpack(order + word, following)[0] if len(following) == step else 0
    return tags, nxt, order


def _values(
    data: bytes, at: int, order: str, word: str, code: str, each: int = 1
) -> tuple[int, ...]:
    """The integers of one directory entry, `each` per value, whose count stands at `at`."""
    step = struct.calcsize(order + word)
    number = struct.unpack(order + word, data[at : at + step])[0] * each
    size = struct.calcsize(order + code) * number
    where = at + step
    if size > step:
        where = struct.unpack(order + word, data[where : where + step])[0]
    if number > MAX_VALUES:
        raise BrokenImageError(f"the TIFF claims {number} values in one entry of its directory")
    if where + size > len(data):
        raise BrokenImageError("the TIFF ends before the tables its directory points to")
    return struct.unpack(f"{order}{number}{code}", data[where : where + size])


@dataclass(frozen=True)
class TiffPages:
    """The pages of a TIFF.

    Attributes:
        tags: of the page that shows the field.
        main: its index: the first page that is neither thumbnail nor mask (tag 254).
        full: pages that are neither.
        count: all pages.
    """

    tags: Tags
    main: int
    full: int
    count: int


def tiff_pages(data: bytes) -> TiffPages:
    """Walk the directories of a TIFF; `BrokenImageError` if there is none or too many."""
    tags, following, _ = _ifd(data, first=True)
    found, seen = [tags], {0}
    while following and following not in seen:
        seen.add(following)
        try:
            tags, following, _ = _ifd(data, first=False, at=following)
        except (BrokenImageError, struct.error):
            break
        found.append(tags)
        if len(found) > MAX_PAGES:
            raise BrokenImageError(f"the TIFF has more than {MAX_PAGES} pages; split it")
    # Bit 0 of NewSubfileType: a reduced version of another page; bit 2: a transparency mask.
    main = [i for i, t in enumerate(found) if not _first(t, 254, 0) & 0b101] or [0]
    return TiffPages(found[main[0]], main[0], len(main), len(found))


def _first(tags: Tags, tag: int, default: int) -> int:
    values = tags.get(tag) or (default,)
    return values[0]


def _tiff(data: bytes) -> Header:
    try:
        pages = tiff_pages(data)
        tags = pages.tags
        width, height = tags[256][0], tags[257][0]
    except (KeyError, IndexError, struct.error) as error:
        raise BrokenImageError("the TIFF directory has no picture size") from error
    offsets = tags.get(273) or tags.get(324) or ()
    counts = tags.get(279) or tags.get(325) or ()
    last = max((o + c for o, c in zip(offsets, counts, strict=False)), default=0)
    truncated = "the TIFF ends before its pixels do" if last > len(data) or not offsets else None
    depth = max(tags.get(258) or (1,))
    bits = None
    if depth == 16 and tags.get(281):
        bits = max(tags[281]).bit_length() or None
    if 8 < depth < 16:
        bits = depth
    orientation = _first(tags, 274, 1)
    valid = orientation if 1 <= orientation <= 8 else 1
    samples = _first(tags, 277, 1) * max(1, (depth + 7) // 8)
    return Header("TIFF", width, height, valid, bits, pages.full, truncated, samples)


def _gif(data: bytes) -> Header:
    if len(data) < 13:
        raise BrokenImageError("the GIF header is cut off")
    width, height = struct.unpack("<HH", data[6:10])
    whole = data.rstrip(b"\0").endswith(b"\x3b")
    return Header(
        "GIF", width, height, truncated=None if whole else "the GIF ends before its end marker"
    )


def _avif(data: bytes) -> Header:
    """Return the size that the container states; decoders scale the picture to it, whatever it is.

    So the picture's own size must be among those stated: of the picture, a tile, a thumbnail.
    """
    coded = re.search(rb"mdat(?:\x12\0)?\x0a", data)
    own = None if coded is None else _av1_size(data[coded.end() : coded.end() + 64])
    stated = _heif_sizes(data)
    if own is not None and stated and own not in stated:
        raise BrokenImageError(
            f"the AVIF states {stated[0][0]} x {stated[0][1]} pixels, but its picture has "
            f"{own[0]} x {own[1]}; save it again"
        )
    return Header("AVIF", *_heif_size(data, "AVIF"), _heif_orientation(data[: 1 << 16]))


def _av1_size(data: bytes) -> tuple[int, int] | None:
    """Return the size in an AV1 sequence header, from its length on; `None` if it is not read.

    AV1 Bitstream & Decoding Process Specification, 5.5.1. Headers with timing information, which
    pictures have no use for, are not read.
    """
    length = next((n for n, byte in enumerate(data[:4], 1) if byte < 0x80), 0)
    bits = "".join(f"{byte:08b}" for byte in data[length:])
    reduced, timed = bits[4:5] == "1", bits[5:6] == "1"
    if reduced:
        at = 10
    elif not length or timed or bits[7:12] != "00000":  # more than one operating point
        return None
    else:
        at = 12 + 12 + 5  # operating point, level
        at += int(bits[at - 5 : at] or "0", 2) > 7  # tier
        if bits[6:7] == "1":  # delay of the display
            at += 5 if bits[at : at + 1] == "1" else 1
    try:
        sizes = [int(bits[at + 4 * k : at + 4 * k + 4], 2) + 1 for k in (0, 1)]
        at += 8
        width = int(bits[at : at + sizes[0]], 2) + 1
        return width, int(bits[at + sizes[0] : at + sum(sizes)], 2) + 1
    except ValueError:
        return None


def _heic(data: bytes) -> Header:
    """Return the size as it is shown: libheif turns and mirrors the picture itself."""
    width, height = _heif_size(data, "HEIC")
    # The encoder codes whole blocks; a clean aperture cuts what they add.
    for found in re.finditer(rb"\0\0\0\x28clap", data[: 1 << 16]):
        part = data[found.end() : found.end() + 16]
        across, per_x, down, per_y = struct.unpack(">4I", part) if len(part) == 16 else (0,) * 4
        if per_x == per_y == 1 and 0 <= width - across < 64 and 0 <= height - down < 64:
            width, height = across, down
            break
    quarter = re.search(rb"\0\0\0\x09irot[\x01\x03]", data[: 1 << 16])
    return Header("HEIC", *((height, width) if quarter else (width, height)))


def _heif_size(data: bytes, kind: str) -> tuple[int, int]:
    """Return the largest size of the pictures in the file: others are its tiles and thumbnails."""
    sizes = _heif_sizes(data)
    if not sizes:
        raise BrokenImageError(f"the {kind} header is cut off")
    return max(sizes, key=lambda size: size[0] * size[1])


def _heif_sizes(data: bytes) -> list[tuple[int, int]]:
    """Return the sizes that the file states, of its picture and of parts of it."""
    sizes: list[tuple[int, int]] = []
    for found in re.finditer(rb"ispe", data[: 1 << 16]):
        at = found.end() + 4
        if at + 8 <= len(data):
            width, height = struct.unpack(">II", data[at : at + 8])
            sizes.append((width, height))
    return sizes


def _heif_orientation(head: bytes) -> int:
    """The orientation that the item property irot asks for, as an EXIF number."""
    if re.search(rb"\0\0\0\x09imir", head):
        raise BrokenImageError("the AVIF is to be shown mirrored, which is not read")
    turn = re.search(rb"\0\0\0\x09irot(.)", head, re.DOTALL)
    return (1, 8, 3, 6)[turn[1][0] & 3] if turn else 1  # irot turns anticlockwise


_READERS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), _png),
    (re.compile(rb"\xff\xd8\xff"), _jpeg),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), _tiff),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), _webp),
    (re.compile(rb"BM.{24}", re.DOTALL), _bmp),
    (re.compile(rb"GIF8[79]a"), _gif),
    (re.compile(rb"....ftyp(avif|avis)", re.DOTALL), _avif),
    (re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL), _heic),
    (re.compile(rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51"), _jp2),
)
_STRANGERS = (
    (re.compile(rb"....ftypcrx ", re.DOTALL), "a raw photograph"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "a JPEG XL picture"),
    (re.compile(rb"8BPS"), "a Photoshop document"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"PK\x03\x04"), "a zip archive"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"\s*<(svg|\?xml|!DOCTYPE|html)", re.IGNORECASE), "a text file"),
)


HEAD_BYTES = 1 << 18


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels as displayed, from the header alone.

    The orientation that the file states is applied, as it is when the picture is opened.

    Raises:
        DataError: if the file is missing or is no image that is read.
    """
    try:
        with regular_file(path).open("rb") as file:
            data = file.read(HEAD_BYTES)
            try:
                header = read_header(data)
            except BrokenImageError:  # what is looked for may lie further on, in a TIFF at the end
                header = read_header(data + file.read())
            if header.truncated and len(data) < HEAD_BYTES:  # the whole file was looked at
                raise BrokenImageError(header.truncated)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (BrokenImageError, struct.error) as error:
        raise DataError(f"{path}: {error}; replace or delete it") from None
    size = header.width, header.height
    return (size[1], size[0]) if header.orientation >= 5 else size
