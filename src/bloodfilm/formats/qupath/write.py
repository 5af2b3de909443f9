"""Write QuPath's GeoJSON: one file of objects for each image.

Attributes are written twice: in words as metadata, and as codes among the measurements, by which
QuPath can sort and colour, and which its versions before 0.5 keep.
"""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from bloodfilm.core import Cell, DataError, Dataset, Field, Schema
from bloodfilm.formats.native.records import origin_to_json
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
    Colour,
    colours,
    corners,
)

Json = dict[str, Any]
SUFFIX = ".geojson"
REGION_CLASS = "Region*"
ID, TO_IGNORE, IMAGE = "id", "ignore", "image"
RESERVED = frozenset({ID, TO_IGNORE})
FIELD_KEYS = frozenset({"patient", "split", "diagnosis", "domain", "meta"})
PACKED = frozenset({"domain", "meta"})
"""Metadata of the annotation `field` that hold JSON."""


def write(dataset: Dataset, path: Path, **options: Unpack[WriteOptions]) -> list[str]:
    """Write `IMAGE.geojson` for each image into a folder, or one `*.geojson`; return losses.

    Raises:
        DataError: if one file is named for a data set of several images.
    """
    path = Path(path)
    single = path.suffix.lower() == SUFFIX
    if single and len(dataset) != 1:
        raise DataError(f"{path}: one file holds the objects of one image; name a folder")
    losses = Losses()
    losses.vocabulary(dataset, "taxonomy", "schema", "licence")
    shades = colours([*dataset.taxonomy.names, IGNORE, UNNAMED, REGION_CLASS])
    with output(path.parent if single else path, fresh=not single, **options) as out:
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
    if not item.region.is_everything:
        said["region"] = NOTHING if item.region.is_nothing else SHAPES
    whole = corners((0.0, 0.0, float(size[0]), float(size[1])))
    features = [_feature(whole, "annotation", FIELD, shades, {"isLocked": True, "metadata": said})]
    for polygon in item.region.polygons or ():
        features.append(_feature(polygon, "annotation", REGION_CLASS, shades, {}))
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
    own = _uuid(cell.id)
    if cell.id is not None and own is None:
        said[ID] = cell.id
    label = cell.label or ("Ignore*" if cell.ignore else UNNAMED)
    both = {"measurements": measured, "metadata": said}
    more = {key: value for key, value in both.items() if value}
    made = _feature(corners(cell.box or (0, 0, 0, 0)), "detection", label, shades, more)
    return made if own is None else {"type": "Feature", "id": own} | made


def _uuid(ident: str | None) -> str | None:
    """Return an identity if it is a UUID as QuPath writes them: it takes no other."""
    try:
        return ident if ident is not None and str(uuid.UUID(ident)) == ident else None
    except ValueError:
        return None


def _feature(
    polygon: Sequence[tuple[float, float]],
    kind: str,
    label: str,
    shades: dict[str, Colour],
    more: Json,
) -> Json:
    colour = shades.get(label, shades[IGNORE])
    ring = [[float(x), float(y)] for x, y in (*polygon, polygon[0])]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": kind,
            "classification": {"name": label, "color": list(colour)},
            **more,
        },
    }
