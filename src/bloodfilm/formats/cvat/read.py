"""CVAT for images 1.1: one XML file, boxes and outlines with attributes.

A shape labelled `annotated region` says where every cell is marked. Properties that CVAT
cannot represent (patient, diagnosis, domain) are in a tag `field` of the image, which CVAT keeps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bloodfilm.core import BloodfilmError, Box, Cell, DataError, Dataset, Field, Region
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.json_text import parse_json
from bloodfilm.formats.cvat.write import (
    FILE_NAME,
    ID,
    IMAGE,
    OCCLUDED,
    PACKED,
    PROPOSAL,
    TO_IGNORE,
    write,
)
from bloodfilm.formats.native.records import origin_from_json
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.masks import MaskBudget, drawn_runs
from bloodfilm.formats.shared.parsing import peek, to_int
from bloodfilm.formats.shared.paths import image_folders, is_file, resolved, split_of
from bloodfilm.formats.shared.shapes import FIELD, UNKNOWN, DrawnShape, Ellipse, is_region
from bloodfilm.formats.shared.xml import number, parse

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["read", "recognises", "write"]

MAX_XML_CHARACTERS = 512 << 20
YES = frozenset({"1", "true", "yes"})
Polygon = tuple[tuple[float, float], ...]
KINDS = {
    "box": ("xtl", "ytl", "xbr", "ybr"),
    "ellipse": ("cx", "cy", "rx", "ry"),
    "mask": ("left", "top", "width", "height"),
}


def recognises(path: Path) -> bool:
    """Whether it is a file of CVAT's annotations, or a folder with one."""
    return bool(_files(path))


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if _looks_like_cvat(path) else []
    inside = sorted(p for p in path.glob("*.xml") if p.is_file() and not p.name.startswith("."))
    return [p for p in inside if _looks_like_cvat(p)]


def _looks_like_cvat(path: Path) -> bool:
    return path.suffix.lower() == ".xml" and b"<annotations" in peek(path, 4096)


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read a file of CVAT's annotations, or every such file in a folder.

    A cell's box is the upright one around its shape; turned boxes, ellipses, masks and outlines are
    kept as outlines of polygons.
    An attribute that is `unknown` or empty is not known.
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path)
    if not files:
        raise DataError(f"{path}: no {FILE_NAME} of CVAT here; unpack the export, name its folder")
    reading = ReadContext(path, **options)
    name, fields = path.stem, []
    for file in files:
        tree = parse(reading, file, "annotations", MAX_XML_CHARACTERS)
        if tree is None:
            continue
        name = tree.findtext("meta/task/name") or tree.findtext("meta/project/name") or name
        if tree.find("track") is not None:
            what = "tracks of a video are left out; export as `CVAT for images 1.1`"
            reading.report(codes.ILL_FORMED_ENTRY, file, "<track>", what)
        items = [
            (item, f"image {count}")
            for count, item in enumerate(tree.iter("image"), 1)
            if _named(reading, file, item, count)
        ]
        places = {id(item): found for item, _ in items if (found := _said_place(file, item))}
        places |= _locate(reading, file, [item for item, _ in items if id(item) not in places])
        fields += [
            _Image(reading, file, item, place, places[id(item)]).field() for item, place in items
        ]
    if not fields:
        why = reading.issues[0] if reading.issues else f"{path.name}: lists none"
        raise DataError(f"{path}: no image is read from it ({why}); export it from CVAT again")
    return reading.dataset(name, fields)


def _named(reading: ReadContext, file: Path, item: "Element", count: int) -> bool:
    if item.get("name"):
        return True
    reading.report(codes.ILL_FORMED_ENTRY, file, f"image {count}", "has no name, left out")
    return False


def _locate(reading: ReadContext, file: Path, items: Sequence["Element"]) -> dict[int, Path]:
    """Return where the image of each `<image>` lies, by the element's identity."""
    found: dict[int, Path] = {}
    for subset in dict.fromkeys(item.get("subset", "") for item in items):
        inside = [item for item in items if item.get("subset", "") == subset]
        bases = image_folders(file, split_of(subset), reading.images)
        if subset and ".." not in Path(subset).parts:
            bases = [base / subset for base in bases] + bases
        names = (item.get("name", "") for item in inside)
        places = reading.locate(names, file, bases, split_of(subset))
        found |= {id(item): places[item.get("name", "")] for item in inside}
    return found


def _said_place(file: Path, item: "Element") -> Path | None:
    """Return where our own writer says that an image lies, if it is there and so called."""
    tags = (dict(_attributes(tag)) for tag in item.iterfind("tag") if tag.get("label") == FIELD)
    said = next((words[IMAGE] for words in tags if IMAGE in words), None)
    found = None if said is None else resolved(said.replace("\0", ""), file.parent)
    same = found is not None and found.name == Path(item.get("name", "")).name
    return found if found is not None and same and is_file(found) else None


