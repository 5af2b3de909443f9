"""COCO: one JSON file with images, categories and annotations, or one a split."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from bloodfilm.core import (
    BloodfilmError,
    Box,
    Cell,
    DataError,
    Dataset,
    Field,
    Region,
    Schema,
    Taxonomy,
)
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.arrays import Json
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.boxes import iou
from bloodfilm.core.files import regular_file
from bloodfilm.core.issues import Issue
from bloodfilm.core.taxonomy import current_default
from bloodfilm.formats.native.records import origin_from_json, origin_to_json
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.frames import Frame
from bloodfilm.formats.shared.label_faults import LabelFault
from bloodfilm.formats.shared.masks import MaskBudget, drawn_runs, unpack_coco
from bloodfilm.formats.shared.output import Losses, WriteOptions, finish, output_file, unique_names
from bloodfilm.formats.shared.parsing import read_json, to_flag, to_floats, to_int
from bloodfilm.formats.shared.paths import image_folders, relative, split_of
from bloodfilm.formats.shared.shapes import DrawnShape, around, polygon_area, turned_corners
from bloodfilm.imaging.discovery import walk

UNREAD = ("score", "track_id", "keypoints")
"""What annotations may state that a cell has no place for."""
SAME_CELL = 0.5
"""IoU from which on two boxes are of one cell."""
EXTRA = "bloodfilm"
"""Key under which an image entry and the file itself carry what COCO has no place for."""


@dataclass(slots=True)
class ImageRecord:
    """One image of a COCO file and the annotations that belong to it.

    Attributes:
        name: `file_name`.
        entry: its first entry in `images`.
        annotations: of all its entries, as they stand in the file.
        entries: how often `images` lists it.
    """

    name: str
    entry: Mapping[str, Any]
    annotations: list[Mapping[str, Any]] = field(default_factory=list)
    entries: int = 1


@dataclass(frozen=True)
class CocoFile:
    """One parsed COCO file.

    Attributes:
        path: of the file.
        records: its images, those of one file name together.
        categories: names by id.
        extra: what our own writer put under `bloodfilm`.
        faults: entries that cannot be used.
    """

    path: Path
    records: tuple[ImageRecord, ...]
    categories: Mapping[int, str]
    extra: Mapping[str, Any]
    faults: tuple[LabelFault, ...] = ()


def recognises(path: Path) -> bool:
    """Whether it is a COCO file, or a folder with one."""
    if path.is_file():
        return path.suffix.lower() == ".json" and looks_like_coco(path)
    return next(json_files(path), None) is not None


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read one COCO file, or every COCO file below a folder (the split from its name)."""
    path = Path(path)
    files = [path] if path.is_file() else list(json_files(path))
    if not files:
        raise DataError(f"{path}: no COCO file (JSON with images and annotations) here")
    reading = ReadContext(path, **options)
    loaded = [load(reading, file) for file in files]
    extra = loaded[0].extra
    if "taxonomy" in extra and "taxonomy" not in options:
        reading.taxonomy = current_default(Taxonomy.from_json(extra["taxonomy"]))
    schema = Schema.from_json(extra["schema"]) if "schema" in extra else LLD_SCHEMA
    licence = extra.get("licence")
    fields = [f for coco in loaded for f in _fields(reading, coco)]
    return reading.dataset(
        str(extra.get("name", path.stem)), fields, schema=schema, licence=licence
    )


def json_files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder that look like COCO, sorted."""
    for folder, names in walk(root):
        for name in names:
            if name.lower().endswith(".json") and looks_like_coco(folder / name):
                yield folder / name


def looks_like_coco(path: Path) -> bool:
    """Whether the JSON file has COCO's lists, judged without parsing it where that is possible."""
    text = ends(path)
    return b'"images"' in text and (b'"annotations"' in text or b'"categories"' in text)


def ends(path: Path, size: int = 1 << 16) -> bytes:
    """Return a file's first and last bytes, to judge it by; none if it cannot be read."""
    try:
        with regular_file(path).open("rb") as file:
            first = file.read(size)
            file.seek(max(len(first), path.stat().st_size - size))
            return first + file.read(size)
    except (DataError, OSError):
        return b""


