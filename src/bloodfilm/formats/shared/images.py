"""Images on disk, without opening them: where they lie, and their size from the header."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
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


class ImageIndex:
    """The images below a folder by name, listed once and only when first asked."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """Every image, sorted by folder, then name."""
        return tuple(
            folder / name for folder, names in walk(self.root) for name in names if is_image(name)
        )

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        return _grouped((p.name.lower(), p) for p in self.paths)

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        return _grouped((p.stem.lower(), p) for p in self.paths)

    def find(self, name: str, near: Path | None = None) -> Path | None:
        """Return the image of that name, or of its stem with another suffix; `None` if none.

        Of several equal names the one that shares most of its path with `near` wins.
        """
        return next(iter(self.candidates(name, near)), None)

    def candidates(self, name: str, near: Path | None = None) -> list[Path]:
        """Return every image that may be meant; several where `near` tells none from another."""
        key = Path(name.replace("\\", "/"))
        found = self._by_name.get(key.name.lower()) or self._by_stem.get(key.stem.lower()) or []
        if len(found) < 2 or near is None:
            return found
        shared = [len(set(p.parts) & set(near.parts)) for p in found]
        return [p for p, parts in zip(found, shared, strict=True) if parts == max(shared)]

    def find_alike(self, name: str) -> Path | None:
        """Return the one image whose stem is that name's but for stray characters."""
        found = self._by_plain.get(_plain(Path(name).stem), [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_plain(self) -> dict[str, list[Path]]:
        return _grouped((_plain(p.stem), p) for p in self.paths)


def _plain(stem: str) -> str:
    return re.sub(r"[^0-9a-z_]", "", stem.lower())


def _grouped(pairs: Iterator[tuple[str, Path]]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for key, path in pairs:
        groups.setdefault(key, []).append(path)
    return groups


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
