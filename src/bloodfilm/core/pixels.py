"""The physical size of pixels: what is known beforehand, and what an analysis used."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from bloodfilm.core.errors import DataError
from bloodfilm.core.figures import MOST_PIXELS, number, number_or_none, share, um_per_px, whole

ScaleSource = Literal["measured", "pooled", "metadata", "user", "assumed"]
"""`measured` in this field, `pooled` over its group, `metadata` of the file, `user`, `assumed`."""

Ruler = Literal["outlines", "detector"]
"""What found the red cells that were measured: their own outlines, or a detector's boxes."""

RED_CELL_UM = 7.5
"""Diameter of a red cell, unless that of a folder's red cells is known."""
_MOST_WHITE = 1000.0
"""Of a channel of the white point: uneven light divided out may lift it beyond 255."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """Micrometres per pixel along each axis, and where the figures come from.

    Attributes:
        um_per_px_x, um_per_px_y: micrometres per pixel; both positive.
        source: where they come from.
        confidence: in [0, 1]; 0 where they are assumed.

    >>> PixelSize(0.2, 0.1, "user", 1.0).aspect_ratio
    0.5
    """

    um_per_px_x: float
    um_per_px_y: float
    source: ScaleSource
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if not (self.um_per_px_x > 0 and self.um_per_px_y > 0):
            raise DataError(
                f"pixel size: {self.um_per_px_x:g} x {self.um_per_px_y:g} um per px; "
                "both must be positive"
            )

    @property
    def aspect_ratio(self) -> float:
        """Width / height, in pixels, of what is round on the glass."""
        return self.um_per_px_y / self.um_per_px_x

    def transposed(self) -> "PixelSize":
        """Return the size of the pixels of the picture turned by a quarter.

        >>> PixelSize(0.2, 0.1, "metadata").transposed().um_per_px_y
        0.2
        """
        return replace(self, um_per_px_x=self.um_per_px_y, um_per_px_y=self.um_per_px_x)


@dataclass(frozen=True, slots=True)
class ViewRecord:
    """How a field was brought to the canonical view: scale, aspect, light and white point.

    Attributes:
        um_per_px_x, um_per_px_y: micrometres per pixel of the original.
        scale_source, aspect_source: where scale and pixel aspect ratio come from.
        confidence: in both, in [0, 1]; 0 where they are assumed.
        white_point: background colour of the original in even light, RGB.
        red_cells: whole single red cells measured in this field.
        width, height: of the original, pixels.
        sharpness: variance of the Laplacian of the canonical view; `None` for an empty field.
        illumination: the uneven light that was divided out: `method` (`none`, `field` for one
            estimated from this field, `folder` for the common one of its folder), `strength`
            (range over the field, natural logarithm), `fields`, and the map itself.
        veiling_glare: stray light that was subtracted, as a share of the background's light.
        round_field: centre x, y and radius, pixels of the original, of a round field of view on
            black; `None` for an ordinary field.
        ruler: what found the red cells that were measured.
        film_score: in [0, 1], evidence for a blood film; `None` where that was not asked or nothing
            is on the glass.
        metadata_um_per_px: along x and y, according to the file's metadata, if they state it.
        red_cell_um: diameter of the red cells that give the scale, micrometres: 7.5, or what the
            granulocytes of the folder say it is.
        film_cells: cells of the film by which its cells are named; 0 where each is named by itself.
    """

    um_per_px_x: float
    um_per_px_y: float
    scale_source: ScaleSource
    aspect_source: ScaleSource
    confidence: float
    white_point: tuple[float, float, float]
    red_cells: int
    width: int
    height: int
    sharpness: float | None = None
    illumination: Mapping[str, Any] = field(default_factory=lambda: {"method": "none"})
    veiling_glare: float = 0.0
    round_field: tuple[float, float, float] | None = None
    ruler: Ruler = "outlines"
    film_score: float | None = None
    metadata_um_per_px: tuple[float, float] | None = None
    red_cell_um: float = RED_CELL_UM
    film_cells: int = 0

    @property
    def pixel_aspect_ratio(self) -> float:
        """Width / height, in original pixels, of what is round on the glass."""
        return self.um_per_px_y / self.um_per_px_x

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        plain["white_point"] = list(self.white_point)
        plain["round_field"] = None if self.round_field is None else list(self.round_field)
        plain["illumination"] = dict(self.illumination)
        stated, red_cell_um = plain.pop("metadata_um_per_px"), plain.pop("red_cell_um")
        if stated is not None:
            plain["metadata_um_per_px"] = list(stated)
        if red_cell_um != RED_CELL_UM:
            plain["red_cell_um"] = red_cell_um
        if not self.film_cells:
            del plain["film_cells"]
        return plain

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ViewRecord":
        """Read what `to_json` wrote; `DataError` if it is not a view."""
        try:
            for key in ("scale_source", "aspect_source"):
                if data[key] not in get_args(ScaleSource):
                    raise ValueError(f"{key} {str(data[key])[:40]!r}")
            r, g, b = (number(v, "white_point", 0, _MOST_WHITE) for v in data["white_point"])
            known = {
                **data,
                "um_per_px_x": um_per_px(data["um_per_px_x"], "um_per_px_x"),
                "um_per_px_y": um_per_px(data["um_per_px_y"], "um_per_px_y"),
                "confidence": share(data["confidence"], "confidence"),
                "white_point": (r, g, b),
                "red_cells": whole(data["red_cells"], "red_cells"),
                "width": whole(data["width"], "width", 1, MOST_PIXELS),
                "height": whole(data["height"], "height", 1, MOST_PIXELS),
                "sharpness": number_or_none(data.get("sharpness"), "sharpness", 0),
                "veiling_glare": share(data.get("veiling_glare", 0.0), "veiling_glare"),
                "film_score": number_or_none(data.get("film_score"), "film_score", 0, 1),
                "film_cells": whole(data.get("film_cells", 0), "film_cells"),
                "red_cell_um": number(data.get("red_cell_um", RED_CELL_UM), "red_cell_um", 1, 30),
            }
            if known.get("round_field") is not None:
                x, y, radius = (number(v, "round_field") for v in known["round_field"])
                known["round_field"] = (x, y, number(radius, "round_field", 0))
            if known.get("metadata_um_per_px") is not None:
                um_x, um_y = (um_per_px(v, "metadata") for v in known["metadata_um_per_px"])
                known["metadata_um_per_px"] = (um_x, um_y)
            if known.get("ruler", "outlines") not in get_args(Ruler):
                raise ValueError(f"ruler {str(known['ruler'])[:40]!r}")
            return cls(**known)
        except DataError as error:
            raise DataError(f"view: {error}") from None
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise DataError(f"view: not the record of one ({error!r})") from None
