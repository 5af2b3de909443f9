"""TIFF: which files are read, and how their samples become grey, RGB or RGBA.

Read are
- compression: none, LZW, Deflate, PackBits, JPEG, JPEG 2000, WebP, Zstandard, LZMA, JPEG XL, CCITT;
- photometric interpretation: white or black is zero, RGB, palette, YCbCr in JPEG, CMYK;
- bits per sample: 1, 2, 4, 8, 10, 12, 14, 16, 32 unsigned; 16, 32, 64 floating-point;
- planes interleaved or separate;
- extra samples: alpha only where tag 338 declares it; unspecified samples are left out;
- pages: the first that is no thumbnail or mask.

Everything else is refused by name: other compressions, CIELAB, raw sensor data, mixed depths,
composites of one page per channel.

Samples come from tifffile, which knows these layouts. What it would fill in for strips and tiles
that are missing or cut off is refused here: a blank stripe is no field. JPEG strips are decoded
strictly, so that damage inside one is found.
"""

import io
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from bloodfilm.imaging.headers import BrokenImageError, tiff_pages

COMPRESSIONS = {
    1: "none",
    2: "CCITT 1D",
    3: "CCITT T4",
    4: "CCITT T6",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRICS = {
    4: "a transparency mask",
    8: "CIELAB",
    9: "ICCLAB",
    10: "ITULAB",
    32803: "raw sensor data",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw data",
}
ASSOCIATED, UNASSOCIATED = 1, 2
DEFLATE = (8, 32946)
JPEG = 7


@dataclass(frozen=True, eq=False)
class TiffSamples:
    """The samples of one page, upright only after `orientation`.

    Attributes:
        samples: (H, W) grey, (H, W, 3) RGB or (H, W, 4) RGBA; dtype as stored.
        premultiplied: whether the colours are multiplied by alpha already.
        left_out: names of samples that were left out.
    """

    samples: NDArray[np.generic]
    premultiplied: bool = False
    left_out: tuple[str, ...] = ()


def decode_tiff(data: bytes) -> TiffSamples:
    """Decode the page that shows the field; `BrokenImageError` if it cannot be decoded."""
    index = tiff_pages(data).main
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            _refuse_composites(file)
            page: Any = file.pages[index]
            check_kind(page)
            _check_segments(page, data)
            samples = page.asarray(maxworkers=1)
            return _colours(page, np.asarray(samples))
    except BrokenImageError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail in any way inside the decoders
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise BrokenImageError(f"the TIFF is damaged or not read here ({why})") from None


def _refuse_composites(file: Any) -> None:
    metadata = file.imagej_metadata if file.is_imagej else None
    channels = int((metadata or {}).get("channels", 1))
    if channels > 1 and file.pages[0].samplesperpixel == 1:
        raise BrokenImageError(
            f"it is a composite of {channels} channels, one page each; save it as RGB"
        )


def check_kind(page: Any) -> None:
    """Refuse a page of a kind that is not read; `BrokenImageError` names it."""
    if int(page.compression) not in COMPRESSIONS:
        raise BrokenImageError(
            f"its pixels are compressed by a method that is not read ({int(page.compression)}); "
            "save it uncompressed, with LZW or Deflate, or as PNG"
        )
    photometric = int(page.photometric)
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR):
        kind = _PHOTOMETRICS.get(photometric, f"colour space {photometric}")
        raise BrokenImageError(f"its pixels are {kind}, which is not read; save it as RGB")
    if photometric == YCBCR and int(page.compression) != JPEG and max(page.subsampling or (1,)) > 1:
        raise BrokenImageError("its colours are subsampled YCbCr; save it as RGB")
    depths = page.tags.get(258)
    if depths is not None and isinstance(depths.value, tuple) and len(set(depths.value)) > 1:
        raise BrokenImageError("its samples have different depths; save it as 8-bit RGB")


def _check_segments(page: Any, data: bytes) -> None:
    """Refuse strips and tiles that are missing, cut off or damaged, which decoders fill in."""
    kind = "tiles" if page.is_tiled else "strips"
    offsets, counts = page.dataoffsets, page.databytecounts
    expected = int(np.prod(page.chunked)) if page.chunked else 1
    if len(offsets) < expected or len(counts) < expected:
        raise BrokenImageError(f"the TIFF lists {len(offsets)} of {expected} {kind}")
    for number, (offset, count) in enumerate(zip(offsets, counts, strict=True)):
        if count == 0 or offset == 0 or offset + count > len(data):
            raise BrokenImageError(f"{kind[:-1]} {number + 1} of {len(offsets)} is missing")
        segment = data[offset : offset + count]
        if int(page.compression) in DEFLATE:
            check_deflate(segment, f"{kind[:-1]} {number + 1} of {len(offsets)}")
        elif int(page.compression) == JPEG:
            check_jpeg(segment, page.jpegtables, f"{kind[:-1]} {number + 1} of {len(offsets)}")
    if int(page.compression) == 1 and not page.is_tiled:
        bits = page.bitspersample * (1 if page.planarconfig == 2 else page.samplesperpixel)
        row = (page.imagewidth * bits + 7) // 8
        planes = page.samplesperpixel if page.planarconfig == 2 else 1
        if sum(counts) < row * page.imagelength * planes:
            raise BrokenImageError("the TIFF's strips are shorter than its picture")