# ---- the file --------------------------------------------------------------------------------


def load(reading: ReadContext, path: Path, content: Any = None) -> CocoFile:
    """Read and parse one COCO file; report the entries that cannot be used."""
    parsed = parse(path, read_json(path) if content is None else content)
    report(reading, parsed)
    return parsed


def report(reading: ReadContext, parsed: CocoFile) -> None:
    """Report what of a file cannot be used."""
    repeated = sum(record.entries > 1 for record in parsed.records)
    if repeated:
        what = f"{repeated} images are listed more than once; grouped"
        reading.note(codes.REPEATED_ENTRY, what, parsed.path)
    for fault in parsed.faults:
        reading.report_fault(parsed.path, fault)


def parse(path: Path, content: Any) -> CocoFile:
    """Parse the content of a COCO file; what cannot be used is in its `faults`.

    Raises:
        DataError: if it has no list `images`, or `annotations` or `categories` are no lists.
    """
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise DataError(f"{path}: has no list `images`; it is not a COCO file")
    extra = content.get(EXTRA)
    faults: list[LabelFault] = []
    records, by_id = _records(content["images"], faults)
    for number, item in enumerate(_list(content, "annotations", path)):
        record = by_id.get(_key(item.get("image_id"))) if isinstance(item, dict) else None
        if record is None:
            ident = str(item.get("id") if isinstance(item, dict) else number)
            message, place = "belongs to no image of the file", f"annotation {ident}"
            faults.append(LabelFault("orphan", message, place, annotation=ident))
        else:
            record.annotations.append(item)
    categories = _categories(_list(content, "categories", path), faults)
    extra = extra if isinstance(extra, dict) else {}
    return CocoFile(path, tuple(records), categories, extra, tuple(faults))


def _categories(listed: Iterable[Any], faults: list[LabelFault]) -> dict[int, str]:
    names: dict[int, str] = {}
    for number, item in enumerate(listed):
        ident = to_int(item.get("id")) if isinstance(item, dict) else None
        if ident is None or "name" not in item:
            message = "has no id and name"
            faults.append(LabelFault("unreadable-labels", message, f"category {number}"))
            continue
        name = str(item["name"])
        if names.setdefault(ident, name) != name:
            faults.append(
                LabelFault(
                    "id-and-name-differ",
                    f"is {names[ident]!r} and {name!r}",
                    f"category id {ident}",
                    "; the first is used",
                    "give each class an id of its own",
                    data={"category": ident, "names": [names[ident], name]},
                )
            )
    return names


def _records(
    entries: Iterable[Any], faults: list[LabelFault]
) -> tuple[list[ImageRecord], dict[str, ImageRecord]]:
    """Return the images, those of one file name as one record, and the records by image id."""
    by_name: dict[str, ImageRecord] = {}
    by_id: dict[str, ImageRecord] = {}
    for number, item in enumerate(entries):
        name = item.get("file_name") if isinstance(item, dict) else None
        if not isinstance(name, str) or not name:
            faults.append(LabelFault("unreadable-labels", "has no file_name", f"image {number}"))
            continue
        if name in by_name:
            by_name[name].entries += 1
        record = by_name.setdefault(name, ImageRecord(name, item))
        if by_id.setdefault(_key(item.get("id")), record) is not record:
            message, place = f"used twice, again for {name}", f"image id {item.get('id')}"
            faults.append(LabelFault("unreadable-labels", message, place, outcome=""))
    return list(by_name.values()), by_id


def _key(ident: Any) -> str:
    return str(ident)


def _list(content: dict[str, Any], key: str, path: Path) -> list[Any]:
    value = content.get(key, [])
    if not isinstance(value, list):
        raise DataError(f"{path}: `{key}` is not a list; it is not a COCO file")
    return value


# ---- fields ----------------------------------------------------------------------------------


