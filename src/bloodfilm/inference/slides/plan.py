"""What of a slide is analysed, and how: its view, its zone, its tiles."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.polygons import Region
from bloodfilm.core.progress import Progress
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources.slide import SlideSource
from bloodfilm.imaging.zone import Zone, find_zone, whole_slide, zone_of_region
from bloodfilm.imaging.zone.zone import block_size
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.slides.survey import SlideView, survey_slide
from bloodfilm.inference.slides.tiles import TILE_UM, SlideTile, plan_slide_tiles

FIELD_SHARE = 0.75
"""A field of a sample lies in the zone with this share of its blocks, at least."""
MIN_TILE_UM = 96.0
BAND_BYTES = 200 << 20
"""Of rows across the whole width that tiles of a file without tiles may need at a time."""


@dataclass(frozen=True, kw_only=True)
class SlideSelection:
    """Which part of a slide is to be analysed.

    Attributes:
        region: shapes in px of level 0; `Region.everything()` for the whole slide; `None` for the
            zone of morphology, which is found.
        fields: size of a random sample of fields of that part; `None` for all of it.
        seed: of the sample.
    """

    region: Region | None = None
    fields: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fields is not None and self.fields < 1:
            raise ConfigError(f"fields {self.fields}: give at least 1")
        if self.region is not None and self.region.is_nothing:
            raise ConfigError("region: it holds no shape; draw the area to analyse")


@dataclass(frozen=True, eq=False)
class SlidePlan:
    """How a slide is analysed.

    Attributes:
        view: scale and colours.
        zone: the part from which cells are kept.
        tiles: to analyse.
        fields, seed: of a sample; `None` for all of the zone.
        issues: of the plan.
    """

    view: SlideView
    zone: Zone
    tiles: tuple[SlideTile, ...]
    fields: int | None = None
    seed: int | None = None
    issues: tuple[Issue, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain data; a region's shapes are those of the selection."""
        zone = self.zone
        scores = None if zone.scores is None else np.round(zone.scores, 3).tolist()
        return {
            "view": self.view.to_json(),
            "zone": {
                "origin": zone.origin,
                "um_per_px": list(zone.um_per_px),
                "chosen": ["".join("01"[int(v)] for v in row) for row in zone.chosen],
                "scores": scores,
                "region": None if zone.region is None else zone.region.to_json(),
                "issues": [found.to_json() for found in zone.issues],
            },
            "tiles": [[tile.number, tile.core, tile.region] for tile in self.tiles],
            "fields": self.fields,
            "seed": self.seed,
            "issues": [found.to_json() for found in self.issues],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], size: tuple[int, int]) -> "SlidePlan":
        """Read what `to_json` wrote for a slide of a size; `DataError` if it is none."""
        try:
            view = SlideView.from_json(data["view"])
            z = data["zone"]
            scores = None if z["scores"] is None else np.array(z["scores"], dtype=np.float64)
            shaped = z["origin"] != "found"
            um = float(z["um_per_px"][0]), float(z["um_per_px"][1])
            zone = Zone(
                *size,
                block_size(um),
                um,
                z["origin"],
                np.array([[c == "1" for c in row] for row in z["chosen"]], dtype=bool),
                scores,
                Region.from_json(z["region"]) if shaped else None,
                tuple(Issue.from_json(item) for item in z["issues"]),
            )
            tiles = tuple(
                SlideTile(int(n), _rect(core), _rect(region), size)
                for n, core, region in data["tiles"]
            )
            issues = tuple(Issue.from_json(item) for item in data["issues"])
            return cls(view, zone, tiles, data["fields"], data["seed"], issues)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(f"plan of a slide: not the record of one ({error!r})") from None


def _rect(values: Any) -> tuple[int, int, int, int]:
    x, y, w, h = (int(v) for v in values)
    return x, y, w, h


def plan_slide(
    source: SlideSource,
    analyzer: Analyzer,
    selection: SlideSelection,
    *,
    prior: ScalePrior | None = None,
    progress: Progress | None = None,
    map_: Callable[..., Iterable[Any]] = map,
) -> SlidePlan:
    """Measure a slide, find its zone, and choose the tiles to analyse.

    Raises:
        DataError: if there is nothing to analyse: empty glass, no monolayer, a region beside the
            slide.
    """
    view = survey_slide(source, analyzer, prior, map_)
    size, um = source.size, view.glass_um_per_px(source.pixel_size)
    if selection.region is None:
        zone = find_zone(source, um, view.reference, progress=progress, map_=map_)
        nothing = "no part of it looks like a monolayer of red cells; name the part to analyse"
    elif selection.region.is_everything:
        zone, nothing = whole_slide(*size, um), ""
    else:
        zone = zone_of_region(*size, um, selection.region)
        nothing = f"the region lies outside the slide of {size[0]} x {size[1]} px; check its units"
    if not zone.chosen.any():
        raise DataError(f"{source.name}: {nothing}")
    tiles = plan_slide_tiles(size, view.um_per_px, tile_um_for(source, view.um_per_px))
    inside = [tile for tile in tiles if zone.touches(*tile.core)]
    if selection.fields is None:
        return SlidePlan(view, zone, tuple(inside))
    chosen, issues = _sample(inside, zone, selection)
    return SlidePlan(view, zone, tuple(chosen), selection.fields, selection.seed, issues)


def tile_um_for(source: SlideSource, um_per_px: tuple[float, float]) -> float:
    """Return the side of tiles: smaller where rows across the whole slide are decoded at a time."""
    if source.band_rows is None:
        return TILE_UM
    rows = BAND_BYTES / (3 * source.size[0])
    return float(np.clip(rows * um_per_px[1], MIN_TILE_UM, TILE_UM))


def _sample(
    tiles: list[SlideTile], zone: Zone, selection: SlideSelection
) -> tuple[list[SlideTile], tuple[Issue, ...]]:
    """Draw fields at random, without repeats, from those that lie in the zone."""
    count = selection.fields or 0
    fitting = [t for t in tiles if zone.share(*t.core) >= FIELD_SHARE] or tiles
    if count >= len(fitting):
        message = f"the zone holds {len(fitting)} fields, {count} were asked for: all are used"
        facts = {"asked": count, "used": len(fitting)}
        reduced = (
            () if count == len(fitting) else (issue(issue_codes.SAMPLE_REDUCED, message, **facts),)
        )
        return fitting, reduced
    rng = np.random.default_rng([selection.seed, 23])
    picks = sorted(rng.choice(len(fitting), count, replace=False).tolist())
    return [fitting[i] for i in picks], ()


def with_tiles(plan: SlidePlan, tiles: list[SlideTile]) -> SlidePlan:
    """Return a plan with other tiles; those that do not touch its zone are left out."""
    return replace(plan, tiles=tuple(t for t in tiles if plan.zone.touches(*t.core)))
