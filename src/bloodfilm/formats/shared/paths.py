"""Folders and paths that several formats agree on: splits, label folders, relative names."""

import os
from pathlib import Path

from bloodfilm.core import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
LABEL_FOLDERS = frozenset({"annotations", "json_labels", "labels", "wbc_detection"})
"""Folders of labels whose images lie in a folder beside them."""


def need_folder(path: Path) -> Path:
    """Return the path if it is a folder, `DataError` otherwise."""
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "does not exist"
        raise DataError(f"{path}: {what}; name a folder")
    return path


def split_of(name: str) -> str | None:
    """Return the split a folder or file name stands for (`valid` -> `val`), `None` if none."""
    return SPLIT_NAMES.get(name.lower())


def relative(path: Path, folder: Path) -> str:
    """Return a path as seen from a folder, with forward slashes."""
    return Path(os.path.relpath(path, folder)).as_posix()


def resolved(name: str, folder: Path) -> Path:
    """Undo `relative`."""
    return Path(os.path.normpath(folder / name.replace("\\", "/")))


def image_folders(file: Path, split: str | None = None, images: Path | None = None) -> list[Path]:
    """Return the folders in which a label file's images usually lie, the likeliest first.

    Args:
        file: the label file.
        split: that it is of, if known: its images lie in `images/SPLIT` before they lie elsewhere.
        images: the folder that the user names instead.
    """
    folder = file.parent
    homes = [folder, *([folder.parent] if folder.name.lower() in LABEL_FOLDERS else [])]
    bases = [images] if images is not None else [home / "images" for home in homes]
    names = [name for name, meant in SPLIT_NAMES.items() if meant == split] if split else []
    within = [base / name for base in bases for name in names]
    return [*within, *bases, *(homes if images is None else [])]


def is_file(path: Path) -> bool:
    """Whether a path that a label states is a file here; never raises, however long it is."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether a path that a label states is a folder here; never raises, however long it is."""
    return os.path.isdir(path)  # noqa: PTH112