def _fields(reading: ReadContext, coco: CocoFile) -> Iterator[Field]:
    split = split_of_file(coco.path)
    bases = [
        *_subset_folders(coco.path, reading.images),
        *image_folders(coco.path, split, reading.images),
    ]
    places = reading.locate((r.name for r in coco.records), coco.path, bases, split)
    for record in coco.records:
        image = places[record.name]
        frame = frame_of(reading, record, image)
        cells = []
        for annotation in _of_one_person(reading, coco, record):
            shape = shape_of(reading, coco.path, annotation, frame)
            if shape is not None:
                cells.append(_cell(reading, coco, annotation, shape))
        plain = Field(image, frame.width, frame.height, tuple(cells), split=split)
        yield with_extra(reading, coco, record, plain)


def _subset_folders(file: Path, images: Path | None) -> Iterator[Path]:
    """Yield `images/NAME` for `annotations/instances_NAME.json`, as COCO and Datumaro have it."""
    _, mark, subset = file.stem.partition("_")
    if mark and subset:
        yield from (
            [images / subset]
            if images is not None
            else [home / "images" / subset for home in (file.parent, file.parent.parent)]
        )


def _of_one_person(
    reading: ReadContext, coco: CocoFile, record: ImageRecord
) -> Sequence[Mapping[str, Any]]:
    """Return the annotations of an image that `images` may list under several ids.

    Entries of one annotation each that lie apart are one person's labels, one entry per cell. Any
    others are of several people, or of several pictures of one name (frames of two videos): those
    of the first are taken, and the rest is named and left out.
    """
    by_entry: dict[str, list[Mapping[str, Any]]] = {}
    for annotation in record.annotations:
        by_entry.setdefault(str(annotation.get("image_id")), []).append(annotation)
    if len(by_entry) < 2:
        return record.annotations
    said = ", ".join(f"id {ident}: {len(found)}" for ident, found in by_entry.items())
    what = f"is listed more than once in images; annotations by {said}"
    if all(len(found) == 1 for found in by_entry.values()) and _apart(record.annotations):
        reading.note(codes.REPEATED_ENTRY, f"{what}; taken together", coco.path, record.name)
        return record.annotations
    first, kept = next(iter(by_entry.items()))
    what = f"{what}; only those of id {first} are taken"
    remedy = "keep one entry an image, or give each picture a name of its own"
    reading.report(codes.SEVERAL_ANNOTATIONS, coco.path, record.name, what, remedy)
    return kept


