"""Pascal VOC: one XML file an image in Annotations, splits in ImageSets/Main."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from bloodfilm.core import BloodfilmError, Cell, Dataset, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.issues import Issue
from bloodfilm.core.json_text import parse_json
from bloodfilm.formats.native.records import origin_from_json, origin_to_json
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.frames import Frame
from bloodfilm.formats.shared.image_lookup import Parts, fold, parts_of, stem_of
from bloodfilm.formats.shared.output import (
    Losses,
    Output,
    WriteOptions,
    finish,
    output,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.parsing import peek, read_text, to_int
from bloodfilm.formats.shared.paths import need_folder, split_of
from bloodfilm.formats.shared.shapes import colours
from bloodfilm.formats.shared.xml import element, number, parse
from bloodfilm.imaging.discovery import walk

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

CORNERS = ("xmin", "ymin", "xmax", "ymax")
EXTRA = "bloodfilm"
"""Element of an annotation that carries, as JSON, what VOC has no place for."""
MAX_XML_CHARACTERS = 64 << 20
_ANNOTATION = re.compile(rb"<annotation[\s>]")  # `<annotations>` is CVAT's


def recognises(path: Path) -> bool:
    """Whether there is an annotation file below the folder."""
    if not path.is_dir():
        return False
    return any(_ANNOTATION.search(peek(file)) for file in xml_files(path)[:3])


def read(path: Path, *, one_based: bool = False, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a VOC folder: every XML file below it and the splits its ImageSets list.

    `difficult` objects are read as cells to ignore, as VOC's own scoring does.

    Args:
        path: the folder.
        one_based: corners are pixels counted from 1, the last one included, as the VOC challenge
            had them; by default they are positions counted from 0, as most tools write them.
        options: see `ReadOptions`.
    """
    root = need_folder(Path(path))
    reading = ReadContext(root, **options)
    base = _label_base(root)
    files = xml_files(root)
    splits = _Splits.of(reading, base, files)
    fields = []
    for file in files:
        tree = parse(reading, file, "annotation", MAX_XML_CHARACTERS)
        if tree is not None:
            split = splits.take(file) or split_of(file.parent.name)
            fields.append(_Annotation(reading, file, tree, base, one_based).field(split))
    splits.report_unused(reading)
    _add_unlabelled(reading, fields)
    return reading.dataset(root.name, fields)


def _label_base(root: Path) -> Path:
    return root / "Annotations" if (root / "Annotations").is_dir() else root


def xml_files(root: Path) -> list[Path]:
    """Return the annotation files below a folder, sorted."""
    found = walk(_label_base(root))
    return [folder / n for folder, names in found for n in names if n.lower().endswith(".xml")]


@dataclass
class _Splits:
    """The splits that ImageSets/Main lists, by what a line names: a stem, maybe with folders."""

    base: Path
    listed: dict[Parts, str]
    unused: set[Parts]

    @classmethod
    def of(cls, reading: ReadContext, base: Path, files: Sequence[Path]) -> "_Splits":
        stems = {fold(file.stem) for file in files}
        listed: dict[Parts, str] = {}
        folder = reading.root / "ImageSets" / "Main"
        for file in sorted(folder.glob("*.txt")) if folder.is_dir() else ():
            split = split_of(file.stem)
            for line in read_text(file).splitlines() if split else ():
                key = _line_key(line, stems)
                if key and split and listed.setdefault(key, split) != split:
                    what = f"is also in split {listed[key]}, which is used"
                    reading.report(codes.SPLIT_CONFLICT, file, key[-1], what)
        return cls(base, listed, set(listed))

    def take(self, file: Path) -> str | None:
        """Return the split of an annotation file; folders that a line names must be its own."""
        parts = parts_of(file.relative_to(self.base).as_posix()[: -len(file.suffix)])
        for start in range(len(parts)):
            split = self.listed.get(parts[start:])
            if split is not None:
                self.unused.discard(parts[start:])
                return split
        return None

    def report_unused(self, reading: ReadContext) -> None:
        """Report the lines that no annotation file is of."""
        for key in self.listed:
            if key in self.unused:
                place, name = f"ImageSets, {self.listed[key]}", "/".join(key)
                reading.report(
                    codes.ORPHAN, reading.root, place, f"{name} has no annotation file, left out"
                )


def _line_key(line: str, stems: Collection[str]) -> Parts:
    """Return what a line of ImageSets names: a stem; VOC's class lists put a number after it."""
    name, _, flag = line.strip().rpartition(" ")
    whole = parts_of(line.strip())
    if name and flag in ("-1", "0", "1") and whole and whole[-1] not in stems:
        whole = parts_of(name.strip())
    return (*whole[:-1], stem_of(whole[-1])) if whole else ()


