"""Images on disk, without opening them: where they lie, and their size from the header."""

import os
from collections.abc import Iterator
from pathlib import Path

from bloodfilm.core import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2"})
_TURNED = range(5, 9)  # EXIF orientations that swap width and height


def is_image(path: Path | str) -> bool:
    """Whether a file name ends as an image's does."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield (folder, sorted file names) below a root, following links but never in circles.

    Hidden folders and files (`.git`, `._x.png`) are passed over.
    """
    seen: set[tuple[int, int]] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        state = Path(folder).stat()
        if (state.st_dev, state.st_ino) in seen:
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield Path(folder), sorted(f for f in files if not f.startswith("."))


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels as displayed, from the header alone.

    Raises:
        DataError: if the file is missing or is no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in _TURNED
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{path}: not an image that can be read; replace or delete it") from None
    return (height, width) if turned else (width, height)
