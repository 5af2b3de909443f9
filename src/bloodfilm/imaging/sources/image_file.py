"""Open a field: any common image file in, uint8 RGB out, or one clear line saying why not.

What is done on the way, always the same way:
- EXIF orientation (all eight) is applied.
- Transparent pixels are laid over white, which is what empty glass looks like.
- Grey and palette images become RGB; CMYK is converted.
- 16-bit pixels are scaled by the depth the file states (PNG sBIT, TIFF MaxSampleValue, JPEG 2000),
  else by the smallest of 8, 10, 12, 14, 16 bits that holds the brightest pixel (an issue says so).
- Floating-point pixels are read as 0..1 where none exceeds 1, else like integers.
- Only the first page of a multi-page file is read, and an issue says so.
"""

import glob
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError, is_out_of_memory
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.imaging.headers import BrokenImageError, Header, read_header

MAX_PIXELS = 100_000_000
MIN_SIDE = 32
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".jp2", ".j2k"}
)
READABLE = "PNG, JPEG, TIFF, BMP, WebP and JPEG 2000 are read"


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """A decoded image file.

    Attributes:
        pixels: uint8 RGB (H, W, 3).
        issues: decisions taken on the way: depth, pages and the like.
        sha256: of the file's bytes.
    """

    pixels: NDArray[np.uint8]
    issues: tuple[Issue, ...] = ()
    sha256: str = ""


def open_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Pixels of one image file, uint8 RGB (H, W, 3). Raises `DataError` (one line)."""
    return open_with_notes(path, max_pixels).pixels


def open_with_notes(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> OpenedImage:
    """Like `open_image`, with issues (depth, pages and the like) and the file's checksum."""
    path = Path(path)
    data = _read(path, max_pixels)
    try:
        header = read_header(data)
        _check_size(path, header, max_pixels)
        if header.truncated:
            raise BrokenImageError(f"{header.truncated}; copy the file again from its source")
        raw = _decode(data, header)
    except BrokenImageError as error:
        reason = str(error)
        remedy = "" if "; " in reason else f"; {READABLE}, so convert or copy it again"
        raise DataError(f"{path}: {reason}{remedy}") from None
    issues: list[Issue] = []
    if header.pages > 1:
        message = f"{header.pages} pages in the file, only the first is read"
        issues.append(issue(issue_codes.FIRST_PAGE_ONLY, message, pages=header.pages))
    pixels = _to_rgb(_to_uint8(raw, header, issues), header)
    digest = hashlib.sha256(data).hexdigest()
    return OpenedImage(_orient(pixels, header.orientation), tuple(issues), digest)


def _read(path: Path, max_pixels: int) -> bytes:
    """All bytes of a regular file, refused before reading if no honest field could be so big."""
    if os.path.isdir(path):  # noqa: PTH112, never raises
        _check_listable(path)
        raise DataError(f"{path}: is a folder, not an image; name a file in it")
    if not os.path.exists(path):  # noqa: PTH110, never raises
        _check_reachable(path)
        if path.is_symlink():
            raise DataError(f"{path}: a link to a file that is not there; mend or delete the link")
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


def _decode(data: bytes, header: Header) -> NDArray[np.generic]:
    """Decoded pixels as stored: any depth, 1, 3 (BGR) or 4 (BGRA) channels."""
    flags = cv2.IMREAD_UNCHANGED
    if header.kind == "JPEG":
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        with silent_opencv():
            raw = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if is_out_of_memory(error):
            raise MemoryError from None
        raw = None
    if raw is None or raw.shape[:2] != (header.height, header.width):
        raise BrokenImageError(f"the {header.kind} cannot be decoded")
    decoded: NDArray[np.generic] = raw
    return decoded


