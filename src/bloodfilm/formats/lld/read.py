"""LLD / LeukemiaAttri: 14 classes and seven attributes, as JSON or as four kinds of text labels."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field, Region
from bloodfilm.formats import coco
from bloodfilm.formats.lld import text, zipped
from bloodfilm.formats.lld.codes import CLASSES, attributes_from_json, is_none
from bloodfilm.formats.lld.names import parse_name, parse_subset
from bloodfilm.formats.lld.write import write
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.images import ImageIndex, is_image, walk
from bloodfilm.formats.shared.parsing import read_json, to_floats, to_int
from bloodfilm.formats.shared.paths import split_of

__all__ = ["json_labels", "read", "recognises", "subsets", "write"]

LICENCE = "CC BY-NC-SA 4.0, as users of the set state it"
JSON_FOLDERS = frozenset({"json_labels", "wbc_detection"})
COMPLETE = "complete_boxes.json"
_CODED = re.compile(rb'"(nuclear_shape|cytoplasm)"\s*:\s*\d')
MAX_DEPTH = 4  # the root may be nested twice, with a folder of its own above


@dataclass(frozen=True)
class Subset:
    """One acquisition: its folder, what its name says, and its label folders in lower case."""

    path: Path
    domain: Domain

    def folders(self, *names: str) -> list[Path]:
        """Return the sub-folders of these names, whatever their case."""
        inside = sorted(p for p in self.path.iterdir() if p.is_dir())
        return [p for p in inside if p.name.lower() in names]

    @cached_property
    def index(self) -> ImageIndex:
        """Its own images: other subsets have others under the same names."""
        return ImageIndex(self.path)


def recognises(path: Path) -> bool:
    """Whether there is a subset folder, or a JSON file with LLD's attribute codes."""
    if path.is_file():
        return path.suffix.lower() == ".json" and _CODED.search(coco.ends(path)) is not None
    try:
        return bool(subsets(path))
    except DataError:
        return False


