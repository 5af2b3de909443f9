"""CVAT for images 1.1: one XML file, boxes and outlines with attributes.

A shape labelled `annotated region` says where every cell is marked. What CVAT has no word for
(patient, diagnosis, domain) is carried by a tag `field` of the image, which CVAT keeps.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from bloodfilm.core import BloodfilmError, Box, Cell, DataError, Dataset, Field, Region
from bloodfilm.formats.cvat.write import (
    FILE_NAME,
    ID,
    OCCLUDED,
    PACKED,
    TO_IGNORE,
    write,
)
from bloodfilm.formats.native.records import origin_from_json
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.parsing import parse_json, peek, to_int
from bloodfilm.formats.shared.paths import resolved, split_of
from bloodfilm.formats.shared.shapes import FIELD, UNKNOWN, around, corners, is_region, turned
from bloodfilm.formats.shared.xml import number, parse

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = ["read", "recognises", "write"]

MAX_XML_CHARACTERS = 512 << 20
YES = frozenset({"1", "true", "yes"})
Size = tuple[int, int]
Polygon = tuple[tuple[float, float], ...]


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

    Turned boxes, ellipses, masks and outlines of cells are read as the upright boxes around them.
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
            reading.report(file, "<track>", what)
        fields += [
            _Image(reading, file, item, f"image {count}").field()
            for count, item in enumerate(tree.iter("image"), 1)
            if _named(reading, file, item, count)
        ]
    if not fields:
        why = reading.problems[0] if reading.problems else f"{path.name}: lists none"
        raise DataError(f"{path}: no image is read from it ({why}); export it from CVAT again")
    return reading.dataset(name, fields)


def _named(reading: ReadContext, file: Path, item: "Element", count: int) -> bool:
    if item.get("name"):
        return True
    reading.report(file, f"image {count}", "has no name, left out")
    return False


class _Image:
    """One `<image>` being read."""

    def __init__(self, reading: ReadContext, file: Path, item: "Element", place: str) -> None:
        self.reading, self.file, self.item = reading, file, item
        name = item.get("name", "")
        self.place = f"{place} ({Path(name).name!r})"
        self.path = self._locate(name)
        width, height = to_int(item.get("width")), to_int(item.get("height"))
        self.size = (width, height) if width and height and min(width, height) > 0 else None
        if self.size is None and self.path.is_file():
            self.size = reading.size(self.path)

    def report(self, what: str, place: str = "") -> None:
        """Note what cannot be used."""
        self.reading.report(self.file, f"{self.place}{place and ', ' + place}", what)

    def field(self) -> Field:
        """Return the field it describes."""
        cells: list[Cell] = []
        polygons: list[Polygon] = []
        origin: dict[str, str] = {}
        for count, shape in enumerate(self.item, 1):
            place, label = f"{shape.tag} {count}", shape.get("label")
            if shape.tag == "tag":
                said = dict(_attributes(shape))
                origin |= said if label == FIELD else {f"tag {label}": "yes"}
            elif is_region(label):
                polygons += self._polygon(shape, place)
            else:
                box = self._box(shape, place)
                cells += [] if box is None else [self._cell(shape, box)]
        region = Region(tuple(polygons)) if polygons else Region.everything()
        if not polygons and origin.pop("region", None) is not None:
            region = Region.nothing()
        width, height = self.size or (None, None)
        split = split_of(self.item.get("subset", ""))
        plain = Field(self.path, width, height, tuple(cells), region, split=split)
        return self._with_origin(plain, origin)

    def _with_origin(self, plain: Field, origin: dict[str, str]) -> Field:
        origin.pop("region", None)
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
            self.report(f"tag {FIELD!r} cannot be read ({error})")
            return plain
        found["meta"] |= tags
        return replace(plain, **found | {"region": plain.region})

    def _locate(self, name: str) -> Path:
        clean = name.replace("\\", "/").replace("\0", "")
        folder, subset = self.file.parent, self.item.get("subset", "")
        places = [self.reading.images, folder, folder / "images", folder / "images" / subset]
        for base in places:
            if base is not None and (base / clean).is_file():
                return resolved(clean, base)
        return self.reading.find(clean, near=folder / subset) or resolved(clean, folder)

    # ---- shapes ----------------------------------------------------------------------------

    def _cell(self, shape: "Element", box: Box) -> Cell:
        said = dict(_attributes(shape))
        ident = said.pop(ID, None)
        marked = said.pop(TO_IGNORE, "").lower() in YES
        if shape.get("occluded") == "1":
            said[OCCLUDED] = "yes"
        label, ignore = self.reading.label(shape.get("label") or "unnamed")
        return Cell(box, label, said, ignore or marked, ident)

    def _box(self, shape: "Element", place: str) -> Box | None:
        box = self._upright(shape)
        if box is None:
            self.report("no box, outline, ellipse or mask of numbers, left out", place)
            return None
        degrees = number(shape.get("rotation")) or 0.0
        if degrees:
            middle = (box[0] + box[2] / 2, box[1] + box[3] / 2)
            box = turned(box, degrees, middle)
            self.report("is turned; the upright box around it is taken", place)
        return self.reading.box(box, self.size, self.file, f"{self.place}, {place}")

    def _upright(self, shape: "Element") -> Box | None:
        """Return a shape's own box, before it is turned."""
        kinds = {
            "box": ("xtl", "ytl", "xbr", "ybr"),
            "ellipse": ("cx", "cy", "rx", "ry"),
            "mask": ("left", "top", "width", "height"),
        }
        if shape.tag == "polygon":
            points = _points(shape)
            return around(points) if points else None
        values = [number(shape.get(key)) for key in kinds.get(shape.tag, ())]
        a, b, c, d = values if len(values) == 4 else (None,) * 4
        if a is None or b is None or c is None or d is None:
            return None
        if shape.tag == "box":
            return a, b, c - a, d - b
        return (a - c, b - d, 2 * c, 2 * d) if shape.tag == "ellipse" else (a, b, c, d)

    def _polygon(self, shape: "Element", place: str) -> Iterator[Polygon]:
        box = None if shape.tag == "polygon" else self._upright(shape)
        points = _points(shape) if box is None else corners(box)
        try:
            Region.polygon(points)
        except DataError as error:
            self.report(f"{error}; left out", place)
        else:
            yield points


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
