"""Read LLD / LeukemiaAttri: 14 classes and seven attributes, as JSON or as text labels."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import Cell, DataError, Dataset, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.formats import coco
from bloodfilm.formats.lld import layout, raw_json, raw_text
from bloodfilm.formats.lld.codes import CLASSES, StrayCode
from bloodfilm.formats.lld.layout import Subset, subsets
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.image_lookup import ImageIndex
from bloodfilm.formats.shared.parsing import read_json, to_flag, to_floats
from bloodfilm.formats.shared.paths import is_file, split_of
from bloodfilm.formats.shared.yolo_rows import Row
from bloodfilm.imaging.discovery import is_image

LICENCE = "CC BY-NC-SA 4.0, as users of the set state it"
COMPLETE = "complete_boxes.json"
_CODED = re.compile(rb'"(nuclear_shape|cytoplasm)"\s*:\s*\d')


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
    cells are unboxed, and red cells and platelets always are: `meta["annotated"]` states what is.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; name LLD's folder")
    reading = ReadContext(path, **options)
    if path.is_file():
        fields = list(_from_json(reading, layout.subset_above(path), path))
    elif labels == "complete":
        fields = list(_complete(reading))
    else:
        fields = [f for subset in subsets(path) for f in _read_subset(reading, subset, labels)]
    return reading.dataset("LLD", fields, licence=LICENCE)


def _read_subset(reading: ReadContext, subset: Subset, labels: str | None) -> Iterator[Field]:

    def report_duplicate(file: Path, other: Path) -> None:
        reading.report_fault(file, layout.duplicate_labels(other))

    wants_json = labels in (None, "json")
    files = list(layout.json_files(subset, report_duplicate)) if wants_json else []
    texts = subset.text_folders() if labels != "json" and not files else []
    if not wants_json:
        texts = [p for p in texts if p.name.lower() == str(labels).lower()]
    if not files and not texts:
        reading.report(
            codes.WITHOUT_LABELS, subset.path, "", f"no {labels or 'json or text'} labels, left out"
        )
        return
    fields = (
        [f for file, content in files for f in _from_json(reading, subset, file, content)]
        if files
        else list(_from_text(reading, subset, layout.most_columns(texts)))
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
    """Return a field with what its file name and its subset state."""
    parts = parse_name(image.name)
    domain = subset.domain
    if parts is not None and domain.magnification is None:
        domain = replace(domain, magnification=parts.magnification)
    meta = {"annotated": "white cell"} | (parts.meta if parts else {})
    width, height = size or (None, None)
    patient, diagnosis = (parts.patient, parts.diagnosis) if parts else (None, None)
    return Field(image, width, height, cells, region, domain, patient, split, diagnosis, meta)


def _find(reading: ReadContext, subset: Subset, split: str | None, name: str) -> Path:
    if reading.images is None:
        found, index = subset.find_image(name, split), subset.index
    else:
        given, index = reading.images / name, reading.index
        place = subset.image_place(name, split)
        found = given if is_file(given) else index.find(name, near=place) or place
    return found if is_file(found) else _alike(reading, index, name) or found


def _alike(reading: ReadContext, index: ImageIndex, name: str) -> Path | None:
    """Return the image whose name differs by stray characters only, and note it."""
    found = index.find_alike(name)
    if found is not None:
        what = f"taken for {name!r}: stray characters apart the same"
        reading.note(codes.SIMILAR_NAME, what, found)
    return found


def _unlabelled(reading: ReadContext, subset: Subset, fields: list[Field]) -> Iterator[Field]:
    """Yield the images of a subset that no label refers to, as fields of which nothing is known."""
    labelled = {field.path for field in fields}
    for folder in subset.image_folders(None):
        for image in sorted(folder.iterdir()):
            if image not in labelled and is_image(image) and parse_name(image.name):
                reading.report(
                    codes.UNLABELLED_IMAGE, image, "", "image without labels; kept as not annotated"
                )
                split = split_of(folder.name)
                yield make_field(image, subset, split, None, (), Region.nothing())


# ---- JSON ------------------------------------------------------------------------------------


def _from_json(
    reading: ReadContext, subset: Subset, file: Path, content: Any = None
) -> Iterator[Field]:
    labels = raw_json.parse(subset, file, content)
    parsed = labels.coco
    coco.report(reading, parsed)
    _note_renamed_classes(reading, parsed)
    for record in parsed.records:
        image = _find(reading, subset, labels.split, record.name)
        frame = coco.frame_of(reading, record, image)
        cells = []
        for annotation in labels.annotations(record):
            shape = coco.shape_of(reading, file, annotation.entry, frame)
            if shape is not None:
                cells.append(_json_cell(reading, file, annotation, shape))
        field = make_field(
            image, subset, labels.split, frame.size, tuple(cells), Region.everything()
        )
        yield coco.with_extra(reading, parsed, record, field)


def _note_renamed_classes(reading: ReadContext, parsed: coco.CocoFile) -> None:
    for ident, name in parsed.categories.items():
        usual = CLASSES.get(ident)
        if usual is not None and reading.meaning(name) != reading.meaning(usual):
            what = f"category {ident} is {name!r} here, {usual!r} in LLD's list; the name is used"
            reading.note(codes.NAMES_DIFFER, what, parsed.path)


def _json_cell(
    reading: ReadContext, file: Path, annotation: raw_json.RawAnnotation, shape: coco.Shape
) -> Cell:
    place, name, by_id = annotation.place, annotation.name, annotation.class_by_id
    if name is None:
        reading.report(
            codes.UNNAMED_CLASS, file, place, f"class {annotation.class_id!r} has no name; unnamed"
        )
        name = "unnamed"
    if by_id is not None and reading.meaning(name) != reading.meaning(by_id):
        what = f"class {annotation.class_id} is {by_id!r}, but is named {name!r}; the name is used"
        reading.report(codes.NAMES_DIFFER, file, place, what)
    _report_stray(reading, file, place, annotation.stray_codes)
    ignore, identity = to_flag(annotation.entry.get("ignore")), coco.identity(annotation.entry)
    attributes, outline = annotation.attributes, shape.outline
    return reading.cell(name, shape.box, attributes, ignore=ignore, id=identity, outline=outline)


def _report_stray(reading: ReadContext, file: Path, place: str, stray: Sequence[StrayCode]) -> None:
    for code in stray:
        reading.report(codes.UNKNOWN_VALUE, file, place, f"{code}; taken as unknown")


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
        size = reading.size(image) if is_file(image) else None
        cells = []
        for key, label in (("wbc", "white cell"), ("ignore", None)):
            for number, item in enumerate(boxes.get(key, ()) if isinstance(boxes, dict) else ()):
                place = f"{name}, {key} {number}"
                values = to_floats(item, 4)
                if values is None:
                    reading.report(
                        codes.UNUSABLE_SHAPE,
                        file,
                        place,
                        "is not a box of four numbers and is left out",
                    )
                elif box := reading.box(values, size, file, place):
                    cells.append(Cell(box, label, ignore=label is None))
        split = split_of(image.parent.name)
        yield make_field(image, subset, split, size, tuple(cells), Region.everything())


# ---- text ------------------------------------------------------------------------------------


def _from_text(reading: ReadContext, subset: Subset, labels: Path) -> Iterator[Field]:
    found: list[tuple[raw_text.TextLabels, tuple[Cell, ...]]] = []
    for path, split in layout.text_files(labels):
        image = _find(reading, subset, split, f"{path.stem}.png")
        if not is_file(image) and reading.missing == "drop":
            reading.report(codes.ORPHAN, path, "", "labels without an image, left out")
            continue
        size = reading.size(image) if is_file(image) else None
        parsed = raw_text.parse(subset, split, path, image, size)
        cells = _text_cells(reading, parsed)
        if cells is not None:
            found.append((parsed, cells))
    files = [parsed for parsed, _ in found]
    usual, _ = raw_text.usual_order(files)
    _note_orders(reading, labels, files, usual)
    regions = [_region_of(parsed, usual) for parsed in files]
    pairs = list(zip(files, regions, strict=True))
    sparse = {parsed.split for parsed, region in pairs if not region.is_everything}
    for (parsed, cells), region in zip(found, regions, strict=True):
        # Where only patches are marked, an empty file does not state where its patch is.
        unknown = parsed.split in sparse and not parsed.rows
        known = Region.nothing() if unknown else region
        yield make_field(parsed.image, subset, parsed.split, parsed.size, cells, known)


def _text_cells(reading: ReadContext, parsed: raw_text.TextLabels) -> tuple[Cell, ...] | None:
    """Return the cells that have a usable box; `None` (reported) if the file cannot be used."""
    for fault in parsed.faults:
        reading.report_fault(parsed.path, fault)
    if not parsed.readable:
        return None
    cells = tuple(c for row in parsed.rows if (c := _text_cell(reading, parsed, row)))
    if not parsed.orders:
        what = "box centres lie outside the patch whichever way its columns are read; file left out"
        reading.report(codes.UNREADABLE_LABELS, parsed.path, "", what, "correct the patch columns")
        return None
    return cells


def _text_cell(reading: ReadContext, parsed: raw_text.TextLabels, row: Row) -> Cell | None:
    box = reading.box(row.box, parsed.size, parsed.path, row.place)
    if box is None:
        return None
    name = raw_text.class_of(row)
    if name is None:
        what = f"class {row.class_id} is none of LLD's; kept unnamed"
        reading.report(codes.UNNAMED_CLASS, parsed.path, row.place, what)
    attributes, stray = raw_text.attributes_of(row)
    _report_stray(reading, parsed.path, row.place, stray)
    return reading.cell(name or "unnamed", box, attributes)


def _order_of(parsed: raw_text.TextLabels, usual: str) -> str:
    """Return the order in which its patches are read: the usual one where both fit."""
    return usual if usual in parsed.orders else parsed.orders[0]


def _note_orders(
    reading: ReadContext, labels: Path, files: Sequence[raw_text.TextLabels], usual: str
) -> None:
    patched = [file for file in files if file.patched]
    if not patched:
        return
    orders = Counter(_order_of(file, usual) for file in patched)
    listed = ", ".join(f"{count} files by {order}" for order, count in sorted(orders.items()))
    both = sum(len(file.orders) > 1 for file in patched)
    also = f"; {both} files fit both orders and are read as most others" if both else ""
    reading.note(codes.PATCH_ORDER, f"patch columns read in {listed}{also}", labels)


def _region_of(parsed: raw_text.TextLabels, usual: str) -> Region:
    """Return where the cells of a file are all known."""
    if not parsed.patched:
        return Region.everything()
    order = _order_of(parsed, usual)
    patches = dict.fromkeys(raw_text.patch_of(row, order, parsed.size) for row in parsed.patched)
    return Region.union(_patch_region(patch, parsed.size) for patch in patches)


def _patch_region(patch: tuple[float, float, float, float], size: tuple[int, int]) -> Region:
    x1, y1, x2, y2 = patch
    if x1 <= 0 and y1 <= 0 and x2 >= size[0] and y2 >= size[1]:
        return Region.everything()
    return Region.rect(x1, y1, x2 - x1, y2 - y1)