def read(path: Path, *, labels: str | None = None, **options: Unpack[ReadOptions]) -> Dataset:
    """Read every subset below a folder.

    Args:
        path: the root (however nested), one subset, or one JSON file of it.
        labels: `json`, `complete` (the fields whose every white cell is boxed), or the name of a
            folder of text labels (`AttriDet`, `WBC_Detection`, ...). By default JSON where there
            is some, otherwise the text labels with most columns.
        options: see `ReadOptions`.

    The annotation claims to be complete, so a field's region is everything; in fact some white
    cells are unboxed, and red cells and platelets always are: `meta["annotated"]` says what is.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; name LLD's folder")
    reading = ReadContext(path, **options)
    if path.is_file():
        fields = list(_from_json(reading, _subset_above(path), path))
    elif labels == "complete":
        fields = list(_complete(reading))
    else:
        fields = [f for subset in subsets(path) for f in _read_subset(reading, subset, labels)]
    return reading.dataset("LLD", fields, licence=LICENCE)


def subsets(root: Path) -> list[Subset]:
    """Return the subsets at or below a folder; `DataError` if there are none."""
    found = []
    for folder, _ in walk(root):
        depth = len(folder.relative_to(root).parts)
        domain = parse_subset(folder.name)
        if domain is not None and depth <= MAX_DEPTH:
            found.append(Subset(folder, domain))
    if not found and any(p.name.lower() in JSON_FOLDERS | {"txt_labels"} for p in root.iterdir()):
        found = [Subset(root, Domain())]
    if not found:
        raise DataError(f"{root}: no subset folder such as H_40X_C2; name the folder that holds it")
    return found


def _subset_above(file: Path) -> Subset:
    """Return the subset a label file lies in; its own folder where none is named as one."""
    named = ((p, parse_subset(p.name)) for p in file.absolute().parents)
    return next((Subset(p, d) for p, d in named if d is not None), Subset(file.parent, Domain()))


def _read_subset(reading: ReadContext, subset: Subset, labels: str | None) -> Iterator[Field]:

    def twin(file: Path, other: Path) -> None:
        what = f"labels of this name are in {other.parent.name}/ too, which are taken"
        reading.report(file, "", what, "keep one of them")

    files = list(json_labels(subset, twin)) if labels in (None, "json") else []
    texts = text.folders(subset.path) if labels != "json" and not files else []
    if labels not in (None, "json"):
        texts = [p for p in texts if p.name.lower() == str(labels).lower()]
    if not files and not texts:
        reading.report(subset.path, "", f"no {labels or 'json or text'} labels, left out")
        return
    fields = (
        [f for file, content in files for f in _from_json(reading, subset, file, content)]
        if files
        else list(_from_text(reading, subset, text.richest(texts)))
    )
    yield from fields
    yield from _unlabelled(reading, subset, fields)


# ---- one field -------------------------------------------------------------------------------


def make_field(
    image: Path,
    subset: Subset,
    split: str | None,
    size: tuple[int, int] | None,
    cells: tuple[Cell, ...],
    region: Region,
) -> Field:
    """Return a field with what its file name and its subset say."""
    parts = parse_name(image.name)
    domain = subset.domain
    if parts is not None and domain.magnification is None:
        domain = replace(domain, magnification=parts.magnification)
    meta = {"annotated": "white cell"} | (parts.meta if parts else {})
    width, height = size or (None, None)
    patient, diagnosis = (parts.patient, parts.diagnosis) if parts else (None, None)
    return Field(image, width, height, cells, region, domain, patient, split, diagnosis, meta)


def _images(subset: Subset, split: str | None) -> list[Path]:
    """Return the image folders of a split: `Images/train`, `images/train`."""
    return [
        p
        for base in subset.folders("images")
        for p in sorted(base.iterdir())
        if p.is_dir() and (split is None or split_of(p.name) == split)
    ]


def _find(reading: ReadContext, subset: Subset, split: str | None, name: str) -> Path:
    folders = [reading.images] if reading.images else _images(subset, split)
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    near = subset.path / "Images" / (split or "") / name
    index = reading.index if reading.images else subset.index
    return index.find(name, near=near) or _alike(reading, index, name) or near


def _alike(reading: ReadContext, index: ImageIndex, name: str) -> Path | None:
    """Return the image whose name differs by stray characters only, and say so."""
    found = index.find_alike(name)
    if found is not None:
        reading.note(f"{reading.short(found)}: taken for {name!r}: stray characters apart the same")
    return found


def _unlabelled(reading: ReadContext, subset: Subset, fields: list[Field]) -> Iterator[Field]:
    """Yield the images of a subset that no label speaks of, as fields of which nothing is known."""
    labelled = {field.path for field in fields}
    for folder in _images(subset, None):
        for image in sorted(folder.iterdir()):
            if image not in labelled and is_image(image) and parse_name(image.name):
                reading.report(image, "", "image without labels; kept as not annotated")
                split = split_of(folder.name)
                yield make_field(image, subset, split, None, (), Region.nothing())


# ---- JSON ------------------------------------------------------------------------------------


def json_labels(subset: Subset, twin: Callable[[Path, Path], None]) -> Iterator[tuple[Path, Any]]:
    """Yield (file, content or `None` if not read yet) of a subset's JSON labels.

    Where two of its folders hold labels of one name, the first is taken, and `twin` is told.
    """
    found: dict[str, Path] = {}
    for folder in subset.folders(*JSON_FOLDERS):
        for file in sorted(folder.glob("*.json")):
            if file.name.startswith("."):
                continue
            other = found.setdefault(file.stem.lower(), file)
            if other is file:
                yield file, None
            else:
                twin(file, other)
    archive = subset.path / zipped.NAME
    if archive.is_file() and not found:
        yield from zipped.zipped_labels(archive)


def _from_json(
    reading: ReadContext, subset: Subset, file: Path, content: Any = None
) -> Iterator[Field]:
    loaded = coco.load(reading, file, content)
    split = coco.split_of_file(file)
    names = _class_names(reading, loaded)
    for record in loaded.records:
        image = _find(reading, subset, split, record.name)
        size = coco.size_of(reading, record, image)
        cells = []
        for annotation in record.annotations:
            box = coco.box_of(reading, file, annotation, size)
            if box is not None:
                cells.append(_json_cell(reading, file, annotation, names, box))
        field = make_field(image, subset, split, size, tuple(cells), Region.everything())
        yield coco.with_extra(reading, loaded, record, field)


def _class_names(reading: ReadContext, loaded: coco.CocoFile) -> Mapping[int, str]:
    """Return class names by id, the file's own before LLD's, and note where they differ."""
    for ident, name in loaded.categories.items():
        usual = CLASSES.get(ident)
        if usual is not None and reading.meaning(name) != reading.meaning(usual):
            reading.note(
                f"{reading.short(loaded.path)}: category {ident} is {name!r} here, {usual!r} in "
                "LLD's list; the name is believed"
            )
    return dict(CLASSES) | dict(loaded.categories)


def _json_cell(
    reading: ReadContext,
    file: Path,
    annotation: Mapping[str, Any],
    names: Mapping[int, str],
    box: tuple[float, float, float, float],
) -> Cell:
    place = f"annotation {annotation.get('id', '?')}"
    ident = to_int(annotation.get("category_id"))
    by_id = names.get(-1 if ident is None else ident)
    name = annotation.get("category_name") or by_id
    if name is None:
        reading.report(file, place, f"class {annotation.get('category_id')!r} has no name; unnamed")
        name = "unnamed"
    if by_id is not None and reading.meaning(str(name)) != reading.meaning(by_id):
        reading.report(file, place, f"class {ident} is {by_id!r}, but is named {name!r}: believed")
    attributes, faults = attributes_from_json(annotation, none=is_none(str(name)))
    for fault in faults:
        reading.report(file, place, fault)
    label, ignore = reading.label(str(name))
    ignore = ignore or bool(annotation.get("ignore"))
    return Cell(box, label, attributes, ignore, coco.identity(annotation))


def _complete(reading: ReadContext) -> Iterator[Field]:
    """Yield the fields of `complete_boxes.json`: every white cell boxed, doubtful ones ignored."""
    file = reading.root / COMPLETE
    content = read_json(file) if file.is_file() else None
    if not isinstance(content, dict):
        raise DataError(f"{file}: missing or no table of images; use another value of labels=")
    found = subsets(reading.root)
    for name, boxes in content.items():
        image = reading.index.find(name) or reading.root / name
        subset = next((s for s in found if s.path in image.parents), found[0])
        size = reading.size(image) if image.is_file() else None
        cells = []
        for key, label in (("wbc", "white cell"), ("ignore", None)):
            for number, item in enumerate(boxes.get(key, ()) if isinstance(boxes, dict) else ()):
                place = f"{name}, {key} {number}"
                values = to_floats(item, 4)
                if values is None:
                    reading.report(file, place, "is not a box of four numbers and is left out")
                elif box := reading.box(values, size, file, place):
                    cells.append(Cell(box, label, ignore=label is None))
        split = split_of(image.parent.name)
        yield make_field(image, subset, split, size, tuple(cells), Region.everything())


# ---- text ------------------------------------------------------------------------------------


def _from_text(reading: ReadContext, subset: Subset, labels: Path) -> Iterator[Field]:
    found: list[tuple[Path, str | None, text.TextLabels]] = []
    for folder, names in walk(labels):
        split = split_of(folder.name)
        for name in names:
            if not name.endswith(".txt") or name == "classes.txt":
                continue
            image = _find(reading, subset, split, f"{Path(name).stem}.png")
            if not image.is_file() and reading.missing == "drop":
                reading.report(folder / name, "", "labels without an image, left out")
                continue
            size = (reading.size(image) if image.is_file() else None) or text.USUAL_SIZE
            parsed = text.read_labels(reading, folder / name, size)
            if parsed is not None:
                found.append((image, split, parsed))
    usual = text.usual_order(reading, labels, [parsed for _, _, parsed in found])
    regions = [parsed.region(usual) for _, _, parsed in found]
    sparse = {s for (_, s, _), r in zip(found, regions, strict=True) if not r.is_everything}
    for (image, split, parsed), region in zip(found, regions, strict=True):
        # Where only patches are marked, an empty file does not say where its patch is.
        unknown = split in sparse and not parsed.rows
        known = Region.nothing() if unknown else region
        yield make_field(image, subset, split, parsed.size, parsed.cells, known)
