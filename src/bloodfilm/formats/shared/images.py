"""Images on disk, without opening them: where they lie, and their size from the header."""

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2"})


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
