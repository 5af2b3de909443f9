"""Which formats there are, and one call each that opens, saves and recognises any of them."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from bloodfilm.core import DataError, Dataset
from bloodfilm.core.issues import Issue
from bloodfilm.core.text import printable
from bloodfilm.formats import (
    coco,
    cvat,
    folder,
    label_studio,
    lld,
    native,
    qupath,
    result,
    tables,
    voc,
    yolo,
)
from bloodfilm.formats.parquet import index
from bloodfilm.formats.public import bccd, bcisc, chula, krd, lmu, pbc, pig_wbc, txl
from bloodfilm.formats.shared.context import ReadOptions
from bloodfilm.formats.shared.output import WriteOptions
from bloodfilm.formats.shared.parsing import read_json

T = TypeVar("T")
Reader = Callable[..., Dataset]
Writer = Callable[..., list[Issue]]

READERS: dict[str, Reader] = {
    "bccd": bccd.read,
    "bcisc": bcisc.read,
    "bloodfilm": native.read,
    "chula": chula.read,
    "coco": coco.read,
    "cvat": cvat.read,
    "folder": folder.read,
    "index": index.read,
    "krd": krd.read,
    "label_studio": label_studio.read,
    "lld": lld.read,
    "lmu": lmu.read,
    "pbc": pbc.read,
    "pig_wbc": pig_wbc.read,
    "qupath": qupath.read,
    "result": result.read,
    "txl": txl.read,
    "voc": voc.read,
    "yolo": yolo.read,
}

WRITERS: dict[str, Writer] = {
    "bloodfilm": native.write,
    "coco": coco.write,
    "cvat": cvat.write,
    "folder": folder.write,
    "index": index.write,
    "label_studio": label_studio.write,
    "lld": lld.write,
    "qupath": qupath.write,
    "voc": voc.write,
    "yolo": yolo.write,
}

TABLES: dict[str, Writer] = {"csv": tables.write_csv, "parquet": tables.write_parquet}
"""Tables that hold the results of an analysis and no other data set."""

# Formats that say more go first: LLD's labels are COCO too. Last, any set is a folder of images.
_BY_SPECIFICITY: tuple[tuple[ModuleType, ...], ...] = (
    (native, index, result),
    (bccd, bcisc, chula, krd, lld, lmu, pbc, pig_wbc, txl),
    (coco, cvat, label_studio, qupath, voc, yolo),
)


def open_dataset(path: Path | str, format: str | None = None, **options: Any) -> Dataset:
    """Open a data set, recognising its format by content unless `format` names it.

    Args:
        path: a file or a folder.
        format: a key of `READERS`.
        options: of the reader: those of `ReadOptions` and the format's own.

    Raises:
        DataError: if nothing is recognised, several formats are, or the data cannot be read.
    """
    where = Path(path).expanduser()
    if not where.exists():
        raise DataError(f"{where}: does not exist; check the path")
    name = _key(format) if format else detect(where)
    if name not in READERS:
        raise DataError(f"no format {name!r}; formats: {', '.join(READERS)}")
    return _call(READERS[name], where, name, options, ReadOptions)


def save_dataset(dataset: Dataset, path: Path | str, format: str, **options: Any) -> list[Issue]:
    """Write a data set in a format of `WRITERS`; return what the format could not carry.

    Args:
        dataset: to write.
        path: a file or a new folder, as the format has it.
        format: a key of `WRITERS`, or of `TABLES` for the results of an analysis.
        options: of the writer: those of `WriteOptions` and the format's own.

    Raises:
        DataError: if the set has no field, if something is in the way and `overwrite` is not set,
            or if an image to put in place lies outside of the set that was read and
            `allow_outside` is not set, or if a name cannot be written as UTF-8.
    """
    format = _key(format)
    writers = {**WRITERS, **TABLES}
    if format not in writers:
        raise DataError(f"no format {format!r} can be written; choose from {', '.join(writers)}")
    where = Path(path).expanduser()
    if not len(dataset):
        why = f" ({dataset.issues[-1]})" if dataset.issues else ""
        raise DataError(f"{dataset.source or dataset.name}: no field to write{why}")
    options.setdefault("source", dataset.source)
    try:
        return _call(partial(writers[format], dataset), where, format, options, WriteOptions)
    except UnicodeEncodeError as error:
        near = error.object[max(0, error.start - 40) : error.end + 20]
        raise DataError(
            f"{where}: {format} is written as UTF-8, which a name is not: "
            f"...{printable(near)}...; rename that file or class"
        ) from None


def _key(format: str) -> str:
    """Return a format's key: people write label-studio, or LLD."""
    return format.strip().lower().replace("-", "_")


def _call(
    function: Callable[..., T], path: Path, format: str, options: dict[str, Any], shared: type
) -> T:
    """Call a reader or a writer; `DataError` for an option that it does not take."""
    given = function.func if isinstance(function, partial) else function
    known = {*signature(given).parameters, *shared.__annotations__}
    for option in options:
        if option not in known:
            raise DataError(f"{path}: format {format} has no option {option!r}")
    return function(path, **options)


def detect(path: Path) -> str:
    """Return the format of a file or folder, judged by what is in it.

    Raises:
        DataError: if that is unclear, or a JSON file there that nobody recognises is ill-formed:
            labels cut off in a copy must not make a folder of images without labels.
    """
    for rank in _BY_SPECIFICITY:
        found = [_name(module) for module in rank if module.recognises(path)]
        if len(found) > 1:
            listed = " and ".join(found)
            raise DataError(f"{path}: holds {listed} labels; say which, e.g. format={found[0]!r}")
        if found:
            return found[0]
    _refuse_broken_json(path)
    if folder.recognises(path):
        return _name(folder)
    raise DataError(
        f"{path}: no data set is recognised here; name the folder that holds images and labels, "
        f"or say which format it is: {', '.join(READERS)}"
    )


def _refuse_broken_json(path: Path) -> None:
    files = [path] if path.is_file() else [*path.glob("*.json"), *path.glob("*/*.json")]
    for file in sorted(files):
        if file.suffix.lower() == ".json":
            read_json(file)


def _name(module: ModuleType) -> str:
    return next(key for key, reader in READERS.items() if reader is module.read)
