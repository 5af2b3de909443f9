"""Outlines of one cell and its nucleus, and what is measured on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bloodfilm.core.arrays import Colour
from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import number, number_or_none, numbers, share, whole

Point = tuple[float, float]
Polygon = tuple[Point, ...]
_HALF_WAY = 1e-6
_MEASURES = (
    "area_um2",
    "nucleus_area_um2",
    "diameter_um",
    "length_um",
    "width_um",
    "circularity",
)


@dataclass(frozen=True, slots=True)
class CellShape:
    """Outlines of one cell and its nucleus, and what is measured on them.

    Attributes:
        outline: of the cell, corners (x, y) in pixels of the original image.
        nucleus: outlines of the pieces of the nucleus; none where no nucleus is seen.
        area_um2, nucleus_area_um2: areas.
        diameter_um: of the circle that has the cell's area.
        length_um, width_um: sides of the smallest rectangle, at any angle, around the cell.
        nucleus_ratio: area of the nucleus as a share of the cell's, 0 to 1. The ratio of nucleus
            to cytoplasm is `nucleus_ratio / (1 - nucleus_ratio)`.
        circularity, nucleus_circularity: 4 pi area / perimeter^2; 1 is a circle. `None` for a
            nucleus that is not seen or in several pieces.
        lobes: of the nucleus, that thin bridges connect or gaps separate; 0 where none is seen.
        nucleus_rgb, cytoplasm_rgb: mean colours, white-balanced, 0 to 255; `None` where no pixel
            belongs to it.
    """

    outline: Polygon
    nucleus: tuple[Polygon, ...]
    area_um2: float
    nucleus_area_um2: float
    diameter_um: float
    length_um: float
    width_um: float
    nucleus_ratio: float
    circularity: float
    nucleus_circularity: float | None
    lobes: int
    nucleus_rgb: Colour | None
    cytoplasm_rgb: Colour | None

    @property
    def polygons(self) -> tuple[tuple[str, Polygon], ...]:
        """All outlines, each with the key that it has in a record."""
        return ("outline", self.outline), *(("nucleus", piece) for piece in self.nucleus)

    def moved(self, x: float, y: float) -> "CellShape":
        """Return the shape with its outlines shifted, px."""

        def shifted(polygon: Polygon) -> Polygon:
            return tuple((a + x, b + y) for a, b in polygon)

        pieces = tuple(shifted(piece) for piece in self.nucleus)
        return replace(self, outline=shifted(self.outline), nucleus=pieces)

    def to_json(self) -> dict[str, Any]:
        """Return plain data, numbers rounded to meaningful precision."""
        return {
            "outline": _flat(self.outline),
            "nucleus": [_flat(piece) for piece in self.nucleus],
            "area_um2": round(self.area_um2, 2),
            "nucleus_area_um2": round(self.nucleus_area_um2, 2),
            "diameter_um": round(self.diameter_um, 2),
            "length_um": round(self.length_um, 2),
            "width_um": round(self.width_um, 2),
            "nucleus_ratio": round(self.nucleus_ratio, 3),
            "circularity": round(self.circularity, 3),
            "nucleus_circularity": None
            if self.nucleus_circularity is None
            else round(self.nucleus_circularity, 3),
            "lobes": self.lobes,
            "nucleus_rgb": _listed(self.nucleus_rgb),
            "cytoplasm_rgb": _listed(self.cytoplasm_rgb),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "CellShape":
        """Read `to_json` data; DataError, KeyError, TypeError or ValueError if it is malformed."""
        measured = {key: number(data[key], key, 0) for key in _MEASURES}
        return cls(
            outline=_polygon(data["outline"], "outline"),
            nucleus=tuple(_polygon(piece, "nucleus") for piece in data["nucleus"]),
            **measured,
            nucleus_ratio=share(data["nucleus_ratio"], "nucleus_ratio"),
            nucleus_circularity=number_or_none(
                data["nucleus_circularity"], "nucleus_circularity", 0
            ),
            lobes=whole(data["lobes"], "lobes"),
            nucleus_rgb=_colour(data["nucleus_rgb"], "nucleus_rgb"),
            cytoplasm_rgb=_colour(data["cytoplasm_rgb"], "cytoplasm_rgb"),
        )


def _flat(polygon: Polygon) -> list[float]:
    """Return x1, y1, x2, y2, ... as COCO has them, rounded to a tenth as `round` does.

    >>> _flat(((0.25, 0.35), (1.0, 12.34567)))
    [0.2, 0.3, 1.0, 12.3]
    """
    # A film has hundreds of corners a cell: all at once takes a fifth of the time.
    tenths = np.asarray(polygon, dtype=np.float64).ravel() * 10
    whole_tenths = np.rint(tenths)
    if (np.abs(np.abs(tenths - whole_tenths) - 0.5) < _HALF_WAY).any():
        # There the binary value decides, which the product may have rounded.
        return [round(value, 1) for point in polygon for value in point]
    flat: list[float] = (whole_tenths / 10).tolist()
    return flat


def _polygon(values: Sequence[Any], key: str) -> Polygon:
    flat = numbers(values, key)
    if len(flat) < 6 or len(flat) % 2:
        raise DataError(f"{key}: an outline of {len(flat)} numbers")
    return tuple(zip(flat[::2], flat[1::2], strict=True))


def _listed(colour: Colour | None) -> list[int] | None:
    return None if colour is None else list(colour)


def _colour(values: Sequence[Any] | None, key: str) -> Colour | None:
    if values is None:
        return None
    red, green, blue = (whole(v, key, 0, 255) for v in values)
    return red, green, blue
