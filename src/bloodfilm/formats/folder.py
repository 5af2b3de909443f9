"""Plain images: a folder for each class, or one folder (or tree) of images without labels."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field, Region
from bloodfilm.core.issues import Issue
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.output import Losses, WriteOptions, finish, output, unique_names
from bloodfilm.formats.shared.paths import need_folder, split_of

PLAIN_FOLDERS = frozenset({"images", "image", "jpegimages"})
_NUMBERS = re.compile(r"\d+([ _-]+\d+)*")


def recognises(path: Path) -> bool:
    """Whether there is any image below the folder."""
    return path.is_dir() and bool(ReadContext(path).index.paths)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read images; where the folders are named after classes, each image is one centred cell.

    The class is the deepest folder that is no number, range of numbers (`0001-1000`) or split. If
    no folder of the set bears the name of a known class, the images have no labels and
    `meta["folder"]` keeps the folders' names; if some do, the others are classes under their own
    names. A folder named after a split (`train`, `val`, `test`) gives the split. Nothing is known
    of the rest of an image, so its region is empty. Images named as LLD names its fields get
    patient, diagnosis and magnification from the name.
    """
    root = need_folder(Path(path))
    reading = ReadContext(root, **options)
    images = reading.index.paths
    if not images:
        raise DataError(f"{root}: no images here (png, jpg, tif, bmp, webp, jp2); check the path")
    named = {_class_folder(reading, image) for image in images}
    by_class = any(name and reading.meaning(name) is not None for name in named)
    return reading.dataset(root.name, [_field(reading, image, by_class) for image in images])


def _inner(reading: ReadContext, image: Path) -> Sequence[str]:
    """Return the folders between the root and an image, without those that say nothing."""
    parts = image.relative_to(reading.index.root).parts[:-1]
    return [p for p in parts if p.lower() not in PLAIN_FOLDERS]


def _class_folder(reading: ReadContext, image: Path) -> str | None:
    """Return the folder that may name the class of an image."""
    names = [p for p in _inner(reading, image) if not split_of(p) and not _NUMBERS.fullmatch(p)]
    return names[-1] if names else None


def other_folders(image: Path, root: Path) -> str:
    """Return the folders between the root and an image besides that of its class and its split.

    They may be patients, where a set of classes has any.

    >>> other_folders(Path("set/patient 3/basophil/1.png"), Path("set"))
    'patient 3'
    >>> other_folders(Path("set/train/basophil/7/1.png"), Path("set"))
    '7'
    """
    try:
        parts = image.relative_to(root).parts[:-1]
    except ValueError:
        return ""
    inner = [p for p in parts if p.lower() not in PLAIN_FOLDERS and not split_of(p)]
    named = [i for i, part in enumerate(inner) if not _NUMBERS.fullmatch(part)]
    if named:
        del inner[named[-1]]
    return "/".join(inner)


def _field(reading: ReadContext, image: Path, by_class: bool) -> Field:
    inner = _inner(reading, image)
    split = next((s for p in inner if (s := split_of(p))), None)
    names = [p for p in inner if split_of(p) is None]
    name = _class_folder(reading, image)
    cells: tuple[Cell, ...] = ()
    meta: dict[str, str] = {}
    if by_class and name is not None:
        cells = (reading.cell(name, None),)
    elif names:
        meta["folder"] = "/".join(names)
    parts = parse_name(image.name)
    if parts is None:
        return Field(image, cells=cells, region=Region.nothing(), split=split, meta=meta)
    return Field(
        image,
        cells=cells,
        region=Region.nothing(),
        domain=Domain(magnification=parts.magnification),
        patient=parts.patient,
        split=split,
        diagnosis=parts.diagnosis,
        meta=meta | parts.meta,
    )


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Copy or link the images into SPLIT/CLASS folders; return what was lost.

    An image of several cells has no place in such folders and is left out.

    Raises:
        DataError: if `images` is neither `copy` nor `link`: such a set is its images.
    """
    if options.get("images") is None:
        raise DataError(f"{path}: a folder of images needs the images; copy or link them")
    losses = Losses()
    losses.vocabulary(dataset, "taxonomy", "licence")
    with output(Path(path), fresh=True, **options) as out:
        for item, name in zip(dataset, unique_names(dataset.fields), strict=True):
            if len(item.cells) > 1:
                losses.add("everything (more than one cell in the image)", "fields")
                continue
            folders = [item.split] if item.split else []
            for cell in item.cells:
                losses.cell(cell)
                if cell.box is not None:
                    losses.add("box")
                folders.append("ignore" if cell.ignore else _folder_name(cell, losses))
            losses.origin(item, keeps=("split", "region") if item.region.is_nothing else ("split",))
            out.image(item.path, "/".join([*folders, name]))
    return finish(out, losses)


def _folder_name(cell: Cell, losses: Losses) -> str:
    """Return the name of a class's folder; what no folder can be called is changed and counted."""
    name = losses.printable(name_of(cell))
    clean = re.sub(r"[/\\:]", "_", name)
    clean = f"_{clean}" if clean in (".", "..") else clean
    if clean != name:
        losses.add(f"spelling of class {name!r}, written {clean!r},")
    return clean
