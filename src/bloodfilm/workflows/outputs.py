"""Check what a user named for output before any work is done."""

import contextlib
import importlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bloodfilm.core import files
from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.locks import LOCK, is_empty, lock_folder
from bloodfilm.formats.native.document import FILE_NAME


def refuse_inputs(outputs: Iterable[Path | None], inputs: Iterable[Path]) -> None:
    """Raise if an output is an input, another output, or cannot be a file.

    Raises:
        ConfigError: if two outputs are one file.
        DataError: that names the output and says what is in the way.
    """
    named = [path for path in outputs if path is not None]
    for place, path in enumerate(named):
        if (kind := files.kind_of(path)) not in (None, "file", "stream"):
            raise DataError(f"{path}: is a {kind}; name a file")
        if kind != "stream" and path.resolve() in [other.resolve() for other in named[:place]]:
            raise ConfigError(f"{path}: is named for two outputs; give each a file of its own")
        if kind is None:
            check_can_hold(path.parent)
    files.refuse_inputs(named, inputs)


def dataset_target(folder: Path, *, overwrite: bool) -> Path:
    """Return the file of a data set in a folder.

    Raises:
        OutputError: if there is one already, unless it may be replaced.
    """
    target = folder / FILE_NAME
    if target.exists() and not overwrite:
        raise OutputError(f"{folder}: holds a data set", ["other-output", "overwrite"])
    return target


def check_can_hold(folder: Path) -> None:
    """Raise if a file cannot be made in a folder, or the folder itself cannot be made.

    Raises:
        OutputError: that says what is in the way.
    """
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        what = "leads to nothing" if place.is_symlink() else "is no folder"
        raise OutputError(f"{folder}: cannot be made, as {place} {what}", ["other-output"])
    if not os.access(place, os.W_OK | os.X_OK):
        raise OutputError(
            f"{folder}: nothing can be written to {place} (permission denied)", ["other-output"]
        )


def check_new_folder(folder: Path) -> None:
    """Raise if a folder for output cannot be made, or holds something already.

    Raises:
        OutputError: that says what is in the way.
    """
    check_can_hold(folder)
    there = sorted(p.name for p in folder.iterdir() if p.name != LOCK) if folder.is_dir() else []
    if there:
        raise OutputError(f"{folder}: holds {there[0]} already", ["other-output"])


def refuse_bundle_itself(folder: Path, bundle: Path) -> None:
    """Raise `OutputError` if a folder for a new bundle is that of the bundle it is made from."""
    if folder.exists() and folder.resolve() == bundle.resolve():
        raise OutputError(f"{folder}: is the bundle itself", ["other-output"])


def check_data_folder(folder: Path) -> None:
    """Raise `ConfigError` if the folder that data paths start from is not there."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the one the data paths start from")


def make_folder(folder: Path) -> None:
    """Make a folder for output, with those above it.

    Raises:
        OutputError: if it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; name a folder", ["other-output"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise OutputError(f"{folder}: cannot be made ({why})", ["other-output"]) from None


@contextlib.contextmanager
def hold_folder(folder: Path, work: str) -> Iterator[None]:
    """Make a folder for output, if it is not there, and hold it while the block runs.

    Where the block fails before it wrote anything, a folder that was made for it is removed again.

    Args:
        folder: of the output.
        work: what is done there, in a word or two; shown to a process that is refused.

    Raises:
        OutputError: if it cannot be made, or another process works there.
    """
    made = not folder.exists()
    make_folder(folder)
    try:
        with lock_folder(folder, work):
            yield
    except BaseException:
        if made and is_empty(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_json_output(path: Path, content: Any) -> None:
    """Write plain data to a file or stream that the user named."""
    with files.open_output(path) as file:
        json.dump(content, file, indent=1, ensure_ascii=False)
        file.write("\n")


def require_extra(package: str) -> None:
    """Raise `ModuleNotFoundError` now if a package of an extra is missing, not after the work."""
    importlib.import_module(package)