# ---- one file --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Annotation:
    """One annotation file being read."""

    reading: ReadContext
    file: Path
    tree: "Element"
    base: Path
    one_based: bool

    def field(self, split: str | None) -> Field:
        """Return the field it describes."""
        tree = self.tree
        image = self._image(split)
        stated = to_int(tree.findtext("size/width")), to_int(tree.findtext("size/height"))
        frame = self.reading.frame(image, stated)
        cells = tuple(self._cells(frame))
        plain = Field(image, frame.width, frame.height, cells, split=split)
        extra = tree.findtext(EXTRA)
        if not extra:
            return plain
        try:
            return replace(plain, **origin_from_json(parse_json(extra, self.file), split))
        except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
            self.reading.report(
                codes.ILL_FORMED_METADATA, self.file, f"<{EXTRA}>", f"cannot be read ({error})"
            )
            return plain

    def _image(self, split: str | None) -> Path:
        """Find the image by the annotation's own name; the name written in it may be stale."""
        own = self.file.relative_to(self.base).as_posix()[: -len(self.file.suffix)]
        name = (self.tree.findtext("filename") or "").strip().replace("\0", "") or self.file.stem
        found = self.reading.find(own, near=self.file, split=split)
        found = found or self.reading.find(name, near=self.file, split=split)
        return found or self.reading.root / "JPEGImages" / name.replace("\\", "/").lstrip("/")

    def _cells(self, frame: Frame) -> Iterator[Cell]:
        for count, item in enumerate(self.tree.iter("object"), 1):
            place = f"object {count}"
            corners = [number(item.findtext(f"bndbox/{k}")) for k in CORNERS]
            x1, y1, x2, y2 = corners
            if x1 is None or y1 is None or x2 is None or y2 is None:
                self.reading.report(
                    codes.UNUSABLE_SHAPE,
                    self.file,
                    place,
                    "no box of xmin, ymin, xmax, ymax, left out",
                )
                continue
            if self.one_based:
                x1, y1 = x1 - 1, y1 - 1
            drawn = frame.box((x1, y1, x2 - x1, y2 - y1))
            box = self.reading.box(drawn, frame.size, self.file, place)
            if box is None:
                continue
            self._count_unread(item)
            yield self.reading.cell(
                (item.findtext("name") or "").strip(),
                box,
                {
                    (a.findtext("name") or ""): (a.findtext("value") or "")
                    for a in item.iterfind("attributes/attribute")
                },
                ignore=to_int(item.findtext("difficult")) == 1,
                id=item.findtext("id"),
            )

    def _count_unread(self, item: "Element") -> None:
        if item.find("polygon") is not None:
            self.reading.unread("outline")
        for name in ("truncated", "occluded"):
            if to_int(item.findtext(name)) == 1:
                self.reading.unread(name)


def _add_unlabelled(reading: ReadContext, fields: list[Field]) -> None:
    """Add the images that no annotation file names, as fields of which nothing is known."""
    labelled = {field.path for field in fields}
    for image in reading.index.paths:
        if image not in labelled:
            reading.report(
                codes.UNLABELLED_IMAGE,
                image,
                "",
                "image without an annotation file; kept as not annotated",
            )
            fields.append(Field(image, region=Region.nothing()))


# ---- writing ---------------------------------------------------------------------------------


def write(
    dataset: Dataset, path: Path, *, one_based: bool = False, **options: Unpack[WriteOptions]
) -> list[Issue]:
    """Write Annotations, ImageSets/Main, labelmap.txt and, if asked, JPEGImages; return losses.

    Cells to ignore are `difficult`. Attributes stand under each object's `attributes`, regions,
    domains and patients in an element `bloodfilm`; other programs pass over both. With `one_based`
    the upper left corner is counted from 1, as in the VOC challenge; see `read`.
    """
    losses = Losses()
    losses.vocabulary(dataset, "taxonomy", "licence")
    splits: dict[str, list[str]] = {}
    with output(Path(path), fresh=True, **options) as out:
        for item, name in zip(dataset, unique_names(dataset.fields), strict=True):
            out.image(item.path, f"JPEGImages/{name}")
            _write_annotation(out, item, name, losses, 1.0 if one_based else 0.0)
            if item.split:
                splits.setdefault(item.split, []).append(Path(name).stem)
        names_used = dict.fromkeys(losses.printable(n) for n in _classes(dataset))
        header = "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
        shades = colours(names_used)
        listed = "".join(f"{n}:{','.join(map(str, shades[n]))}::\n" for n in names_used)
        out.text("labelmap.txt", header + listed)
        for split, stems in splits.items():
            out.text(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in stems))
    return finish(out, losses)


def _classes(dataset: Dataset) -> list[str]:
    """Return the class names of boxed cells, which CVAT and Datumaro want listed."""
    cells = (cell for item in dataset for cell in item.cells if cell.box is not None)
    return sorted({name_of(cell) for cell in cells})


def _write_annotation(
    out: Output, item: Field, name: str, losses: Losses, origin_px: float
) -> None:
    from xml.etree import ElementTree

    size = size_for_writing(item, losses)
    if size is None:
        return
    sides = {"width": size[0], "height": size[1], "depth": 3}
    tree = element("annotation", {"folder": "JPEGImages", "filename": name, "size": sides})
    for cell in losses.boxed(item):
        tree.append(_object(cell, losses, origin_px))
    origin = {k: v for k, v in origin_to_json(item).items() if k != "split"}
    if origin:
        tree.append(element(EXTRA, json.dumps(origin)))
    ElementTree.indent(tree)
    content = ElementTree.tostring(tree, encoding="unicode")
    out.text(f"Annotations/{Path(name).stem}.xml", content + "\n")


def _object(cell: Cell, losses: Losses, origin_px: float) -> "Element":
    x, y, w, h = cell.box or (0, 0, 0, 0)
    if cell.id is not None and not cell.id.isprintable():
        losses.add("identity")
    losses.outline(cell)
    content: dict[str, object] = {
        "name": losses.printable(name_of(cell)),
        "difficult": int(cell.ignore),
        "bndbox": {
            "xmin": x + origin_px,
            "ymin": y + origin_px,
            "xmax": x + w,
            "ymax": y + h,
        },
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