def _apart(annotations: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no two boxes are of one cell."""
    boxes = [values for a in annotations if (values := to_floats(a.get("bbox"), 4))]
    overlaps = iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0)
    return bool((overlaps < SAME_CELL).all())


def split_of_file(path: Path) -> str | None:
    """Return the split a COCO file's name or folder states (`instances_train2017.json`)."""
    words = path.stem.lower().replace("_", " ").replace("-", " ").replace(".", " ").split()
    names = [word.rstrip("0123456789") for word in words] + [path.parent.name]
    return next((split for name in names if (split := split_of(name))), None)


def frame_of(reading: ReadContext, record: ImageRecord, image: Path) -> Frame:
    """Return the frame of an image's annotations: its stated size, and the picture's own."""
    return reading.frame(
        image, (to_int(record.entry.get("width")), to_int(record.entry.get("height")))
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """Where an annotation lies: its checked box, and its outline if one was drawn."""

    box: Box
    outline: Region | None = None


def shape_of(
    reading: ReadContext, file: Path, annotation: Mapping[str, Any], frame: Frame
) -> Shape | None:
    """Return an annotation's box and outline; `None` (reported) if it has no box to be used.

    Without a bbox that has an area the box is the one around the outline. An outline that lies
    elsewhere than the bbox is that of another cell, or is damaged: it is left out, and reported.
    """
    place = f"annotation {annotation.get('id', '?')}"
    values = to_floats(annotation.get("bbox"), 4)
    drawn = _drawn(reading, file, annotation, frame)
    outline = None if drawn is None else drawn.outline
    if (values is None or not values[2] * values[3]) and drawn is not None:
        values = drawn.box
    elif values is not None and drawn is not None:
        overlap = float(iou([values], [drawn.box])[0, 0])
        if overlap < SAME_CELL:
            what = (
                f"bbox {_numbers(values)} and outline, around which the box is "
                f"{_numbers(drawn.box)}, are not of one place; the outline is left out"
            )
            reading.report(codes.LOOK_AT, file, place, what, "correct one of them")
            outline = None
    if values is None:
        what = "has no bbox of four numbers, nor an outline that can be read, and is left out"
        reading.report(codes.UNUSABLE_SHAPE, file, place, what)
        return None
    stated = annotation.get("attributes")
    turn = to_floats([stated.get("rotation")], 1) if isinstance(stated, Mapping) else None
    if turn and turn[0] % 360 and outline is None:  # CVAT's bbox is that of the box upright
        x, y, w, h = values
        corners = turned_corners((x, y, w, h), turn[0], (x + w / 2, y + h / 2))
        values, outline = around(corners), Region.polygon(corners)
    checked = reading.box(frame.box(values), frame.size, file, place)
    return None if checked is None else Shape(checked, outline and frame.region(outline))


def _numbers(box: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in box) + ")"


def _drawn(
    reading: ReadContext, file: Path, annotation: Mapping[str, Any], frame: Frame
) -> DrawnShape | None:
    """Return what an annotation's segmentation draws, polygons or a mask.

    What cannot be read of it is counted.
    """
    listed = annotation.get("segmentation")
    if isinstance(listed, Mapping):
        try:
            return _mask(listed, frame, reading.mask_budget(file))
        except DataError as error:
            reading.unread(f"outline as a run-length mask with {error}")
            return None
    polygons = []
    for flat in listed if isinstance(listed, list) else ():
        values = to_floats(flat, len(flat)) if isinstance(flat, list) else None
        if values and len(values) >= 6 and len(values) % 2 == 0 and all(map(isfinite, values)):
            polygons.append(tuple(zip(values[0::2], values[1::2], strict=True)))
        elif flat:
            reading.unread("outline (not three or more x, y pairs)")
    box = around(point for polygon in polygons for point in polygon) if polygons else None
    return None if box is None else DrawnShape(box, Region(tuple(polygons)))


def _mask(segmentation: Mapping[str, Any], frame: Frame, budget: MaskBudget) -> DrawnShape:
    """Return what a run-length mask draws; `DataError` if it is no mask of the image."""
    listed, counts = segmentation.get("size"), segmentation.get("counts")
    pair = listed if isinstance(listed, list) and len(listed) == 2 else (None, None)
    height, width = map(to_int, pair)
    if width is None or height is None:
        raise DataError("no size")
    if frame.marked not in (None, (width, height)):
        raise DataError("another size than its image")
    if isinstance(counts, str):
        runs = unpack_coco(counts)
    else:
        whole = [to_int(n) for n in counts] if isinstance(counts, list) else [None]
        runs = [n for n in whole if n is not None]
        if len(runs) != len(whole):
            raise DataError("counts that are no whole numbers")
    return drawn_runs(runs, (width, height), by_column=True, budget=budget)


def identity(annotation: Mapping[str, Any]) -> str | None:
    """Return the annotation's own identity as text."""
    ident = annotation.get("source_id", annotation.get("id"))
    return None if ident is None else str(ident)


def _cell(
    reading: ReadContext, coco: CocoFile, annotation: Mapping[str, Any], shape: Shape
) -> Cell:
    category = to_int(annotation.get("category_id"))
    name = coco.categories.get(-1 if category is None else category)
    if name is None:
        place = f"annotation {annotation.get('id', '?')}"
        reading.report(
            codes.UNNAMED_CLASS, coco.path, place, f"category {category} has no name; kept unnamed"
        )
        name = "unnamed"
    stated = annotation.get("attributes")
    said = {str(k): v for k, v in stated.items()} if isinstance(stated, dict) else {}
    if isinstance(said.get("rotation"), int | float):
        del said["rotation"]  # taken into the shape
    for key in UNREAD:
        if annotation.get(key) is not None or said.pop(key, None) is not None:
            reading.unread(key)
    return reading.cell(
        name,
        shape.box,
        {key: str(value) for key, value in said.items()},
        ignore=to_flag(annotation.get("ignore")) or to_flag(annotation.get("iscrowd")),
        id=identity(annotation),
        outline=shape.outline,
    )


def with_extra(reading: ReadContext, coco: CocoFile, record: ImageRecord, plain: Field) -> Field:
    """Add what our own writer put beside COCO's keys: region, domain, patient, ..."""
    extra = record.entry.get(EXTRA)
    if not isinstance(extra, dict):
        return plain
    try:
        return replace(plain, **origin_from_json(extra))
    except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
        reading.report(
            codes.ILL_FORMED_METADATA,
            coco.path,
            f"image {record.name}",
            f"{EXTRA} cannot be read ({error})",
        )
        return plain


# ---- writing ---------------------------------------------------------------------------------


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write one COCO file (`*.json`, or `annotations.json` in a folder); return what was lost.

    Attributes stand under each annotation's `attributes`, regions, domains, patients and splits
    under each image's `bloodfilm`; other programs pass over both.
    """
    losses = Losses(keeps_predictions=True)
    categories = Categories.of(dataset)
    with output_file(Path(path), ".json", "annotations.json", options) as (out, name):
        names = unique_names(dataset.fields) if out.images else None
        images: list[Json] = []
        annotations: list[Json] = []
        for number, item in enumerate(dataset, 1):
            image = out.image(item.path, f"images/{names[number - 1]}") if names else item.path
            images.append(image_entry(item, number, relative(image, out.root)))
            for cell in losses.boxed(item):
                annotation = annotation_of(cell, len(annotations) + 1, number, categories)
                if cell.attributes:
                    annotation["attributes"] = dict(cell.attributes)
                annotations.append(annotation)
        content = {
            "info": {"description": dataset.name},
            EXTRA: {
                "name": dataset.name,
                "licence": dataset.licence,
                "schema": dataset.schema.to_json(),
                "taxonomy": dataset.taxonomy.to_json(),
            },
            "images": images,
            "categories": categories.to_json(),
            "annotations": annotations,
        }
        out.json(name, content)
    return finish(out, losses)


@dataclass
class Categories:
    """Category ids by name; a new name gets the next free id."""

    ids: dict[str, int]
    parents: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset) -> "Categories":
        """Number every node of the taxonomy from 1."""
        nodes = dataset.taxonomy.nodes
        return cls({n.name: i for i, n in enumerate(nodes, 1)}, {n.name: n.parent for n in nodes})

    def id_of(self, cell: Cell, ignore: str = "ignore") -> int:
        """Return a cell's category; objects to ignore and unnamed ones have their own."""
        name = name_of(cell, ignore)
        return self.ids.setdefault(name, max(self.ids.values(), default=0) + 1)

    def to_json(self) -> list[dict[str, Any]]:
        """Return COCO's list of categories."""
        return [
            {"id": ident, "name": name, "supercategory": self.parents.get(name) or ""}
            for name, ident in self.ids.items()
        ]


def image_entry(item: Field, ident: int, name: str) -> dict[str, Any]:
    """Return a field's entry in `images`."""
    entry: dict[str, Any] = {"id": ident, "file_name": name}
    if item.width is not None and item.height is not None:
        entry |= {"width": item.width, "height": item.height}
    return entry | {EXTRA: origin_to_json(item)}


def annotation_of(
    cell: Cell, ident: int, image: int, categories: Categories, ignore: str = "ignore"
) -> dict[str, Any]:
    """Return a cell's entry in `annotations`; its own identity is kept where it is another."""
    x, y, w, h = cell.box or (0.0, 0.0, 0.0, 0.0)
    annotation: dict[str, Any] = {
        "id": ident,
        "image_id": image,
        "category_id": categories.id_of(cell, ignore),
        "bbox": [x, y, w, h],
        "area": w * h,
        "segmentation": [],  # programs that read COCO miss the key, even where nothing is outlined
        "iscrowd": 0,
    }
    if cell.outline is not None and cell.outline.polygons:
        polygons = cell.outline.polygons
        annotation["segmentation"] = [[v for point in p for v in point] for p in polygons]
        annotation["area"] = sum(map(polygon_area, polygons))
    if cell.ignore:
        annotation["ignore"] = 1
    if cell.id != str(ident):
        annotation["source_id"] = cell.id
    if cell.prediction is not None:
        annotation |= {
            "score": cell.prediction.score,
            "class_score": cell.prediction.class_score,
            "uncertain": cell.prediction.uncertain,
            "issues": list(cell.prediction.issues),
        }
    return annotation