class _Image:
    """One `<image>` being read."""

    def __init__(
        self, reading: ReadContext, file: Path, item: "Element", place: str, path: Path
    ) -> None:
        self.reading, self.file, self.item, self.path = reading, file, item, path
        self.place = f"{place} ({Path(item.get('name', '')).name!r})"
        self.frame = reading.frame(path, (to_int(item.get("width")), to_int(item.get("height"))))

    def report(self, code: str, what: str, place: str = "") -> None:
        """Note what cannot be used."""
        self.reading.report(code, self.file, f"{self.place}{place and ', ' + place}", what)

    def field(self) -> Field:
        """Return the field it describes."""
        cells: list[Cell] = []
        regions: list[Region] = []
        origin: dict[str, str] = {}
        for count, shape in enumerate(self.item, 1):
            place, label = f"{shape.tag} {count}", shape.get("label")
            if shape.tag == "tag":
                said = dict(_attributes(shape))
                origin |= said if label == FIELD else {f"tag {label}": "yes"}
                continue
            drawn = self._drawn(shape, place)
            if is_region(label):
                regions.append(Region.nothing() if drawn is None else drawn.region)
            elif drawn is not None:
                where = f"{self.place}, {place}"
                box = self.reading.box(drawn.box, self.frame.size, self.file, where)
                cells += [] if box is None else [self._cell(shape, box, drawn.outline)]
        region = Region.union(regions) if regions else Region.everything()
        if not regions and origin.pop("region", None) is not None:
            region = Region.nothing()
        split = split_of(self.item.get("subset", ""))
        size = self.frame.width, self.frame.height
        plain = Field(self.path, *size, tuple(cells), region, split=split)
        return self._with_origin(plain, origin)

    def _with_origin(self, plain: Field, origin: dict[str, str]) -> Field:
        origin.pop("region", None)
        origin.pop(IMAGE, None)
        tags = {k: origin.pop(k) for k in list(origin) if k.startswith("tag ")}
        plain = replace(plain, meta=tags)
        if not origin:
            return plain
        try:
            record: dict[str, Any] = dict(origin)
            for key in PACKED & set(record):
                record[key] = parse_json(record[key], self.file)
            found = origin_from_json(record, plain.split)
        except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
            self.report(codes.ILL_FORMED_METADATA, f"tag {FIELD!r} cannot be read ({error})")
            return plain
        found["meta"] |= tags
        return replace(plain, **found | {"region": plain.region})

    # ---- shapes ----------------------------------------------------------------------------

    def _cell(self, shape: "Element", box: Box, outline: Region | None) -> Cell:
        said = dict(_attributes(shape))
        ident = said.pop(ID, None)
        for name in PROPOSAL:
            said.pop(name, None)
        marked = said.pop(TO_IGNORE, "").lower() in YES
        if shape.get("occluded") == "1":
            said[OCCLUDED] = "yes"
        name = shape.get("label") or "unnamed"
        return self.reading.cell(name, box, said, ignore=marked, id=ident, outline=outline)

    def _drawn(self, shape: "Element", place: str) -> DrawnShape | None:
        """Return what a shape covers in the picture; `None` (reported) if that cannot be told."""
        drawn = None
        try:
            drawn = _shape(shape, self.reading.mask_budget(self.file))
        except DataError as error:
            if shape.tag != "mask" or is_region(shape.get("label")):
                self.report(codes.UNUSABLE_SHAPE, f"{error}; left out", place)
                return None
            self.reading.unread(f"outline as a mask: {error}")
            drawn = _corner_box(shape)
        if drawn is None:
            self.report(
                codes.UNUSABLE_SHAPE, "no box, outline, ellipse or mask of numbers, left out", place
            )
            return None
        return drawn.into(self.frame)


def _four(shape: "Element") -> tuple[float, float, float, float] | None:
    """Return the four numbers that place a box, an ellipse or a mask."""
    values = [number(shape.get(key)) for key in KINDS.get(shape.tag, ())]
    a, b, c, d = values if len(values) == 4 else (None,) * 4
    return None if a is None or b is None or c is None or d is None else (a, b, c, d)


def _corner_box(shape: "Element") -> DrawnShape | None:
    """Return the box around a mask."""
    four = _four(shape)
    return None if four is None else DrawnShape(four)


def _shape(shape: "Element", budget: MaskBudget) -> DrawnShape | None:
    """Return what is drawn; boxes and ellipses are turned clockwise about their middle."""
    if shape.tag == "polygon":
        points = _points(shape)
        return DrawnShape.polygons([points]) if points else None
    four = _four(shape)
    if four is None:
        return None
    a, b, c, d = four
    degrees = number(shape.get("rotation")) or 0.0
    if shape.tag == "box":
        return DrawnShape.rectangle((a, b, c - a, d - b), degrees)
    if shape.tag == "ellipse":
        return DrawnShape.ellipse(Ellipse(a, b, c, d, degrees))
    counts = [to_int(word) for word in shape.get("rle", "").split(",")]
    whole = [n for n in counts if n is not None]
    fits = c.is_integer() and d.is_integer() and len(whole) == len(counts)
    if not fits:
        raise DataError("its mask has runs or a size that are no whole numbers")
    try:
        outline = drawn_runs(whole, (int(c), int(d)), budget=budget).region
    except DataError as error:
        raise DataError(f"its mask of {c:g}x{d:g} pixels has {error}") from None
    return DrawnShape(four, outline.transform([[1, 0, a], [0, 1, b]]))


def _attributes(shape: "Element") -> Iterator[tuple[str, str]]:
    """Yield the attributes that are known."""
    for item in shape.iterfind("attribute"):
        name, value = item.get("name"), item.text or ""
        if name and value and value != UNKNOWN:
            yield name, value


def _points(shape: "Element") -> Polygon:
    """Return the points of `x,y;x,y;...`; none if one of them is no pair of numbers."""
    points = []
    for pair in shape.get("points", "").split(";"):
        x, _, y = pair.partition(",")
        across, down = number(x), number(y)
        if across is None or down is None:
            return ()
        points.append((across, down))
    return tuple(points)
