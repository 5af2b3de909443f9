"""Read the areas that somebody drew on a slide: annotations of a GeoJSON file, as of QuPath."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import checked
from bloodfilm.core.polygons import Region
from bloodfilm.formats.shared.parsing import read_json
from bloodfilm.formats.shared.shapes import Points, one_ring

_OBJECTS = frozenset({"cell", "detection", "tile"})
_PARTS = {
    "FeatureCollection": "features",
    "Feature": "geometry",
    "GeometryCollection": "geometries",
}
_MAX_DEPTH = 8


MOST_PX = 1e9
"""Of a corner: no slide is as large."""


def read_regions(path: Path) -> Region:
    """Return all areas of a GeoJSON file as one region, in px of full resolution.

    Polygons and multipolygons count, with their holes; detections, cells, lines and points do not.

    Raises:
        DataError: if the file is no GeoJSON, or holds no area.
    """
    document = read_json(path)
    shapes = [Region.polygon(one_ring(rings)) for rings in _polygons(document, path, 0)]
    if not shapes:
        raise DataError(f"{path}: holds no area; draw one or more annotations and export them")
    return Region.union(shapes)


def _polygons(item: Any, path: Path, depth: int) -> Iterator[list[Points]]:
    if depth > _MAX_DEPTH:
        raise DataError(f"{path}: is nested more than {_MAX_DEPTH} deep; export it again")
    if isinstance(item, list):
        for part in item:
            yield from _polygons(part, path, depth + 1)
        return
    if not isinstance(item, Mapping):
        raise DataError(f"{path}: is no GeoJSON of features; export annotations from QuPath")
    kind = item.get("type")
    parts = _PARTS.get(str(kind))
    if parts is not None:
        properties = item.get("properties") or {}
        if str(properties.get("objectType", "annotation")).lower() not in _OBJECTS:
            yield from _polygons(item.get(parts) or [], path, depth + 1)
    elif kind == "Polygon":
        yield _rings(item.get("coordinates"), path)
    elif kind == "MultiPolygon":
        for part in item.get("coordinates") or ():
            yield _rings(part, path)


def _px(value: Any) -> float:
    return checked(value, -MOST_PX, MOST_PX)


def _rings(coordinates: Any, path: Path) -> list[Points]:
    try:
        rings = [[(_px(p[0]), _px(p[1])) for p in ring] for ring in coordinates]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        why = str(error) if isinstance(error, ValueError) else "no list of x, y pairs"
        raise DataError(f"{path}: a polygon's corners are wrong ({why}); export it again") from None
    # The last corner repeats the first.
    rings = [ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring for ring in rings]
    if not rings or any(len(ring) < 3 for ring in rings):
        raise DataError(f"{path}: a polygon has fewer than three corners; export it again")
    return [tuple(ring) for ring in rings]
