"""Shapes and names that annotation programs share: regions, outlines, turned boxes, colours."""

import colorsys
import math
from collections.abc import Iterable, Sequence

from bloodfilm.core import Box

Points = Sequence[tuple[float, float]]
Colour = tuple[int, int, int]

REGION = "annotated region"
"""The label of a shape in which every cell is marked."""
REGION_NAMES = frozenset({REGION, "region", "region*", "region to mark"})
FIELD = "field"
"""The label of what carries patient, split, diagnosis, domain of an image."""
IGNORE, UNNAMED = "ignore", "unnamed"
UNKNOWN = "unknown"
NOTHING, SHAPES = "nothing", "shapes"
"""How a file says that nothing of a field is known, or what its region shapes cover."""
GREY: Colour = (128, 128, 128)


def is_region(name: str | None) -> bool:
    """Whether a shape of that label says where every cell is marked."""
    return name is not None and name.strip().lower() in REGION_NAMES


def around(points: Iterable[Sequence[float]]) -> Box:
    """Return the box around points."""
    listed = [(float(p[0]), float(p[1])) for p in points]
    xs, ys = zip(*listed, strict=True)
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def corners(box: Box) -> tuple[tuple[float, float], ...]:
    """Return a box's corners, from the top left one, turning right."""
    x, y, w, h = box
    return (x, y), (x + w, y), (x + w, y + h), (x, y + h)


def turned(box: Box, degrees: float, about: tuple[float, float]) -> Box:
    """Return the upright box around one that is turned clockwise about a point."""
    if not math.isfinite(degrees) or degrees % 360 == 0:
        return box
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    cx, cy = about
    return around(
        (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
        for x, y in corners(box)
    )


def one_ring(rings: Sequence[Points]) -> tuple[tuple[float, float], ...]:
    """Return an outline and its holes as one polygon, joined by slits that have no area."""
    outline = [(float(p[0]), float(p[1])) for p in rings[0]]
    for hole in rings[1:]:
        inner = [(float(p[0]), float(p[1])) for p in hole]
        outline += [outline[0], *inner, inner[0]]
    return tuple(outline)


def colours(names: Iterable[str]) -> dict[str, Colour]:
    """Return a colour for each name, spread over the hues; grey for what is to be ignored."""
    listed = [n for n in dict.fromkeys(names) if n not in (IGNORE, UNNAMED, FIELD)]
    found = {}
    for number, name in enumerate(listed):
        red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1.0, 0.45, 0.75)
        found[name] = (round(255 * red), round(255 * green), round(255 * blue))
    return found | dict.fromkeys((IGNORE, UNNAMED, FIELD), GREY)


def hexadecimal(colour: Colour) -> str:
    """Return a colour as programs for the web write it."""
    return "#" + "".join(f"{part:02x}" for part in colour)
