"""QuPath's GeoJSON: one file of objects per image, in pixels of the whole image.

Cells are detections, regions annotations of the class `Region*`; QuPath reads a class that ends
in a star as one to be ignored. Attributes are an object's metadata. Properties that
QuPath cannot represent (patient, split, domain) are metadata of a locked annotation `field` around
the whole image.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import (
    LLD_SCHEMA,
    BloodfilmError,
    Box,
    Cell,
    DataError,
    Dataset,
    Field,
    Region,
)
from bloodfilm.core import dataset_codes as codes
from bloodfilm.core.arrays import JsonView
from bloodfilm.core.json_text import parse_json
from bloodfilm.formats.native.records import origin_from_json
from bloodfilm.formats.qupath.write import (
    CODES,
    FIELD_KEYS,
    ID,
    IMAGE,
    ISSUES,
    PACKED,
    REGION_CODE,
    SUFFIX,
    TO_IGNORE,
    write,
)
from bloodfilm.formats.shared.context import ReadContext, ReadOptions
from bloodfilm.formats.shared.frames import Frame
from bloodfilm.formats.shared.parsing import peek, read_json, to_floats, to_int
from bloodfilm.formats.shared.paths import is_file, resolved
from bloodfilm.formats.shared.shapes import (
    FIELD,
    NOTHING,
    SHAPES,
    UNNAMED,
    DrawnShape,
    is_region,
    one_ring,
)
from bloodfilm.imaging.discovery import is_image, walk

__all__ = ["read", "recognises", "write"]

ANNOTATIONS = frozenset({"annotation", "pathannotationobject", UNNAMED})
OBJECTS = ANNOTATIONS | {
    "cell",
    "detection",
    "tile",
    "pathcellobject",
    "pathdetectionobject",
    "pathtileobject",
}
MAX_DEPTH = 50
Rings = list[list[tuple[float, float]]]


def recognises(path: Path) -> bool:
    """Whether it is a file of features, or a folder with a `*.geojson` in or below it."""
    if path.is_file():
        named = path.suffix.lower() in (SUFFIX, ".json")
        return named and (path.suffix.lower() == SUFFIX or b'"FeatureCollection"' in peek(path))
    return next(_files(path), None) is not None


def _files(root: Path) -> Iterator[Path]:
    for folder, names in walk(root):
        yield from (folder / name for name in names if name.lower().endswith(SUFFIX))


def read(path: Path, **options: Unpack[ReadOptions]) -> Dataset:
    """Read one file of objects, or every `*.geojson` below a folder.

    The image is the one the file is named after (`a.png.geojson` or `a.geojson`). An annotation
    without a class says nothing and is left out. Images that no file names are not annotated.
    """
    path = Path(path)
    files = [path] if path.is_file() else list(_files(path))
    if not files:
        raise DataError(f"{path}: no *{SUFFIX} here; export the objects from QuPath")
    reading = ReadContext(path, **options)
    fields = [_Objects(reading, file).field() for file in files]
    if path.is_dir():
        _add_unlabelled(reading, fields)
    return reading.dataset(path.stem, fields)


def _add_unlabelled(reading: ReadContext, fields: list[Field]) -> None:
    labelled = {item.path.resolve() for item in fields}
    for image in reading.index.paths:
        if image.resolve() not in labelled:
            reading.report(
                codes.UNLABELLED_IMAGE,
                image,
                "",
                f"image without a *{SUFFIX}; kept as not annotated",
            )
            fields.append(Field(image, region=Region.nothing()))


# ---- one file --------------------------------------------------------------------------------


@dataclass
class _Objects:
    """One image's objects being read."""

    reading: ReadContext
    file: Path
    cells: list[Cell] = field(default_factory=list)
    regions: list[Region] = field(default_factory=list)
    stated: dict[str, str] = field(default_factory=dict)
    frame: Frame = field(default_factory=lambda: Frame(None))

    def field(self) -> Field:
        """Return the field the file describes."""
        features = list(_features(read_json(self.file), self.file))
        for feature in features:
            if isinstance(feature, Mapping) and _is_field(_class_of(_properties(feature))):
                self._read_field(_properties(feature))
        image = self._locate(self.stated.get(IMAGE))
        stated = to_int(self.stated.get("width")), to_int(self.stated.get("height"))
        self.frame = self.reading.frame(image, stated)
        for count, feature in enumerate(features, 1):
            self._add(feature, f"feature {count}")
        size = self.frame.width, self.frame.height
        plain = Field(image, *size, tuple(self.cells), self._region())
        return self._with_origin(plain)

    def report(self, code: str, place: str, what: str) -> None:
        """Note what cannot be used."""
        self.reading.report(code, self.file, place, what)

    def _region(self) -> Region:
        if self.regions:
            return Region.union(self.regions)
        unknown = self.stated.get("region") in (NOTHING, SHAPES)
        return Region.nothing() if unknown else Region.everything()

    def _read_field(self, properties: JsonView) -> None:
        """Take what the annotation `field` says; its class says what is known of the image."""
        self.stated |= _texts(properties.get("metadata"))
        kind = (_class_of(properties) or "").removeprefix(FIELD).removeprefix(":").strip()
        code = to_int(_measurements(properties.get("measurements")).get(REGION_CODE))
        if kind not in CODES and code is not None and 0 <= code < len(CODES):
            kind = CODES[code]
        if not properties.get("metadata"):
            self.report(
                codes.METADATA_LOST,
                FIELD,
                "its metadata are gone (QuPath before version 0.6 drops them): patient, split, "
                "diagnosis and acquisition are not known, nor attributes that have no code",
            )
            if kind not in CODES:
                self.report(
                    codes.METADATA_LOST,
                    FIELD,
                    "nor what is known of the image; nothing, unless regions say it",
                )
                kind = NOTHING
        if kind in CODES:
            self.stated["region"] = kind

    def _with_origin(self, plain: Field) -> Field:
        record: dict[str, Any] = {k: v for k, v in self.stated.items() if k in FIELD_KEYS}
        try:
            for key in PACKED & set(record):
                record[key] = parse_json(record[key], self.file)
            origin = origin_from_json(record)
        except (BloodfilmError, TypeError, ValueError, AttributeError) as error:
            self.report(codes.ILL_FORMED_METADATA, FIELD, f"its metadata cannot be read ({error})")
            return plain
        return replace(plain, **origin | {"region": plain.region})

    def _locate(self, stated: str | None) -> Path:
        name = self.file.name[: -len(SUFFIX)] if self.file.suffix == SUFFIX else self.file.stem
        folder = self.file.parent
        if stated:
            there = resolved(stated.replace("\0", ""), folder)
            if is_file(there):
                return there
        for base in (self.reading.images, folder, folder / "images"):
            if base is not None and is_image(name) and is_file(base / name):
                return base / name
        wanted = name if is_image(name) else f"{name}.png"
        below = self.reading.root if self.reading.root.is_dir() else folder
        own = self.file.relative_to(below).parent / name
        return self.reading.find(own.as_posix(), near=self.file) or folder / wanted

    # ---- features --------------------------------------------------------------------------

    def _add(self, feature: Any, place: str) -> None:
        if not isinstance(feature, Mapping):
            self.report(codes.ILL_FORMED_ENTRY, place, "is no feature, left out")
            return
        properties = _properties(feature)
        kind = str(properties.get("objectType", feature.get("id", UNNAMED))).lower()
        kind = kind if kind in OBJECTS else UNNAMED
        name = _class_of(properties)
        if _is_field(name) or (properties.get("objectType") in ("root", "tmaCore")):
            return
        outlines = _outlines(feature.get("geometry"))
        if not outlines:
            self.report(codes.UNUSABLE_SHAPE, place, "no polygon of finite corners, left out")
            self.regions += [Region.nothing()] if is_region(name) else []
            return
        drawn = DrawnShape.polygons([one_ring(rings) for rings in outlines]).into(self.frame)
        if is_region(name):
            self.regions.append(drawn.region)
        elif name is None and kind in ANNOTATIONS:
            what = "annotation without a class, left out: name it `Region*` if all in it is marked"
            self.report(codes.UNNAMED_CLASS, place, what)
        else:
            self._add_cell(feature, name, drawn, place)

    def _add_cell(self, feature: JsonView, name: str | None, drawn: DrawnShape, place: str) -> None:
        box: Box | None = self.reading.box(drawn.box, self.frame.size, self.file, place)
        if box is None:
            return
        properties = _properties(feature)
        if feature.get("nucleusGeometry") is not None:
            self.reading.unread("outline of the nucleus")
        said = _measured(properties.get("measurements")) | _texts(properties.get("metadata"))
        own = said.pop(ID, None) or feature.get("id")
        said.pop(ISSUES, None)
        marked = said.pop(TO_IGNORE, "") == "yes"
        plain = (name or UNNAMED).strip()
        marked = marked or plain.endswith("*")
        plain = plain.removesuffix("*").strip() or UNNAMED
        legacy = isinstance(own, str) and own.lower() in OBJECTS
        ident = None if own is None or legacy else str(own)
        self.cells.append(
            self.reading.cell(plain, box, said, ignore=marked, id=ident, outline=drawn.outline)
        )


