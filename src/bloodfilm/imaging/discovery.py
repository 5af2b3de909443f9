"""Which image files there are: files, folders and glob patterns to a list of paths."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from bloodfilm.core.errors import DataError
from bloodfilm.core.files import regular_file, write_text
from bloodfilm.imaging.headers import READABLE
from bloodfilm.imaging.sources.open_slide import (
    DICOM_SUFFIXES,
    SLIDE_SUFFIXES,
    files_of,
    is_dicom_folder,
)

SUFFIXES = frozenset(
    {
        ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe",
        ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
    }
)  # fmt: skip
"""Suffixes of images that are read."""
UNREAD_SUFFIXES = frozenset(
    {
        ".arw", ".cr2", ".cr3", ".czi", ".dng", ".emf", ".exr", ".jxl",
        ".lif", ".nd2", ".nef", ".orf", ".pbm", ".pgm", ".pnm", ".ppm", ".psd", ".raf", ".raw",
        ".rw2", ".tga", ".vsi", ".zvi",
    }
)  # fmt: skip
"""Suffixes of unsupported images: in a folder of fields they are reported."""

DRAWINGS = ".bloodfilm-drawings"
"""File beside pictures that bloodfilm drew: file and folder names, one per line."""
_MOST_BYTES = 1 << 20


def drawings_in(folder: Path) -> frozenset[str]:
    """Return the names in a folder that are drawings of ours, not fields."""
    try:
        with regular_file(folder / DRAWINGS).open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except (OSError, DataError):
        return frozenset()
    return frozenset(text.splitlines())


def mark_drawings(folder: Path, names: Iterable[str]) -> None:
    """Note that files or folders of these names are drawings, so that none is taken for a field."""
    write_text(folder / DRAWINGS, "".join(f"{n}\n" for n in sorted(drawings_in(folder) | {*names})))


def is_image(path: Path | str) -> bool:
    """Whether a file name ends as that of a picture which is read.

    >>> is_image("film/field 1.TIF"), is_image("cells.csv")
    (True, False)
    """
    return Path(path).suffix.lower() in SUFFIXES


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (folder, sorted file names) below a root, following links but never in circles.

    Hidden folders and files (`.git`, `._x.png`) are skipped, and so are drawings by bloodfilm.

    Raises:
        DataError: that names a folder which cannot be listed: what is in it would be missing.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, onerror=_refuse_closed, followlinks=True):
        state = Path(folder).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        drawn = drawings_in(Path(folder)) if DRAWINGS in files else frozenset[str]()
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in drawn)
        yield Path(folder), sorted(f for f in files if not f.startswith(".") and f not in drawn)


def _refuse_closed(error: OSError) -> NoReturn:
    why = (error.strerror or str(error)).lower()
    raise DataError(
        f"{error.filename}: this folder cannot be listed ({why}), so what is in it is missing; "
        "check its permissions"
    )


def find_images(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files named by files, folders (searched to the bottom) and glob patterns.

    Order: as given, and natural (field2 before field10) inside a folder or pattern. A file named
    outright is kept whatever its suffix; in folders hidden files and other suffixes are skipped.
    One file reached twice, also through links, counts once; see `discover`. A folder that cannot
    be listed and what only has the name of an image (a pipe, a device) are in the list: opening
    them reports the problem.

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
        drawings: files and folders of files in the given folders that bloodfilm drew.
    """

    images: tuple[Path, ...]
    repeats: tuple[tuple[Path, Path], ...] = ()
    drawings: tuple[Path, ...] = ()


def discover(paths: Iterable[str | os.PathLike[str]]) -> Discovery:
    """Find image files as `find_images` does; also return which were reached more than once."""
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    found: dict[str, Path] = {}
    repeats: list[tuple[Path, Path]] = []
    drawings: dict[Path, None] = {}
    for given in paths:
        if not str(given):
            raise DataError("an empty name was given; name a file or folder (. for this one)")
        for path in _expand(Path(given), drawings):
            first = found.setdefault(os.path.realpath(path), path)
            if first != path:
                repeats.append((path, first))
    return Discovery(tuple(found.values()), tuple(repeats), tuple(drawings))


def _expand(given: Path, drawings: dict[Path, None]) -> list[Path]:
    if given.is_dir() and is_dicom_folder(given):
        return [given]
    if given.is_dir():
        images = _in_folder(given, drawings)
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
            images += _in_folder(hit, drawings)
        elif _is_picture(hit):
            images.append(hit)
    if not images:
        raise DataError(f"{given}: no image matches this pattern; {READABLE}")
    return images


def _in_folder(folder: Path, drawings: dict[Path, None]) -> list[Path]:
    """Images under a folder in natural order; behind them those of folders entered twice."""
    found = sorted(
        (again, natural_key(path.relative_to(folder).as_posix()), path)
        for path, again in _walk(folder, drawings)
    )
    return [path for _, _, path in found]


def _walk(folder: Path, drawings: dict[Path, None]) -> Iterator[tuple[Path, bool]]:
    """Images under a folder, and whether their own folder was entered before; follows links.

    What only looks like an image (a link to nothing, a pipe) is among them, and so is a folder
    that cannot be listed: reading it reports the problem, and no field is skipped silently.
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
        drawn = drawings_in(Path(place)) if DRAWINGS in files else frozenset[str]()
        drawings.update((Path(place, n), None) for n in (*folders, *files) if n in drawn)
        if _is_dicom(files):  # one slide, whose levels are files
            folders.clear()
            yield Path(place), again
            continue
        parts = _parts_of_slides(place, files)
        visible = (f for f in folders if not f.startswith(".") and f not in drawn | parts)
        folders[:] = sorted(visible, key=natural_key)
        for name in files:
            if name in drawn | parts:
                continue
            path = Path(place, name)
            if _is_picture(path) and not os.path.isdir(path):  # noqa: PTH112, never raises
                yield path, again
    yield from ((path, False) for path in closed)


def _is_dicom(files: Iterable[str]) -> bool:
    return any(Path(name).suffix.lower() in DICOM_SUFFIXES for name in files)


def _parts_of_slides(place: str, files: Iterable[str]) -> frozenset[str]:
    """Return the files and folders in a folder that belong to slides of several files."""
    found: set[str] = set()
    for name in files:
        if Path(name).suffix.lower() in SLIDE_SUFFIXES:
            path = Path(place, name)
            found.update(p.relative_to(place).parts[0] for p in files_of(path) if p != path)
    return frozenset(found)


def _is_picture(path: Path) -> bool:
    suffix = path.suffix.lower()
    known = suffix in SUFFIXES or suffix in UNREAD_SUFFIXES or suffix in SLIDE_SUFFIXES
    return not path.name.startswith(".") and known


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key in which runs of digits compare as numbers, letters without regard to case."""
    parts = re.split(r"(\d+)", text)
    key = [(1, int(p), p) if p.isdigit() else (0, 0, p.lower()) for p in parts if p]
    return (*key, (0, 0, text))
