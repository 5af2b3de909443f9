"""Write QuPath's GeoJSON: one file of objects for each image.

QuPath before version 0.6 drops the metadata of annotations and detections when it imports them. So
what must not be lost stands where every version keeps it, too: attributes as codes among the
measurements, "to be ignored" as the star that ends a class name, and what is known of the image in
the class of the annotation around it (`field: everything`, `field: nothing`, `field: shapes`).
"""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from bloodfilm.core import Cell, DataError, Dataset, Field, Schema
from bloodfilm.core.arrays import Colour, Json
from bloodfilm.core.issues import Issue
from bloodfilm.formats.native.records import origin_to_json
from bloodfilm.formats.shared.class_names import name_of
from bloodfilm.formats.shared.output import (
    Losses,
    Output,
    WriteOptions,
    finish,
    output,
    size_for_writing,
    unique_names,
)
from bloodfilm.formats.shared.paths import relative
from bloodfilm.formats.shared.shapes import (
    FIELD,
    IGNORE,
    NOTHING,
    SHAPES,
    UNNAMED,
    Points,
    colours,
    corners,
)

SUFFIX = ".geojson"
REGION_CLASS = "Region*"
ID, TO_IGNORE, IMAGE = "id", "ignore", "image"
SCORE, CLASS_SCORE, UNCERTAIN, ISSUES = "score", "class_score", "uncertain", "issues"
"""Measurements, and the last one metadata, of a cell that a model proposes."""
RESERVED = frozenset({ID, TO_IGNORE, SCORE, CLASS_SCORE, UNCERTAIN, ISSUES})
FIELD_KEYS = frozenset({"patient", "split", "diagnosis", "domain", "meta"})
EVERYTHING = "everything"
CODES = (EVERYTHING, NOTHING, SHAPES)
"""What is known of an image, in the class `field: ...` and as a measurement."""
REGION_CODE = "region"
PACKED = frozenset({"domain", "meta"})
"""Metadata of the annotation `field` that hold JSON."""


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[Issue]:
    """Write `IMAGE.geojson` for each image into a folder, or one `*.geojson`; return losses.

    Raises:
        DataError: if one file is named for a data set of several images.
    """
    path = Path(path)
    single = path.suffix.lower() == SUFFIX
    if single and len(dataset) != 1:
        raise DataError(f"{path}: one file holds the objects of one image; name a folder")
    losses = Losses(keeps_predictions=True)
    losses.vocabulary(dataset, "taxonomy", "schema", "licence")
    shades = colours([*dataset.taxonomy.names, IGNORE, UNNAMED, REGION_CLASS])
    root, target = (path.parent, path) if single else (path, None)
    with output(root, fresh=not single, target=target, **options) as out:
        for item, name in zip(dataset, unique_names(dataset.fields), strict=True):
            image = out.image(item.path, f"images/{name}") if out.images else item.path
            size = size_for_writing(item, losses)
            if size is not None:
                features = _features(item, image, size, (out, losses, shades, dataset.schema))
                content = {"type": "FeatureCollection", "features": features}
                out.json(path.name if single else f"{name}{SUFFIX}", content)
    return finish(out, losses)


def _features(
    item: Field,
    image: Path,
    size: tuple[int, int],
    means: tuple[Output, Losses, dict[str, Colour], Schema],
) -> list[Json]:
    out, losses, shades, schema = means
    said = {IMAGE: relative(image, out.root), "width": str(size[0]), "height": str(size[1])}
    for key, value in origin_to_json(item).items():
        if key in FIELD_KEYS:
            said[key] = json.dumps(value) if key in PACKED else str(value)
    kind = EVERYTHING if item.region.is_everything else SHAPES
    kind = NOTHING if item.region.is_nothing else kind
    said["region"] = kind
    whole = corners((0.0, 0.0, float(size[0]), float(size[1])))
    more = {"isLocked": True, "metadata": said, "measurements": {REGION_CODE: CODES.index(kind)}}
    features = [_feature([whole], "annotation", f"{FIELD}: {kind}", shades, more)]
    for polygon in item.region.polygons or ():
        features.append(_feature([polygon], "annotation", REGION_CLASS, shades, {}))
    for cell in losses.boxed(item):
        features.append(_cell(cell, shades, losses, schema))
    return features


def _cell(cell: Cell, shades: dict[str, Colour], losses: Losses, schema: Schema) -> Json:
    said: dict[str, str] = {}
    measured: dict[str, int] = {}
    for name, value in cell.attributes.items():
        if name in RESERVED:
            losses.add(f"attribute {name} (taken for something else)")
        else:
            said[name] = value
            if name in schema and value in schema[name].values:
                measured[name] = schema[name].index(value)
    if cell.ignore:
        said[TO_IGNORE] = "yes"
    scores: dict[str, float] = {}
    if cell.prediction is not None:
        scores = {SCORE: cell.prediction.score, CLASS_SCORE: cell.prediction.class_score}
        measured[UNCERTAIN] = int(cell.prediction.uncertain)
        if cell.prediction.issues:
            said[ISSUES] = " ".join(cell.prediction.issues)
    own = _uuid(cell.id)
    if cell.id is not None and own is None:
        said[ID] = cell.id
    label = name_of(cell, "Ignore", UNNAMED)
    if label.endswith("*"):
        losses.add(f"the star of class {label!r} (QuPath takes it for one to ignore)")
        label = label.rstrip("* ") or UNNAMED
    label += "*" if cell.ignore else ""  # QuPath passes over such classes; every version keeps it
    both: Json = {"measurements": scores | measured, "metadata": said}
    more = {key: value for key, value in both.items() if value}
    shape: Sequence[Points] = [corners(cell.box or (0, 0, 0, 0))]
    if cell.outline is not None and cell.outline.polygons:
        shape = cell.outline.polygons
    made = _feature(shape, "detection", label, shades, more)
    return made if own is None else {"type": "Feature", "id": own} | made


def _uuid(ident: str | None) -> str | None:
    """Return an identity if it is a UUID as QuPath writes them: it takes no other."""
    try:
        return ident if ident is not None and str(uuid.UUID(ident)) == ident else None
    except ValueError:
        return None


def _feature(
    polygons: Sequence[Points], kind: str, label: str, shades: dict[str, Colour], more: Json
) -> Json:
    colour = shades.get(label.rstrip("*"), shades[IGNORE])
    rings = [[[[float(x), float(y)] for x, y in (*p, p[0])]] for p in polygons]
    names = label.split(": ") if label.startswith(f"{FIELD}: ") else None
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if len(rings) == 1 else "MultiPolygon",
            "coordinates": rings[0] if len(rings) == 1 else rings,
        },
        "properties": {
            "objectType": kind,
            "classification": ({"names": names} if names else {"name": label})
            | {"color": list(colour)},
            **more,
        },
    }