def _is_field(name: str | None) -> bool:
    """Whether a class is that of the annotation around the image, which says what is known."""
    return name is not None and name.partition(":")[0].strip() == FIELD


def _features(content: Any, file: Path, depth: int = 0) -> Iterator[Any]:
    """Yield every feature, those within others (`childObjects`) after them."""
    if isinstance(content, Mapping) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    elif isinstance(content, Mapping) and content.get("type") == "Feature":
        content = [content]
    if not isinstance(content, list):
        raise DataError(f"{file}: holds no list of features; export it from QuPath as GeoJSON")
    for feature in content:
        yield feature
        inner = _properties(feature) if isinstance(feature, Mapping) else {}
        children = inner.get("childObjects", inner.get("children"))
        if isinstance(children, list) and depth < MAX_DEPTH:
            yield from _features(children, file, depth + 1)


def _properties(feature: JsonView) -> JsonView:
    found = feature.get("properties")
    return found if isinstance(found, Mapping) else {}


def _class_of(properties: JsonView) -> str | None:
    """Return the class an object bears; of a derived class all its names."""
    found = properties.get("classification")
    if isinstance(found, str):
        return found or None
    if not isinstance(found, Mapping):
        return None
    names = found.get("names")
    if isinstance(names, list) and names:
        return ": ".join(map(str, names))
    return str(found["name"]) if found.get("name") else None


