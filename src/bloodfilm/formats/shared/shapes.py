"""Shapes and names that annotation programs share: regions, outlines, turned boxes, colours."""

import colorsys
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bloodfilm.core import Box, Region
from bloodfilm.core.arrays import Colour
from bloodfilm.formats.shared.frames import Frame

Points = Sequence[tuple[float, float]]

REGION = "annotated region"
"""The label of a shape in which every cell is marked."""
REGION_NAMES = frozenset({REGION, "region", "region*", "region to mark"})
FIELD = "field"
"""The label of what carries patient, split, diagnosis, domain of an image."""
IGNORE, UNNAMED = "ignore", "unnamed"
UNKNOWN = "unknown"
NOTHING, SHAPES = "nothing", "shapes"
"""How a file says that nothing of a field is known, or what its region shapes cover."""
ELLIPSE_POINTS = 72
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


def turned_corners(
    box: Box, degrees: float, about: tuple[float, float]
) -> tuple[tuple[float, float], ...]:
    """Return the corners of a box that is turned clockwise about a point."""
    sin, cos = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    cx, cy = about
    return tuple(
        (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
        for x, y in corners(box)
    )


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse in pixels: its centre, its half axes, and how far it is turned clockwise.

    >>> Ellipse(100, 50, 10, 10, 45).hull
    (90.0, 40.0, 20.0, 20.0)
    """

    x: float
    y: float
    rx: float
    ry: float
    degrees: float = 0.0

    @property
    def hull(self) -> Box:
        """The upright box around it, in closed form."""
        sin, cos = math.sin(math.radians(self.degrees)), math.cos(math.radians(self.degrees))
        across = math.hypot(self.rx * cos, self.ry * sin)
        down = math.hypot(self.rx * sin, self.ry * cos)
        return self.x - across, self.y - down, 2 * across, 2 * down

    @property
    def polygon(self) -> tuple[tuple[float, float], ...]:
        """Points on it, from which it differs by less than a thousandth of its size."""
        sin, cos = math.sin(math.radians(self.degrees)), math.cos(math.radians(self.degrees))
        points = []
        for number in range(ELLIPSE_POINTS):
            angle = 2 * math.pi * number / ELLIPSE_POINTS
            u, v = self.rx * math.cos(angle), self.ry * math.sin(angle)
            points.append((self.x + u * cos - v * sin, self.y + u * sin + v * cos))
        return tuple(points)


@dataclass(frozen=True, slots=True)
class DrawnShape:
    """A shape that somebody drew.

    Attributes:
        box: the upright box around it.
        outline: its polygons, of which a field's region or a cell's outline is made; `None` for an
            upright rectangle, which is its box.
    """

    box: Box
    outline: Region | None = None

    @classmethod
    def rectangle(
        cls, box: Box, degrees: float = 0.0, about: tuple[float, float] | None = None
    ) -> "DrawnShape":
        """A rectangle turned clockwise about a point, by default its middle."""
        if not math.isfinite(degrees) or degrees % 360 == 0:
            return cls(box)
        x, y, w, h = box
        return cls.polygons([turned_corners(box, degrees, about or (x + w / 2, y + h / 2))])

    @classmethod
    def ellipse(cls, ellipse: Ellipse) -> "DrawnShape":
        """An ellipse."""
        return cls(ellipse.hull, Region.polygon(ellipse.polygon))

    @classmethod
    def polygons(cls, polygons: Sequence[Points]) -> "DrawnShape":
        """Polygons that add up; `DataError` if one has fewer than three finite corners."""
        region = Region.union(Region.polygon(polygon) for polygon in polygons)
        box = around(point for polygon in polygons for point in polygon)
        return cls(box, None if len(polygons) == 1 and is_rectangle(polygons[0]) else region)

    def into(self, frame: Frame) -> "DrawnShape":
        """Return the shape in the picture of a frame."""
        return DrawnShape(frame.box(self.box), self.outline and frame.region(self.outline))

    @property
    def region(self) -> Region:
        """The shape as a region."""
        return Region.rect(*self.box) if self.outline is None else self.outline


def polygon_area(points: Points) -> float:
    """Return the area of a polygon that does not cross itself, in square pixels."""
    total = 0.0
    for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
        total += x1 * y2 - x2 * y1
    return abs(total) / 2


def is_rectangle(points: Points) -> bool:
    """Whether a polygon is an upright rectangle, so that its box says the same."""
    if len(points) not in (4, 5) or (len(points) == 5 and points[0] != points[4]):
        return False
    return sorted(set(map(tuple, points))) == sorted(set(corners(around(points))))


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
