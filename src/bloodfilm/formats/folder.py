"""Plain images: a folder for each class, or one folder (or tree) of images without labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field, Region
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.context import IGNORE_NAMES, UNNAMED_NAMES, ReadContext, ReadOptions
from bloodfilm.formats.shared.output import Losses, WriteOptions, finish, output, unique_names
from bloodfilm.formats.shared.paths import need_folder, split_of

PLAIN_FOLDERS = frozenset({"images", "image", "jpegimages"})


def recognises(path: Path) -> bool:
    """Whether there is any image below the folder."""
    return path.is_dir() and bool(ReadContext(path).index.paths)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read images; where the folders are named after classes, each image is one centred cell.

    A folder named after a split (`train`, `val`, `test`) above them gives the split. If no folder
    is named after a class, the images have no labels and `meta["folder"]` keeps the folder's name.
    Nothing is known of the rest of an image, so its region is empty. Images named as LLD names
    its fields get patient, diagnosis and magnification from the name.
    """
    root = need_folder(Path(path))
    reading = ReadContext(root, **options)
    images = reading.index.paths
    if not images:
        raise DataError(f"{root}: no images here (png, jpg, tif, bmp, webp, jp2); check the path")
    by_class = any(_class_folder(reading, image) for image in images)
    return reading.dataset(root.name, [_field(reading, image, by_class) for image in images])


def _inner(reading: ReadContext, image: Path) -> Sequence[str]:
    """Return the folders between the root and an image, without those that say nothing."""
    parts = image.relative_to(reading.index.root).parts[:-1]
    return [p for p in parts if p.lower() not in PLAIN_FOLDERS]


def _class_folder(reading: ReadContext, image: Path) -> str | None:
    names = [p for p in _inner(reading, image) if split_of(p) is None]
    if not names:
        return None
    name = names[-1]
    known = name in reading.classes or reading.taxonomy.find(name) is not None
    return name if known or name.lower() in IGNORE_NAMES | UNNAMED_NAMES else None


def _field(reading: ReadContext, image: Path, by_class: bool) -> Field:
    inner = _inner(reading, image)
    split = next((s for p in inner if (s := split_of(p))), None)
    names = [p for p in inner if split_of(p) is None]
    cells: tuple[Cell, ...] = ()
    meta: dict[str, str] = {}
    if by_class and names:
        label, ignore = reading.label(names[-1])
        cells = (Cell(None, label, ignore=ignore),)
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


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[str]:
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
                folders.append("ignore" if cell.ignore else cell.label or "unnamed")
            losses.origin(item, keeps=("split", "region") if item.region.is_nothing else ("split",))
            out.image(item.path, "/".join([*folders, name]))
    return finish(out, losses)