def _texts(value: Any) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {str(k): str(v) for k, v in pairs if isinstance(v, str | int | float)}


def _measurements(value: Any) -> JsonView:
    if isinstance(value, list):  # as QuPath wrote them before version 0.4
        return {str(m.get("name")): m.get("value") for m in value if isinstance(m, Mapping)}
    return value if isinstance(value, Mapping) else {}


def _measured(value: Any) -> dict[str, str]:
    """Return the attributes that measurements give as codes; other measurements are passed over."""
    found = {}
    measurements = _measurements(value)
    for attribute in LLD_SCHEMA.attributes:
        code = to_int(measurements.get(attribute.name))
        if code is not None and 0 <= code < len(attribute.values):
            found[attribute.name] = attribute.values[code]
    return found


def _outlines(geometry: Any) -> list[Rings]:
    """Return the rings of each polygon of a geometry, the outline first; none if it has none."""
    if not isinstance(geometry, Mapping) or not isinstance(geometry.get("coordinates"), list):
        return []
    many = {"Polygon": [geometry["coordinates"]], "MultiPolygon": geometry["coordinates"]}
    outlines = []
    for polygon in many.get(str(geometry.get("type")), ()):
        rings = [_ring(ring) for ring in polygon] if isinstance(polygon, list) else []
        if not rings or any(len(ring) < 3 for ring in rings):
            return []
        outlines.append(rings)
    return outlines


def _ring(ring: Any) -> list[tuple[float, float]]:
    """Return a ring's corners, the first not repeated at the end; none if one is no point."""
    points: list[tuple[float, float]] = []
    for item in ring if isinstance(ring, list) else ():
        pair = to_floats(item[:2] if isinstance(item, list) else item, 2)
        if pair is None or not all(abs(v) < 1e12 for v in pair):
            return []
        points.append((pair[0], pair[1]))
    return points[:-1] if len(points) > 3 and points[0] == points[-1] else points
