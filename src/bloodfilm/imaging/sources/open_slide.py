"""Which files are slides, and which reader opens them."""

import os
from pathlib import Path

from bloodfilm.core.errors import DataError
from bloodfilm.imaging.headers import image_size
from bloodfilm.imaging.sources.base import MAX_PIXELS
from bloodfilm.imaging.sources.slide import SlideSource, digest_of

TIFF_SUFFIXES = frozenset({".svs", ".ndpi", ".btf", ".tf8", ".tf2"})
"""Slides in TIFF that are never a field."""
OPENSLIDE_SUFFIXES = frozenset({".bif", ".mrxs", ".scn", ".svslide", ".vms", ".vmu"})
DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
SLIDE_SUFFIXES = TIFF_SUFFIXES | OPENSLIDE_SUFFIXES | DICOM_SUFFIXES
"""Suffixes of files that are always slides."""
_MAYBE = frozenset({".tif", ".tiff"})
_INDEXES = frozenset({".vms", ".vmu"})
"""Text files that name the JPEG files of a slide."""
_LONGEST_INDEX = 1 << 20
_SCANLINES = frozenset({".jfif", ".jpe", ".jpeg", ".jpg", ".png"})
_SMALLEST_TIFF, _SMALLEST_SCANLINES = 1 << 17, 1 << 21
"""Bytes: smaller files are no slides."""


def is_slide(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a slide rather than a photograph of a field.

    Slides are files of slide formats, folders of DICOM files, TIFF pyramids, and TIFF, PNG and JPEG
    files of more pixels than a field may have. A file that cannot be read is none.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if place.is_dir():
        return is_dicom_folder(place)
    if suffix in SLIDE_SUFFIXES:
        return True
    if suffix in _MAYBE and _has(place, _SMALLEST_TIFF):
        from bloodfilm.imaging.sources.slide_tiff import looks_like_slide

        return looks_like_slide(place, MAX_PIXELS)
    large = suffix in _SCANLINES and _has(place, _SMALLEST_SCANLINES)
    return large and _pixels(place) > MAX_PIXELS


def _has(path: Path, size: int) -> bool:
    """Whether it is a file of at least so many bytes."""
    try:
        return path.is_file() and path.stat().st_size >= size
    except OSError:
        return False


def _pixels(path: Path) -> int:
    """Pixels of an image by its header; 0 if it cannot be read, which opening it reports."""
    try:
        width, height = image_size(path)
    except DataError:
        return 0
    return width * height


def is_dicom_folder(folder: Path) -> bool:
    """Return whether a folder holds DICOM files, and so may be a slide."""
    try:
        with os.scandir(folder) as entries:
            return any(Path(e.name).suffix.lower() in DICOM_SUFFIXES for e in entries)
    except OSError:
        return False


def files_of(path: str | os.PathLike[str]) -> list[Path]:
    """Return the files that a slide, or any image, consists of."""
    place = Path(path)
    if place.is_dir():
        return sorted(p for p in place.iterdir() if p.suffix.lower() in DICOM_SUFFIXES)
    suffix = place.suffix.lower()
    if suffix == ".mrxs":
        beside = place.with_suffix("")
        more = sorted(p for p in beside.rglob("*") if p.is_file()) if beside.is_dir() else []
        return [place, *more]
    if suffix in _INDEXES:
        return [place, *_named_in(place)]
    return [place]


def _named_in(index: Path) -> list[Path]:
    """Return the files that the text file of a Hamamatsu VMS or VMU slide names, beside it."""
    try:
        with index.open("rb") as file:
            lines = file.read(_LONGEST_INDEX).decode("latin-1").splitlines()
    except OSError:
        return []
    values = (line.partition("=")[2].strip() for line in lines)
    named = sorted({value for value in values if value and "/" not in value and "\0" not in value})
    return [path for path in (index.parent / value for value in named) if path.is_file()]


def content_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of an image file; of several files, of their names and SHA-256.

    Raises:
        OSError: if a file cannot be read.
    """
    return digest_of(files_of(path))


def open_slide(path: str | os.PathLike[str]) -> SlideSource:
    """Open a slide for reading by region.

    TIFF in all its forms, PNG and JPEG need nothing beside this program; DICOM needs wsidicom, MRXS
    and the formats of `OPENSLIDE_SUFFIXES` need OpenSlide (`pip install 'bloodfilm[slides]'`).

    Raises:
        MissingPackageError: if a package is needed that is not installed.
        DataError: in one line, if the file is missing, damaged, or no slide.
    """
    name = os.fspath(path)
    place = Path(path)
    if not place.exists():
        raise DataError(f"{name}: no such file; check the name")
    suffix = place.suffix.lower()
    from bloodfilm.imaging.sources.slide_dicom import DicomSlide, is_dicom

    try:
        if place.is_dir() or suffix in DICOM_SUFFIXES or is_dicom(place):
            return DicomSlide(name)
        if suffix in OPENSLIDE_SUFFIXES:
            from bloodfilm.imaging.sources.slide_openslide import OpenSlideSource

            return OpenSlideSource(name)
        if suffix in _SCANLINES:
            from bloodfilm.imaging.sources.slide_scanlines import JpegSlide, PngSlide

            return PngSlide(name) if suffix == ".png" else JpegSlide(name)
        from bloodfilm.imaging.sources.slide_tiff import TiffSlide

        return TiffSlide(name)
    except OSError as error:
        why = (error.strerror or "reading failed").lower()
        raise DataError(f"{name}: cannot be read ({why}); check its permissions") from None