def check_deflate(segment: bytes, name: str) -> None:
    """Refuse a strip or tile of Deflate that is damaged or cut off."""
    try:
        unpacker = zlib.decompressobj()
        while segment:
            unpacker.decompress(segment, 1 << 24)
            if unpacker.eof:
                return
            segment = unpacker.unconsumed_tail
    except zlib.error:
        raise BrokenImageError(f"the TIFF is damaged in {name}") from None
    raise BrokenImageError(f"the TIFF is damaged: {name} ends too early")


def check_jpeg(segment: bytes, tables: bytes | None, name: str) -> None:
    """Refuse a strip or tile of JPEG that is damaged: decoders fill it in."""
    whole = tables[:-2] + segment[2:] if tables else segment
    try:
        simplejpeg.decode_jpeg(whole, colorspace="GRAY", strict=True)
    except ValueError as error:
        if "olorspace" in str(error) or "onvers" in str(error):
            return  # CMYK and the like: there is nothing wrong with the data
        raise BrokenImageError(f"the TIFF is damaged in {name} ({error})") from None


def _colours(page: Any, samples: NDArray[np.generic]) -> TiffSamples:
    if page.planarconfig == 2 and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, -1)
    return colours_of(page, samples.reshape(page.imagelength, page.imagewidth, -1))


def colours_of(page: Any, samples: NDArray[np.generic]) -> TiffSamples:
    """Return samples (H, W, samples per pixel) of a page, or of a part of it, as colours.

    Raises:
        BrokenImageError: if the page's colours are not read.
    """
    photometric = int(page.photometric)
    colours = {RGB: 3, YCBCR: 3, CMYK: 4}.get(photometric, 1)
    if samples.shape[2] < colours:
        raise BrokenImageError(f"it has {samples.shape[2]} samples where {colours} are needed")
    body, rest = samples[..., :colours], samples[..., colours:]
    if photometric == CMYK:
        body = _from_cmyk(body)
    elif photometric == PALETTE:
        body = _from_palette(body[..., 0], page.colormap)
    elif photometric == WHITE_IS_ZERO:
        body = _inverted(body, page.bitspersample)
    elif body.dtype == np.bool_ or (page.bitspersample < 8 and body.dtype.kind in "bu"):
        body = _stretched(body, page.bitspersample)
    extra = [int(v) for v in page.extrasamples or ()]
    alpha = next((i for i, v in enumerate(extra) if v in (ASSOCIATED, UNASSOCIATED)), None)
    left_out = [f"extra sample {i + 1}" for i in range(rest.shape[2]) if i != alpha]
    if alpha is None or alpha >= rest.shape[2]:
        return TiffSamples(_squeezed(body), left_out=tuple(left_out))
    if body.shape[2] == 1:
        body = np.repeat(body, 3, axis=2)
    both = np.concatenate([body, rest[..., alpha : alpha + 1].astype(body.dtype)], axis=2)
    return TiffSamples(both, extra[alpha] == ASSOCIATED, tuple(left_out))


def _squeezed(body: NDArray[np.generic]) -> NDArray[np.generic]:
    return body[..., 0] if body.shape[2] == 1 else body


def _inverted(body: NDArray[np.generic], bits: int) -> NDArray[np.generic]:
    if body.dtype.kind == "f":
        raise BrokenImageError("it is floating-point with white as zero; save it as 8-bit RGB")
    body = _stretched(body, bits) if bits < 8 else body
    top = np.iinfo(np.dtype(body.dtype).str).max if bits in (8, 16, 32) else 2**bits - 1
    return np.asarray(top - body, dtype=body.dtype)


def _stretched(body: NDArray[np.generic], bits: int) -> NDArray[np.generic]:
    """Samples of fewer than 8 bits over the whole range of 8."""
    values = body.astype(np.uint16) * 255 // (2**bits - 1)
    return np.asarray(values, dtype=np.uint8)


def _from_palette(body: NDArray[np.generic], colormap: Any) -> NDArray[np.generic]:
    if colormap is None:
        raise BrokenImageError("its palette is missing; save it as RGB")
    table = np.asarray(colormap).T
    index = body.astype(np.intp)
    if index.size and int(index.max()) >= len(table):
        raise BrokenImageError("its palette is shorter than its pixels need; save it as RGB")
    # Palettes hold 16 bits; some writers fill 8 of them only.
    table = table >> 8 if int(table.max(initial=0)) > 255 else table
    return np.asarray(table.astype(np.uint8)[index])


def _from_cmyk(body: NDArray[np.generic]) -> NDArray[np.generic]:
    """RGB by the plain rule (1 - ink)(1 - black): good enough to see, no colour management."""
    top = 255.0 if body.dtype == np.uint8 else 65535.0
    ink = body.astype(np.float32) / top
    rgb = (1 - ink[..., :3]) * (1 - ink[..., 3:]) * 255
    return np.asarray(np.rint(rgb), dtype=np.uint8)
