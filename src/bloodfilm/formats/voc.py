"""Pascal VOC: one XML file an image in Annotations, splits in ImageSets/Main."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from bloodfilm.core import BloodfilmError, Cell, Dataset, Field, Region
from bloodfilm.formats.native.records import origin_from_json, origin_to_json
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.images import walk
from bloodfilm.formats.shared.output import (
    Losses,
    Output,
    WriteOptions,
    finish,
    output,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.parsing import parse_json, peek, read_text, to_int
from bloodfilm.formats.shared.paths import need_folder, split_of
from bloodfilm.formats.shared.xml import element, number, parse

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

EXTRA = "bloodfilm"
"""Element of an annotation that carries, as JSON, what VOC has no place for."""
MAX_XML_CHARACTERS = 64 << 20
_ANNOTATION = re.compile(rb"<annotation[\s>]")  # `<annotations>` is CVAT's


def recognises(path: Path) -> bool:
    """Whether there is an annotation file below the folder."""
    if not path.is_dir():
        return False
    return any(_ANNOTATION.search(peek(file)) for file in xml_files(path)[:3])


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a VOC folder: every XML file below it and the splits its ImageSets list.

    `difficult` objects are read as cells to ignore, as VOC's own scoring does.
    """
    root = need_folder(Path(path))
    reading = ReadContext(root, **options)
    splits = read_splits(reading)
    fields = []
    for file in xml_files(root):
        tree = parse(reading, file, "annotation", MAX_XML_CHARACTERS)
        if tree is not None:
            split = splits.pop(file.stem, None) or split_of(file.parent.name)
            fields.append(read_field(reading, file, tree, split))
    for stem, split in splits.items():
        reading.report(root, f"ImageSets, {split}", f"{stem} has no annotation file, left out")
    _add_unlabelled(reading, fields)
    return reading.dataset(root.name, fields)


def xml_files(root: Path) -> list[Path]:
    """Return the annotation files below a folder, sorted."""
    base = root / "Annotations" if (root / "Annotations").is_dir() else root
    return [folder / n for folder, names in walk(base) for n in names if n.lower().endswith(".xml")]


def read_splits(reading: ReadContext) -> dict[str, str]:
    """Return image stem -> split from ImageSets/Main; a stem in two splits is reported."""
    splits: dict[str, str] = {}
    folder = reading.root / "ImageSets" / "Main"
    for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
        split = split_of(file.stem)
        for line in read_text(file).splitlines() if split else ():
            stem = line.split()[0] if line.split() else None
            if stem is None or split is None:
                continue
            if splits.setdefault(stem, split) != split:
                reading.report(file, stem, f"is also in split {splits[stem]}, which is believed")
    return splits


def read_field(reading: ReadContext, file: Path, tree: "Element", split: str | None) -> Field:
    """Return the field one annotation file describes."""
    name = (tree.findtext("filename") or "").strip() or file.stem
    image = _image(reading, file, name)
    stated = to_int(tree.findtext("size/width")), to_int(tree.findtext("size/height"))
    size = (stated[0], stated[1]) if stated[0] and stated[1] else None
    if size is None and image.is_file():
        size = reading.size(image)
    cells = tuple(_cells(reading, file, tree, size))
    width, height = size or (None, None)
    plain = Field(image, width, height, cells, split=split)
    extra = tree.findtext(EXTRA)
    try:
        return (
            replace(plain, **origin_from_json(parse_json(extra, file), split)) if extra else plain
        )
    except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
        reading.report(file, f"<{EXTRA}>", f"cannot be read ({error})")
        return plain


def _image(reading: ReadContext, file: Path, name: str) -> Path:
    """Find the image by the annotation's own name; the name written in it may be stale."""
    found = reading.find(file.stem, near=file) or reading.find(name, near=file)
    return found or reading.root / "JPEGImages" / name


def _cells(
    reading: ReadContext, file: Path, tree: "Element", size: tuple[int, int] | None
) -> Iterator[Cell]:
    for count, item in enumerate(tree.iter("object"), 1):
        place = f"object {count}"
        corners = [number(item.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")]
        x1, y1, x2, y2 = corners
        if x1 is None or y1 is None or x2 is None or y2 is None:
            reading.report(file, place, "no box of xmin, ymin, xmax, ymax, left out")
            continue
        box = reading.box((x1, y1, x2 - x1, y2 - y1), size, file, place)
        if box is None:
            continue
        label, ignore = reading.label((item.findtext("name") or "").strip())
        difficult = to_int(item.findtext("difficult")) == 1
        attributes = {
            (a.findtext("name") or ""): (a.findtext("value") or "")
            for a in item.iterfind("attributes/attribute")
        }
        yield Cell(box, label, attributes, ignore or difficult, item.findtext("id"))


def _add_unlabelled(reading: ReadContext, fields: list[Field]) -> None:
    """Add the images no annotation file speaks of, as fields of which nothing is known."""
    labelled = {field.path for field in fields}
    for image in reading.index.paths:
        if image not in labelled:
            reading.report(image, "", "image without an annotation file; kept as not annotated")
            fields.append(Field(image, region=Region.nothing()))


# ---- writing ---------------------------------------------------------------------------------


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[str]:
    """Write Annotations, ImageSets/Main and, if asked, JPEGImages; return what was lost.

    Cells to ignore are `difficult`. Attributes stand under each object's `attributes`, regions,
    domains and patients in an element `bloodfilm`; other programs pass over both.
    """
    losses = Losses()
    losses.vocabulary(dataset, "taxonomy", "licence")
    splits: dict[str, list[str]] = {}
    with output(Path(path), fresh=True, **options) as out:
        for item, name in zip(dataset, unique_names(dataset.fields), strict=True):
            out.image(item.path, f"JPEGImages/{name}")
            _write_annotation(out, item, name, losses)
            if item.split:
                splits.setdefault(item.split, []).append(Path(name).stem)
        for split, stems in splits.items():
            out.text(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
    return finish(out, losses)


def _write_annotation(out: Output, item: Field, name: str, losses: Losses) -> None:
    from xml.etree import ElementTree

    size = size_for_writing(item, losses)
    if size is None:
        return
    sides = {"width": size[0], "height": size[1], "depth": 3}
    tree = element("annotation", {"folder": "JPEGImages", "filename": name, "size": sides})
    for cell in losses.boxed(item):
        tree.append(_object(cell, losses))
    origin = {k: v for k, v in origin_to_json(item).items() if k != "split"}
    if origin:
        tree.append(element(EXTRA, json.dumps(origin)))
    ElementTree.indent(tree)
    content = ElementTree.tostring(tree, encoding="unicode")
    out.text(f"Annotations/{Path(name).stem}.xml", content + "\n")


def _object(cell: Cell, losses: Losses) -> "Element":
    x, y, w, h = cell.box or (0, 0, 0, 0)
    if cell.id is not None and not cell.id.isprintable():
        losses.add("identity")
    name = cell.label or ("ignore" if cell.ignore else "unnamed")
    content = {
        "name": name,
        "difficult": int(cell.ignore),
        "bndbox": {"xmin": float(x), "ymin": float(y), "xmax": x + w, "ymax": y + h},
    }
    if cell.id is not None and cell.id.isprintable():
        content["id"] = cell.id
    made = element("object", content)
    if cell.attributes:
        pairs = element("attributes", {})
        for key, value in cell.attributes.items():
            pairs.append(element("attribute", {"name": key, "value": value}))
        made.append(pairs)
    return made
