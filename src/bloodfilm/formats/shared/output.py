"""What every writer shares: all-or-nothing output, images put in place, and a list of losses."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.dataset_codes import dataset_issue
from bloodfilm.core.files import (
    identity,
    kind_of,
    refuse_inputs,
    refuse_links,
    staging_folder,
    write_bytes,
)
from bloodfilm.core.issues import Issue
from bloodfilm.core.locks import is_empty, lock_folder, lock_path
from bloodfilm.formats.shared.context import box_fault
from bloodfilm.formats.shared.paths import LABEL_FOLDERS
from bloodfilm.formats.shared.shapes import around
from bloodfilm.imaging.headers import BrokenImageError, image_size, read_header

Placing = Literal["copy", "link"]
ORIGIN = ("region", "domain", "patient", "split", "diagnosis", "meta")
OUTLINE_SLACK_PX = 1.0
"""How far the box around an outline may lie from the cell's own box."""
NO_SPLIT = "all"
"""The folder or file of fields that belong to no split."""


class WriteOptions(TypedDict, total=False):
    """Options that every writer takes.

    Keys:
        overwrite: replace files that exist; without it, an existing target is a `DataError`.
        images: `copy` or `link` (symbolically) the images into the new set; by default they stay.
        source: the file or folder the set was read from; `save_dataset` gives it. Only images
            that lie in it are put in place, and it is not replaced.
        allow_outside: put images in place that lie elsewhere, too; each is named in the losses.
    """

    overwrite: bool
    images: Placing | None
    source: Path | None
    allow_outside: bool


@dataclass
class Losses:
    """What a target format cannot carry, counted.

    Attributes:
        counts: by what is lost and of what.
        keeps_predictions: whether the format has a place for `Cell.prediction`.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    keeps_predictions: bool = False

    def add(self, what: str, unit: str = "cells", count: int = 1) -> None:
        """Count something that was left out of some cells, fields or images."""
        self.counts[what, unit] += count

    def origin(self, item: Field, keeps: Collection[str] = ()) -> None:
        """Count what a field states of itself beyond image and cells, but for what is kept."""
        stated = {
            "region": not item.region.is_everything,
            "domain": item.domain != Domain(),
            "patient": item.patient is not None,
            "split": item.split is not None,
            "diagnosis": item.diagnosis is not None,
            "meta": bool(item.meta),
        }
        for name in ORIGIN:
            if stated[name] and name not in keeps:
                self.add(name, "fields")

    def cell(self, cell: Cell, keeps: Collection[str] = ()) -> None:
        """Count what a cell states beyond box and class, but for what is kept."""
        if cell.attributes and "attributes" not in keeps:
            self.add("attributes")
        if cell.id is not None and "id" not in keeps:
            self.add("identity")
        if cell.ignore and cell.class_name is not None and "ignore" not in keeps:
            self.add("class (of cells to ignore)")
        if "outline" not in keeps:
            self.outline(cell)

    def outline(self, cell: Cell) -> None:
        """Count an outline that is left out; the box stays."""
        if cell.outline is not None:
            self.add("outline")

    def printable(self, name: str) -> str:
        """Return a class name that a text format can hold; odd characters become `?`, counted."""
        if name.isprintable() and name.strip() == name:
            return name
        clean = "".join(c if c.isprintable() else "?" for c in name).strip() or "?"
        self.add(f"spelling of class {name!r}, written {clean!r},")
        return clean

    def boxed(self, item: Field) -> tuple[Cell, ...]:
        """Return the cells that have a usable box; count the others."""
        cells = self.sound(item)
        without = sum(cell.box is None for cell in cells)
        if without:
            self.add("the whole cell (it has no box)", count=without)
        return tuple(cell for cell in cells if cell.box is not None)

    def sound(self, item: Field) -> tuple[Cell, ...]:
        """Return the cells whose box, if any, has a finite, positive size; count the others."""
        if not self.keeps_predictions and (n := sum(c.prediction is not None for c in item.cells)):
            self.add("scores and marks of uncertain names", count=n)
        bad = [c for c in item.cells if c.box is not None and box_fault(c.box, None)]
        if bad:
            self.add("the whole cell (its box is not usable)", count=len(bad))
        return tuple(c for c in item.cells if c.box is None or not box_fault(c.box, None))

    def vocabulary(self, dataset: Dataset, *parts: str) -> None:
        """Say that the data set's own taxonomy, schema or licence is not carried."""
        from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA

        differs = {
            "taxonomy": dataset.taxonomy != DEFAULT_TAXONOMY,
            "schema": dataset.schema != LLD_SCHEMA,
            "licence": dataset.licence is not None,
        }
        for part in parts:
            if differs[part]:
                self.add(part, "data set")

    def issues(self) -> list[Issue]:
        """Return one issue for each kind of loss."""
        return [
            not_carried(f"{what} of {count} {unit}", property=what, count=count, of=unit)
            for (what, unit), count in self.counts.items()
        ]


