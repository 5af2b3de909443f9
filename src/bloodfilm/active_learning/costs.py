"""Annotation cost: boxes, clicks and minutes at given rates, and savings by regions."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from bloodfilm.core import Field


@dataclass(frozen=True)
class Rates:
    """Annotation times per box and field. The defaults are assumptions: measure your own.

    Attributes:
        box_seconds: to draw one box and choose its class.
        field_seconds: to open a field, find the region and check it.
        box_clicks: clicks per box: two corners and the class.
    """

    box_seconds: float = 7.0
    field_seconds: float = 5.0
    box_clicks: int = 3

    def minutes(self, boxes: float, fields: float) -> float:
        """Return the minutes for a number of boxes and fields."""
        return (boxes * self.box_seconds + fields * self.field_seconds) / 60


@dataclass(frozen=True)
class Cost:
    """Cost of a data set's annotation, and of its full annotation.

    Attributes:
        fields: with an annotated region; unmarked: fields with no region.
        area_share: annotated share of the area of all fields; `None` if sizes are unknown.
        boxes, clicks, minutes: of the annotated regions.
        full_boxes, full_clicks, full_minutes: of a full annotation; estimated where
            `estimated`: from the density of boxes in all annotated regions together.
        planned: whether the regions are a plan that nobody annotated yet.
    """

    fields: int
    unmarked: int
    area_share: float | None
    boxes: int
    clicks: int
    minutes: float
    full_boxes: float
    full_clicks: float
    full_minutes: float
    estimated: bool
    planned: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON-compatible data."""
        return asdict(self)


def cost_of(fields: Iterable[Field], rates: Rates, full: Iterable[Field] | None = None) -> Cost:
    """Return a data set's annotation cost.

    Args:
        fields: with their regions; sizes must be known for the share of the area.
        rates: of an annotator.
        full: the same fields annotated in full, if available: nothing is estimated then.
    """
    items = list(fields)
    shares = [marked_share(item) for item in items]
    boxes = [sum(c.box is not None and not c.ignore for c in item.cells) for item in items]
    opened = sum(not item.region.is_nothing for item in items)
    total = sum(boxes)
    if full is not None:
        truth = [sum(c.box is not None and not c.ignore for c in item.cells) for item in full]
        all_boxes = float(sum(truth))
    else:
        all_boxes = _extrapolated(boxes, shares)
    areas = [(item.width or 0) * (item.height or 0) for item in items]
    known = all(share is not None for share in shares) and sum(areas) > 0
    marked = sum(a * (s or 0.0) for a, s in zip(areas, shares, strict=True))
    return Cost(
        fields=opened,
        unmarked=len(items) - opened,
        area_share=marked / sum(areas) if known else None,
        boxes=total,
        clicks=total * rates.box_clicks,
        minutes=rates.minutes(total, opened),
        full_boxes=all_boxes,
        full_clicks=all_boxes * rates.box_clicks,
        full_minutes=rates.minutes(all_boxes, len(items)),
        estimated=full is None and any(not item.region.is_everything for item in items),
    )


def marked_share(item: Field) -> float | None:
    """Return the annotated share of a field's area; `None` if that needs its unknown size."""
    if item.region.is_everything or item.region.is_nothing:
        return float(item.region.is_everything)
    if not item.width or not item.height:
        return None
    return item.region.area(item.width, item.height) / (item.width * item.height)


def _extrapolated(boxes: list[int], shares: list[float | None]) -> float:
    pairs = [(b, s) for b, s in zip(boxes, shares, strict=True) if s]
    if not pairs:
        return float(sum(boxes))
    # Pooled over fields: a single box in a tiny region must not be extrapolated on its own.
    density = sum(b for b, _ in pairs) / sum(s for _, s in pairs)
    return density * len(boxes)
