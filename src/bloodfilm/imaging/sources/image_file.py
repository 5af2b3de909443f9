"""Open a field: any common image file in, uint8 RGB out, or one clear line saying why not.

What is done on the way, always the same way:
- EXIF orientation (all eight) is applied.
- Transparent pixels are laid over white, which is what empty glass looks like. A fourth sample is
  transparency only where the file declares it, and where it is not 0 everywhere.
- Damage inside a JPEG or TIFF is an error, not a grey stripe.
- Grey and palette images become RGB; CMYK is converted.
- 16-bit pixels are scaled by the depth the file states (PNG sBIT, TIFF MaxSampleValue, JPEG 2000),
  else by the smallest of 8, 10, 12, 14, 16 bits that holds the brightest pixel (with an issue).
- Floating-point pixels are read as 0..1 where none exceeds 1, else like integers.
- The pixel size that the metadata state is kept, where a blood film can have it.
- Only the first page of a multi-page file is read, past thumbnails, which is reported as an issue.
"""

import hashlib
import io
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import simplejpeg
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError, is_out_of_memory
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.optional import MissingPackageError, optional
from bloodfilm.core.pixels import PixelSize
from bloodfilm.imaging.decoder_messages import collected_messages
from bloodfilm.imaging.headers import READABLE, BrokenImageError, Header, read_header
from bloodfilm.imaging.pixel_size import read_pixel_size
from bloodfilm.imaging.sources.base import MAX_PIXELS, MIN_SIDE
from bloodfilm.imaging.sources.depth import to_8_bits
from bloodfilm.imaging.tiff import decode_tiff

MAX_BYTES = 800_000_000
"""Decoded, at the depth of the file; a field of `MAX_PIXELS` with 16-bit RGB needs 600 MB."""
BOMB_BYTES, BOMB_RATIO = 64_000_000, 300
"""A file that would grow more than this is no photograph: those grow by up to 100."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """A decoded image file.

    Attributes:
        pixels: uint8 RGB (H, W, 3).
        issues: decisions taken on the way: depth, pages and the like.
        sha256: of the file's bytes.
        pixel_size: physical size of a pixel according to the file's metadata, if they state it.
    """

    pixels: NDArray[np.uint8]
    issues: tuple[Issue, ...] = ()
    sha256: str = ""
    pixel_size: PixelSize | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """The messages of the issues."""
        return tuple(found.message for found in self.issues)


def open_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Pixels of one image file, uint8 RGB (H, W, 3). Raises `DataError` (one line)."""
    return open_with_notes(path, max_pixels).pixels