def size_for_writing(item: Field, losses: Losses) -> tuple[int, int] | None:
    """Return a field's size, from its image if it is not stated; `None` (counted) if unknown."""
    if item.width and item.height:
        return item.width, item.height
    try:
        return image_size(item.path)
    except DataError:
        losses.add("everything (the image's size cannot be read)", "fields")
        return None


def outline_for_writing(cell: Cell, losses: Losses) -> tuple[tuple[float, float], ...] | None:
    """Return the polygon that a program draws for a cell; `None` if it draws the box.

    Such programs draw one shape a cell, whose box is the one around it. An outline of several
    parts, or one that does not fill the cell's box, is counted and the box is drawn; so is the
    box of a proposal, which is corrected by fewer strokes than an outline.
    """
    if cell.outline is None or cell.box is None:
        return None
    polygons = cell.outline.polygons or ()
    if len(polygons) == 1 and cell.prediction is None:
        fits = zip(around(polygons[0]), cell.box, strict=True)
        if all(abs(a - b) <= OUTLINE_SLACK_PX for a, b in fits):
            return polygons[0]
    losses.outline(cell)
    return None


# ---- output ----------------------------------------------------------------------------------


class Output:
    """Staged output of a folder: files are moved into place only when all went well."""

    def __init__(
        self,
        root: Path,
        staging: Path,
        images: Placing | None,
        source: Path | None,
        allow_outside: bool,
    ) -> None:
        self.root = root
        self.staging = staging
        self.images = images
        self.unplaced = 0
        self.notes: list[Issue] = []
        self.sources: dict[tuple[int, int], Path] = {}
        self.labels = source if source is not None and source.is_file() else None
        self._inside = None if source is None else _image_root(source)
        self._allow_outside = allow_outside

    def text(self, name: str, content: str) -> None:
        """Write a text file, named from the root."""
        with self.file(name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(content)

    def json(self, name: str, content: Any) -> None:
        """Write plain data as compact JSON."""
        self.text(name, json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n")

    def file(self, name: str) -> Path:
        """Return the place to write a file that shall be called `name`.

        Splits and classes become folder names, and they come from files: none may lead outside.
        """
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise DataError(f"{self.root}: {name!r} would lie outside of it; rename that split")
        path = self.staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def image(self, source: Path, name: str) -> Path:
        """Copy or link an image to `name`; return where it will lie (its source if it stays).

        Only what begins as an image does is put in place: a label file may name anything.

        Raises:
            DataError: if it lies outside of the data set that is read, unless that is allowed.
        """
        final = self.root / name
        if self.images is None:
            self.unplaced += 1
            return source
        if not source.is_file():
            self.unplaced += 1
            return final
        self._refuse_outside(source)
        self.sources[identity(source)] = self.sources[identity(source, follow=False)] = source
        if _keeps_its_place(source, final):
            return final
        target = self.file(name)
        data = _image_bytes(source, whole=self.images == "copy")
        if data is None:
            self.notes.append(not_carried(f"{source}, which is not an image", file=str(source)))
        elif self.images == "copy":
            write_bytes(target, data, sync=False)
        else:
            target.symlink_to(source.resolve())
        return final

    def _refuse_outside(self, source: Path) -> None:
        if self._inside is None or _lies_in(source, self._inside):
            return
        if not self._allow_outside:
            raise DataError(
                f"{source}: lies outside of {self._inside}, the data set that names it; if you "
                "know the set and want such images, give --allow-outside (allow_outside=True)"
            )
        what = f"from outside of {self._inside}: {source}"
        self.notes.append(dataset_issue(codes.FROM_OUTSIDE, what, file=str(source)))


def _image_root(source: Path) -> Path:
    """Return the folder that holds a set's images, with its labels or beside them."""
    if source.is_dir():
        return source
    folder = source.absolute().parent
    return folder.parent if folder.name.lower() in LABEL_FOLDERS else folder


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder as it is written, or in truth.

    Links in a data set are its owner's; no label file can make one.
    """
    written = Path(os.path.abspath(path)).is_relative_to(Path(os.path.abspath(folder)))  # noqa: PTH100
    if written and ".." not in path.parts:
        return True
    return path.resolve().is_relative_to(folder.resolve())


def _keeps_its_place(source: Path, final: Path) -> bool:
    """Whether an image already is what would be written, so that writing would destroy it."""
    if not os.path.lexists(final):
        return False
    if identity(source, follow=False) == identity(final, follow=False):
        return True
    return not final.is_symlink() and identity(source) == identity(final)


def _image_bytes(path: Path, whole: bool) -> bytes | None:
    """Return a file's bytes, at least those that show what it is; `None` if it is no image."""
    try:
        with path.open("rb") as file:
            data = file.read() if whole else file.read(1 << 16)
        try:
            read_header(data)
        except BrokenImageError:
            if whole:
                return None
            return _image_bytes(path, whole=True)  # a TIFF says at its end what is in it
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    return data


@contextlib.contextmanager
def output(
    root: Path,
    *,
    fresh: bool,
    target: Path | None = None,
    overwrite: bool = False,
    images: Placing | None = None,
    source: Path | None = None,
    allow_outside: bool = False,
) -> Iterator[Output]:
    """Collect files in a hidden folder and move them to `root` at the end, or not at all.

    Args:
        root: the folder to write to.
        fresh: the folder must be new or empty, unless `overwrite`.
        target: the only file that is written, if it is one; others of its folder may be written to
            at the same time.
        overwrite: replace files of the same name; other files of the folder stay as they are.
        images: what `Output.image` does.
        source: what the set was read from; see `WriteOptions`.
        allow_outside: see `WriteOptions`.

    Raises:
        DataError: if a file or folder is in the way, if an image of the set itself would be
            replaced, or if a link leads elsewhere.
        OutputError: if another process writes to it.
    """
    if (kind := kind_of(root)) not in (None, "folder"):
        raise DataError(f"{root}: is a {kind}; name a folder to write to")
    if kind is None and root.is_symlink():
        raise DataError(f"{root}: is a link to nothing; name a folder to write to")
    near = root if root.is_dir() else root.parent
    near.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if target is None and near == root:
            stack.enter_context(lock_folder(root, "writing a data set", nested=True))
        else:
            place = target if target is not None and near == root else root
            stack.enter_context(lock_path(place, "writing a data set"))
        if fresh and not overwrite and root.is_dir() and not is_empty(root):
            raise DataError(f"{root}: is not empty; name a new folder, or allow to overwrite")
        staging = stack.enter_context(staging_folder(near))
        out = Output(root, staging, images, source, allow_outside)
        yield out
        _move(out, overwrite)


def _move(out: Output, overwrite: bool) -> None:
    staging, root = out.staging, out.root
    if not root.exists():
        staging.replace(root)
        return
    names = sorted(
        (Path(folder) / file).relative_to(staging)
        for folder, _, files in os.walk(staging)
        for file in files
    )
    if out.labels is not None:
        refuse_inputs([root / name for name in names], [out.labels])
    for name in names:
        final = root / name
        refuse_links(root, final)
        if not os.path.lexists(final):
            continue
        if not overwrite:
            raise DataError(f"{final}: exists; name another, or allow to overwrite")
        own = out.sources.get(identity(final, follow=False))
        if own is not None:
            raise DataError(
                f"{final}: is an image of the set itself ({own}), which another one would replace; "
                "write to a new folder"
            )
        if not final.is_symlink() and (kind := kind_of(final)) != "file":
            raise DataError(f"{final}: is a {kind}; move it away, or name another place")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(root / name)


@contextlib.contextmanager
def output_file(
    path: Path, suffix: str, default: str, options: WriteOptions
) -> Iterator[tuple[Output, str]]:
    """Like `output`, for a format of one file: a path with that suffix, or a folder for it.

    Yields the output and the name of the file in it.
    """
    single = path.suffix.lower() == suffix
    root, name = (path.parent, path.name) if single else (path, default)
    if single and path.is_symlink():
        raise DataError(f"{path}: is a link to {path.readlink()}; name the file itself")
    with output(root, fresh=False, target=path if single else None, **options) as out:
        yield out, name


def not_carried(what: str, **facts: Any) -> Issue:
    """Return the issue of something that was left out of what is written."""
    return dataset_issue(codes.NOT_CARRIED, f"left out: {what}", **facts)


def finish(out: Output, losses: Losses) -> list[Issue]:
    """Return the losses, with one on images that were not put in place."""
    issues = losses.issues() + out.notes
    if out.unplaced and out.images is None:
        what = f"{out.unplaced} images were not put in place; copy or link them"
        issues.append(dataset_issue(codes.NOT_CARRIED, what, images=out.unplaced))
    elif out.unplaced:
        what = f"{out.unplaced} images that are not on disk"
        issues.append(not_carried(what, images=out.unplaced))
    return issues


def unique_names(fields: Sequence[Field]) -> list[str]:
    """Return a file name for each field's image; no two share a stem, whatever their case."""
    taken: set[str] = set()
    names = []
    for item in fields:
        folders = list(item.path.parent.parts)
        stem, number = item.path.stem, 1
        while stem.lower() in taken:
            number += 1
            above = folders.pop() if folders else ""
            stem = f"{above}_{stem}" if above.strip("/\\:") else f"{item.path.stem}_{number}"
        taken.add(stem.lower())
        names.append(stem + item.path.suffix)
    return names