def _to_uint8(raw: NDArray[np.generic], header: Header, issues: list[Issue]) -> NDArray[np.uint8]:
    """Pixels scaled to 8 bits by their real depth; adds an issue whenever that was a decision."""
    if raw.dtype == np.uint8:
        return _array(raw)
    if raw.dtype == np.int8:
        return _array(raw.astype(np.int16) + 128)
    values = np.asarray(raw, dtype=np.float32)
    if not np.isfinite(values).all():
        message = "pixels that are not numbers were set to 0"
        issues.append(issue(issue_codes.NON_FINITE_PIXELS, message))
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    top = float(values.max())
    if raw.dtype.kind == "f" and top <= 1.0:
        issues.append(issue(issue_codes.FLOAT_PIXELS, "floating-point pixels read as 0..1"))
        return _array(np.clip(np.rint(values * 255.0), 0, 255))
    stated = header.significant_bits
    bits = (
        stated
        if stated and top < 2**stated
        else next((b for b in (8, 10, 12, 14, 16) if top < 2**b), 32)
    )
    if bits == 16 and raw.dtype == np.uint16:
        return _array(raw.astype(np.uint16) >> 8)
    how = "as the file states" if bits == stated else f"judged from the brightest pixel, {top:g}"
    message = f"pixels scaled as {bits}-bit data ({how})"
    issues.append(issue(issue_codes.BIT_DEPTH, message, bits=bits))
    return _array(np.clip(values * np.float32(2.0 ** (8 - bits)), 0, 255))


def _to_rgb(raw: NDArray[np.uint8], header: Header) -> NDArray[np.uint8]:
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


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files named by files, folders (searched to the bottom) and glob patterns.

    Order: as given, and natural (field2 before field10) inside a folder or pattern. A file named
    outright is kept whatever its suffix; in folders hidden files and other suffixes are skipped.
    One file reached twice, also through links, counts once; see `discover`. A folder that cannot
    be listed and what only has the name of an image (a pipe, a device) are in the list: opening
    them says what is wrong.

    Raises:
        DataError: for a path that does not exist and for a folder or pattern without images.
    """
    return list(discover(paths).images)


@dataclass(frozen=True)
class Discovery:
    """Image files that were found.

    Attributes:
        images: each file once, in order.
        repeats: other names by which a file was reached, with the name it is listed by.
    """

    images: tuple[Path, ...]
    repeats: tuple[tuple[Path, Path], ...] = ()


def discover(paths: Iterable[str | os.PathLike[str]]) -> Discovery:
    """Find image files as `find_images` does; also tell which were reached more than once."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: dict[str, Path] = {}
    repeats: list[tuple[Path, Path]] = []
    for given in paths:
        if not str(given):
            raise DataError("an empty name was given; name a file or folder (. for this one)")
        for path in _expand(Path(given)):
            first = found.setdefault(os.path.realpath(path), path)
            if first != path:
                repeats.append((path, first))
    return Discovery(tuple(found.values()), tuple(repeats))


def _expand(given: Path) -> list[Path]:
    if given.is_dir():
        images = _in_folder(given)
        if not images:
            raise DataError(f"{given}: no images in this folder; {READABLE}")
        return images
    if given.exists():
        return [given]
    if not glob.has_magic(str(given)):
        raise DataError(f"{given}: no such file or folder; check the name")
    hits = sorted(glob.glob(str(given), recursive=True), key=natural_key)  # noqa: PTH207
    images = []
    for hit in map(Path, hits):
        if hit.is_dir():
            images += _in_folder(hit)
        elif _looks_like_image(hit):
            images.append(hit)
    if not images:
        raise DataError(f"{given}: no image matches this pattern; {READABLE}")
    return images


def _in_folder(folder: Path) -> list[Path]:
    """Images under a folder in natural order; behind them those of folders entered twice."""
    found = sorted(
        (again, natural_key(path.relative_to(folder).as_posix()), path)
        for path, again in _walk(folder)
    )
    return [path for _, _, path in found]


def _walk(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Images under a folder, and whether their own folder was entered before; follows links.

    What only looks like an image (a link to nothing, a pipe) is among them, and so is a folder
    that cannot be listed: who reads it says so, instead of passing fields over.
    """
    seen = set()
    closed: list[Path] = []

    def note(error: OSError) -> None:
        closed.append(Path(os.fsdecode(error.filename)))

    for place, folders, files in os.walk(folder, onerror=note, followlinks=True):
        real = os.path.realpath(place)
        again = real in seen
        if again:
            folders.clear()
        seen.add(real)
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=natural_key)
        for name in files:
            path = Path(place, name)
            if _looks_like_image(path) and not os.path.isdir(path):  # noqa: PTH112, never raises
                yield path, again
    yield from ((path, False) for path in closed)


def _looks_like_image(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() in SUFFIXES


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which runs of digits compare as numbers, letters without regard to case."""
    parts = re.split(r"(\d+)", text)
    key = [(1, int(p), p) if p.isdigit() else (0, 0, p.lower()) for p in parts if p]
    return (*key, (0, 0, text))