@collected_messages()
def open_with_notes(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Like `open_image`, with issues (depth, pages and the like) and the file's checksum."""
    path = Path(path)
    data = _read(path, max_pixels)
    try:
        header = read_header(data)
        _check_size(path, header, max_pixels)
        if header.truncated:
            raise BrokenImageError(f"{header.truncated}; copy the file again from its source")
        _check_growth(header, len(data))
        issues: list[Issue] = []
        raw = _decode(data, header, issues)
    except BrokenImageError as error:
        reason = str(error)
        remedy = "" if "; " in reason else f"; {READABLE}, so convert or copy it again"
        raise DataError(f"{path}: {reason}{remedy}") from None
    if header.pages > 1:
        message = f"{header.pages} pages in the file, only the first is read"
        issues.append(issue(issue_codes.FIRST_PAGE_ONLY, message, pages=header.pages))
    pixels = _to_rgb(to_8_bits(raw, issues, header.significant_bits), issues)
    digest = hashlib.sha256(data).hexdigest()
    pixel_size, ignored = read_pixel_size(data, header.kind)
    if pixel_size is not None and header.orientation >= 5:
        pixel_size = pixel_size.transposed()
    upright = _orient(pixels, header.orientation)
    return OpenedImage(upright, (*issues, *ignored), digest, pixel_size)


def _read(path: Path, max_pixels: int) -> bytes:
    """All bytes of a regular file, refused before reading if no real field could be so big."""
    if os.path.isdir(path):  # noqa: PTH112, never raises
        _check_listable(path)
        raise DataError(f"{path}: is a folder, not an image; name a file in it")
    if not os.path.exists(path):  # noqa: PTH110, never raises
        _check_reachable(path)
        if path.is_symlink():
            raise DataError(
                f"{path}: a link to a file that is not there; correct or delete the link"
            )
        raise DataError(f"{path}: no such file; check the name")
    if not path.is_file():
        raise DataError(f"{path}: is not a regular file; name an image file")
    try:
        if path.stat().st_size > max_pixels * 16 + (1 << 24):
            raise DataError(f"{path}: the file is too large for a field; crop or reduce it")
        return path.read_bytes()
    except OSError as error:
        why = error.strerror or "reading failed"
        raise DataError(f"{path}: cannot be read ({why}); check its permissions") from None


def _check_listable(folder: Path) -> None:
    try:
        os.scandir(folder).close()
    except OSError as error:
        why = (error.strerror or "reading failed").lower()
        raise DataError(
            f"{folder}: this folder cannot be listed ({why}), so what is in it is missing; check "
            "its permissions"
        ) from None


def _check_reachable(path: Path) -> None:
    """Raise if a file may be there, but the way to it is closed."""
    try:
        path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        why = (error.strerror or "reading failed").lower()
        raise DataError(f"{path}: cannot be reached ({why}); check the permissions") from None


def _check_size(path: Path, header: Header, max_pixels: int) -> None:
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise BrokenImageError(f"its header claims {width} x {height} pixels")
    if width * height > max_pixels:
        raise DataError(
            f"{path}: {width} x {height} pixels are more than the {max_pixels:,} allowed for one "
            "field; crop or reduce the image, or raise max_pixels"
        )
    if min(width, height) < MIN_SIDE:
        raise DataError(
            f"{path}: {width} x {height} pixels are too few for a field of cells; give an image "
            f"of at least {MIN_SIDE} pixels each way"
        )


@contextmanager
def silent_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about damaged files: what is wrong is said once, by name.

    The switch moved between versions: OpenCV 5 has it in `cv2.utils.logging`, OpenCV 4 in `cv2`.
    """
    module = getattr(cv2.utils, "logging", None)
    switch = module.setLogLevel if module else getattr(cv2, "setLogLevel", None)
    if switch is None:
        yield
        return
    before = module.getLogLevel() if module else switch(0)
    switch(0)
    try:
        yield
    finally:
        switch(before)


def _check_growth(header: Header, size: int) -> None:
    """Refuse what needs far more memory than a photograph of its size on disk would."""
    needed = header.width * header.height * header.bytes_per_pixel
    if needed > MAX_BYTES:
        raise BrokenImageError(
            f"it needs {needed / 1e6:.0f} MB decoded; crop it or reduce its depth"
        )
    if needed > BOMB_BYTES and needed > BOMB_RATIO * size:
        raise BrokenImageError(
            f"its {size:,} bytes claim {header.width} x {header.height} pixels; no photograph "
            "fits into so few"
        )


def _decode(data: bytes, header: Header, issues: list[Issue]) -> NDArray[np.generic]:
    """Decoded samples as stored: any depth, grey or 3 (BGR) or 4 (BGRA) channels."""
    raw = _DECODERS.get(header.kind, _opencv)(data, issues)
    if raw.shape[:2] != (header.height, header.width):
        raise BrokenImageError(f"the {header.kind} cannot be decoded")
    return raw


def _opencv(
    data: bytes, issues: list[Issue], flags: int = cv2.IMREAD_UNCHANGED
) -> NDArray[np.generic]:
    try:
        with silent_opencv():
            raw = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError from None
        raw = None
    if raw is None:
        raise BrokenImageError("its pixels cannot be decoded")
    return np.asarray(raw)


def _png(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    """Decode with libpng's messages collected: OpenCV's copy prints them on the terminal."""
    with collected_messages() as said:
        try:
            samples = np.asarray(imagecodecs.png_decode(data))
        except MemoryError:
            raise
        except Exception as error:  # the codec's own error type, or none of it
            if is_out_of_memory(error):
                raise MemoryError from None
            why = "" if isinstance(error, UnicodeError) else f" ({error})"
            raise BrokenImageError(f"the PNG's pixels cannot be decoded{why}") from None
    surplus = [message for message in said if "IDAT" in message]
    if surplus:
        why = surplus[0].removeprefix("PNG warning: ")
        issues.append(issue(issue_codes.EXTRA_BYTES, f"the PNG holds bytes of no use ({why})"))
    if samples.ndim == 2 or samples.shape[2] == 2:
        return samples
    return samples[..., [2, 1, 0, *range(3, samples.shape[2])]]


def _jpeg(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    """Decode strictly: libjpeg goes on past damage with grey blocks, and reports no error."""
    try:
        return np.asarray(simplejpeg.decode_jpeg(data, colorspace="BGR", strict=True))
    except ValueError as error:
        why = str(error)
    colour = _opencv(data, issues, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if _HARMLESS.search(why):
        issues.append(issue(issue_codes.EXTRA_BYTES, f"the JPEG holds bytes of no use ({why})"))
    elif _DAMAGE.search(why):
        raise BrokenImageError(f"the JPEG is damaged ({why}); copy the file again from its source")
    return colour  # CMYK and the like, which simplejpeg does not turn into RGB


_HARMLESS = re.compile(r"\b\d{1,2} extraneous bytes before marker 0xd9", re.IGNORECASE)
"""Some cameras pad the end of the picture; hundreds of bytes are lost blocks."""
_DAMAGE = re.compile(
    r"corrupt|premature|bad huffman|invalid|unsupported marker|missing", re.IGNORECASE
)


def _tiff(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    found = decode_tiff(data)
    samples = found.samples
    if found.left_out:
        message = f"{', '.join(found.left_out)} of the TIFF left out: not said to be transparency"
        issues.append(issue(issue_codes.SAMPLES_LEFT_OUT, message, samples=list(found.left_out)))
    if samples.ndim == 2:
        return samples
    swapped = samples[..., [2, 1, 0, *range(3, samples.shape[2])]]
    return _unmultiplied(swapped) if found.premultiplied else swapped


def _unmultiplied(bgra: NDArray[np.generic]) -> NDArray[np.generic]:
    """Colours divided by an alpha they were multiplied by."""
    if bgra.dtype.kind == "f":
        raise BrokenImageError("it is floating-point with transparency; save it as 8-bit RGB")
    top = float(np.iinfo(np.dtype(bgra.dtype).str).max)
    alpha = bgra[..., 3:].astype(np.float32) / top
    colour = np.divide(bgra[..., :3], alpha, out=np.full(bgra[..., :3].shape, top), where=alpha > 0)
    whole = np.concatenate([np.minimum(colour, top), bgra[..., 3:]], axis=2)
    return np.asarray(np.rint(whole), dtype=bgra.dtype)


_PILLOW_ERRORS = (
    LookupError,
    OSError,
    PIL.Image.DecompressionBombError,
    SyntaxError,
    TypeError,
    ValueError,
    EOFError,
    struct.error,
)
"""What Pillow raises for damaged files."""


def _gif(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            frames = getattr(image, "n_frames", 1)
            if image.size != struct.unpack("<HH", data[6:10]):  # a frame larger than the picture
                raise BrokenImageError("the GIF has a frame larger than its picture")
            rgba = np.asarray(image.convert("RGBA"))
    except _PILLOW_ERRORS:
        raise BrokenImageError("the GIF cannot be decoded") from None
    if frames > 1:
        message = f"{frames} pictures in the file, only the first is read"
        issues.append(issue(issue_codes.FIRST_PAGE_ONLY, message, pages=frames))
    return rgba[..., [2, 1, 0, 3]]


def _avif(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    try:
        samples = np.asarray(imagecodecs.avif_decode(data, index=0, numthreads=1))
    except Exception as error:  # the codec's own error types
        raise BrokenImageError(f"the AVIF cannot be decoded ({error})") from None
    if samples.ndim == 2:
        return samples
    return samples[..., [2, 1, 0, *range(3, samples.shape[2])]]


def _heic(data: bytes, issues: list[Issue]) -> NDArray[np.generic]:
    """Decode the primary picture, which libheif turns upright itself."""
    try:
        pi_heif: Any = optional("pi_heif", install="bloodfilm[heic]", needed_by="HEIC")
    except MissingPackageError:
        raise BrokenImageError(
            "it is an HEIC photograph, which needs the extra `heic`; pip install "
            "'bloodfilm[heic]', or save it as JPEG"
        ) from None
    header = read_header(data)
    try:
        pictures = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        primary = pictures[pictures.primary_index]
        if primary.size != (header.width, header.height):  # before anything of that size is decoded
            raise BrokenImageError("the HEIC states two sizes of its picture")
        samples = np.asarray(primary)
    except _HEIF_ERRORS as error:
        why = " ".join(str(error).split())[:120]
        raise BrokenImageError(f"the HEIC cannot be decoded ({why})") from None
    if len(pictures) > 1:
        message = f"{len(pictures)} pictures in the file, only the primary one is read"
        issues.append(issue(issue_codes.FIRST_PAGE_ONLY, message, pages=len(pictures)))
    if samples.ndim == 2:
        return samples
    return samples[..., [2, 1, 0, *range(3, samples.shape[2])]]


_HEIF_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What pi-heif raises for damaged files."""

_DECODERS = {"PNG": _png, "JPEG": _jpeg, "TIFF": _tiff, "GIF": _gif, "AVIF": _avif, "HEIC": _heic}


def _to_rgb(raw: NDArray[np.uint8], issues: list[Issue]) -> NDArray[np.uint8]:
    """uint8 RGB from grey, BGR or BGRA; transparency is laid over white."""
    if raw.ndim == 2 or raw.shape[2] == 1:
        return _array(cv2.cvtColor(raw, cv2.COLOR_GRAY2RGB))
    if raw.shape[2] == 2:
        grey, alpha = raw[..., :1], raw[..., 1:]
        raw = np.concatenate([grey, grey, grey, alpha], axis=2)
    if raw.shape[2] == 4:
        rgb = _array(cv2.cvtColor(raw, cv2.COLOR_BGRA2RGB))
        alpha16 = raw[..., 3:].astype(np.uint16)
        if alpha16.min() == 255:
            return rgb
        if alpha16.max() == 0:
            message = "the alpha channel is 0 everywhere: not used as transparency"
            issues.append(issue(issue_codes.ALPHA_UNUSED, message))
            return rgb
        mixed = (rgb * alpha16 + (255 - alpha16) * 255 + 127) // 255
        return _array(mixed.astype(np.uint8))
    return _array(cv2.cvtColor(raw, cv2.COLOR_BGR2RGB))


def _array(pixels: object) -> NDArray[np.uint8]:
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _orient(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Pixels turned upright by EXIF orientation 1..8 (EXIF 2.3, tag 0x0112)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    mirrored_x = orientation in (2, 3, 6, 7)
    mirrored_y = orientation in (3, 4, 7, 8)
    if mirrored_x:
        pixels = pixels[:, ::-1]
    if mirrored_y:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
