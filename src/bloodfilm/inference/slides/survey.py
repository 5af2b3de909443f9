"""Measure a slide once: its pixel size, the colour of its glass and of its red cells.

Windows spread over the film are measured like fields; those with most red cells tell the scale and
the colours that every tile is analysed with. So a cell's result does not depend on which tile it
lies in.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.errors import DataError
from bloodfilm.core.issues import Issue, codes
from bloodfilm.core.pixels import PixelSize, ViewRecord
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.core.text import plural
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.channels import brightest
from bloodfilm.imaging.illumination import EVEN
from bloodfilm.imaging.red_cells import absorption, background_colour
from bloodfilm.imaging.scale import Measurement, ScalePrior, pool_scale
from bloodfilm.imaging.sources.base import ImageSource
from bloodfilm.imaging.sources.slide import Rect, SlideSource
from bloodfilm.imaging.stain import red_cell_absorbance
from bloodfilm.imaging.zone import RedCellReference
from bloodfilm.inference.analyzer import Analyzer, PartOfSlide
from bloodfilm.inference.film_offset import (
    FilmNaming,
    FilmOffset,
    Residuals,
    offset_of,
)
from bloodfilm.inference.granulocytes import red_cell_size, segmented_diameters
from bloodfilm.inference.stage_timer import StageTimer

WINDOWS = 24
"""Windows that are measured."""
WINDOW_UM = 170.0
WINDOW_PX = (384, 1600)
UNKNOWN_WINDOW = 900
"""Side, px, where the slide states no pixel size."""
OVERVIEW = 1600
MIN_ABSORPTION = 3.0
"""Of 255: windows that absorb less on average are empty glass."""
COLOUR_WINDOWS = 5


@dataclass(frozen=True, eq=False)
class SlideView:
    """How a slide is looked at.

    Attributes:
        view: of the whole slide; `of_region` gives that of a part.
        red_cell: absorbance, R, G, B, of its red cells; `None` where they have no colour.
        issues: about its scale.
        film: what its cells have in common; `None` where each is named by itself.
    """

    view: CanonicalView
    red_cell: tuple[float, float, float] | None
    issues: tuple[Issue, ...] = ()
    film: FilmOffset | None = None

    @property
    def um_per_px(self) -> tuple[float, float]:
        """Micrometres per pixel of level 0, along x and y."""
        return self.view.um_per_px_x, self.view.um_per_px_y

    def glass_um_per_px(self, stated: PixelSize | None) -> tuple[float, float]:
        """Return micrometres per pixel on the glass, for areas.

        Cells are looked at as large as the networks know them, which red cells tell. For areas the
        slide's own statement is exact, unless red cells contradict it.
        """
        if stated is None or issue_codes.METADATA_CONFLICT in codes(self.issues):
            return self.um_per_px
        return stated.um_per_px_x, stated.um_per_px_y

    @property
    def reference(self) -> RedCellReference:
        """How its glass and red cells absorb, for finding the zone."""
        return RedCellReference(self.view.white_point, self.red_cell or _GREY)

    @property
    def is_unfamiliar(self) -> bool:
        """Whether its stain or optics are far from those of the training."""
        return issue_codes.UNFAMILIAR_FILM in codes(self.issues)

    def of_region(self, width: int, height: int) -> CanonicalView:
        """Return the view of a part of the slide, px of level 0."""
        return replace(self.view, width=width, height=height, issues=())

    def to_json(self) -> dict[str, Any]:
        """Return the view as plain data."""
        data = {
            "view": self.view.record().to_json(),
            "red_cell": self.red_cell,
            "issues": [issue.to_json() for issue in self.issues],
        }
        return data if self.film is None else {**data, "film": self.film.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "SlideView":
        """Read what `to_json` wrote."""
        red = data["red_cell"]
        return cls(
            CanonicalView.from_record(ViewRecord.from_json(data["view"])),
            None if red is None else (float(red[0]), float(red[1]), float(red[2])),
            tuple(Issue.from_json(item) for item in data["issues"]),
            FilmOffset.from_json(data["film"]) if "film" in data else None,
        )


_GREY = 0.3, 0.4, 0.2
"""Absorbance of red cells where a slide has no colour."""


def survey_slide(
    source: ImageSource,
    analyzer: Analyzer,
    prior: ScalePrior | None = None,
    map_: Callable[..., Iterable[Any]] = map,
) -> SlideView:
    """Measure a slide by windows spread over its film.

    Args:
        source: the slide.
        analyzer: its detector measures where outlines of red cells do not, and checks the scale.
        prior: what is known of the pixel size beside the slide's own statement.
        map_: `map`, or the `map` of an executor.

    Raises:
        DataError: if the slide shows nothing but glass.
    """
    prior = (prior or ScalePrior()).with_image(source.pixel_size)
    rects = sample_windows(source)
    pixels = dict(zip(rects, map_(lambda r: source.read_region(*r), rects), strict=True))
    scale = pool_scale(rects, pixels.__getitem__, remeasure=analyzer.remeasure, map_=map_)
    prior = replace(prior, pooled=scale.pooled)
    measured = dict(scale.measurements)
    if not measured:  # a single window
        from bloodfilm.imaging.scale import measure

        measured = {r: measure(pixels[r]) for r in rects}
    order = sorted(rects, key=lambda r: (-_in_main_group(measured[r], prior), r[1], r[0]))
    best = [r for r in order if measured[r].cells > 0][:COLOUR_WINDOWS] or order[:1]
    white = _white([measured[r] for r in best])
    first = measured[best[0]]
    glare = float(np.median([measured[r].corrections.veiling_glare for r in best]))
    corrections = replace(
        first.corrections,
        white_point=white,
        illumination=EVEN,
        veiling_glare=round(glare, 3),
        round_field=None,
    )
    view = view_of(replace(first, corrections=corrections), prior)
    view = replace(view, illumination=EVEN, round_field=None)
    view, more = analyzer.checked_view(pixels[best[0]], view, prior)
    issues = (*view.issues, *more)
    red = _red_cell_colour([pixels[r] for r in best], view, analyzer)
    sample = _Sample([pixels[r] for r in order], red, analyzer, map_)
    view = sample.sized(view)
    film = sample.film_offset(view)
    width, height = source.size
    cells = sum(m.cells for m in measured.values())
    whole = replace(view, width=width, height=height, red_cells=cells, issues=())
    return SlideView(whole, red, issues, film)


class _Sample:
    """The cells of some windows of a slide, from which all of it is known better.

    Args:
        windows: their pixels.
        red: absorbance of the slide's red cells.
        analyzer: finds and names the cells.
        map_: `map`, or the `map` of an executor.
    """

    def __init__(
        self,
        windows: list[Image],
        red: tuple[float, float, float] | None,
        analyzer: Analyzer,
        map_: Callable[..., Iterable[Any]],
    ) -> None:
        self.windows, self.analyzer, self.map_ = windows, analyzer, map_
        self.colour = None if red is None else np.array(red)
        self._seen: tuple[CanonicalView, list[PartOfSlide], list[Residuals]] | None = None

    def sized(self, view: CanonicalView) -> CanonicalView:
        """Return the view at the scale that the segmented granulocytes support."""
        if view.scale_source != "pooled" or not self.analyzer.outlines_cells:
            return view
        taxonomy = self.analyzer.bundle.taxonomy
        parts, _ = self._analyzed(view)
        size = red_cell_size([um for p in parts for um in segmented_diameters(p.cells, taxonomy)])
        if size == view.red_cell_um:
            return view
        return replace(view.enlarged(view.red_cell_um / size), red_cell_um=size)

    def film_offset(self, view: CanonicalView) -> FilmOffset | None:
        """Return what the cells have in common, if names follow the film and there are enough."""
        spec = self.analyzer.film_offset
        return None if spec is None else offset_of(self._analyzed(view)[1], spec)

    def _analyzed(self, view: CanonicalView) -> tuple[list[PartOfSlide], list[Residuals]]:
        """Return what the windows show in a view, and the residuals of their cells.

        Windows that were last analysed in this very view are not analysed again.
        """
        if self._seen is None or self._seen[0] is not view:
            follows = self.analyzer.film_offset is not None

            def analyze(pixels: Image) -> tuple[PartOfSlide, list[Residuals]]:
                film = FilmNaming(residuals=[] if follows else None)
                local = replace(view, width=pixels.shape[1], height=pixels.shape[0])
                clock = StageTimer()
                part = self.analyzer.analyze_part(pixels, local, self.colour, clock, film=film)
                return part, film.residuals or []

            found = list(self.map_(analyze, self.windows))
            self._seen = view, [p for p, _ in found], [r for _, rows in found for r in rows]
        return self._seen[1:]


def _in_main_group(measurement: Measurement, prior: ScalePrior) -> int:
    """Whole red cells of a window, 0 if it belongs to no scale or a rarer one."""
    pooled = prior.pooled
    if pooled is None or not pooled.groups:
        return measurement.cells
    main = max(pooled.groups, key=lambda g: g.cells)
    fits = measurement.is_measurable and main.accepts(measurement)
    return measurement.cells if fits else 0


def _white(measured: list[Measurement]) -> tuple[float, float, float]:
    r, g, b = np.median([m.white_point for m in measured], axis=0).round(2).tolist()
    return float(r), float(g), float(b)


def _red_cell_colour(
    windows: list[Image], view: CanonicalView, analyzer: Analyzer
) -> tuple[float, float, float] | None:
    """Median absorbance of the red cells that the detector finds in some windows."""
    found = []
    for pixels in windows:
        local = replace(view, width=pixels.shape[1], height=pixels.shape[0])
        even = local.corrections.apply(pixels)
        boxes = analyzer.red_cells_in(pixels, local)
        colour = red_cell_absorbance(even, view.white_point, boxes)
        if colour is not None:
            found.append(colour)
    if not found:
        return None
    r, g, b = np.median(found, axis=0).round(5).tolist()
    return float(r), float(g), float(b)


def sample_windows(source: ImageSource) -> list[Rect]:
    """Return windows x, y, w, h of full resolution that show film, of all degrees of thickness.

    Raises:
        DataError: if there is no film.
    """
    width, height = source.size
    size = source.pixel_size
    wanted = UNKNOWN_WINDOW if size is None else round(WINDOW_UM / size.um_per_px_y)
    side = int(np.clip(wanted, *WINDOW_PX))
    w, h = min(side, width), min(side, height)
    overview = source.thumbnail(OVERVIEW)
    dark = brightest(absorption(overview, background_colour(overview)))
    columns, rows = max(1, width // w), max(1, height // h)
    # Means over the grid of windows; a coarse overview resolves large slides' windows well enough.
    grid = cv2.resize(
        dark[: max(1, round(rows * h * overview.shape[0] / height))].astype(np.float32),
        (columns, rows),
        interpolation=cv2.INTER_AREA,
    )
    means = np.asarray(grid, dtype=np.float64).reshape(rows, columns)
    places = [(float(means[r, c]), r, c) for r in range(rows) for c in range(columns)]
    film = sorted(p for p in places if p[0] >= MIN_ABSORPTION)
    if not film:
        damage = source.damage_in(0, 0, *source.size) if isinstance(source, SlideSource) else []
        if damage:
            raise DataError(
                f"{source.name}: nothing is seen, and {plural(len(damage), 'part')} cannot be "
                f"decoded ({damage[0].name}: {damage[0].reason}); copy it again from its source"
            )
        raise DataError(f"{source.name}: shows nothing but empty glass; is this the right slide?")
    picks = evenly_spread(len(film), WINDOWS).tolist()
    chosen = sorted((film[i][1], film[i][2]) for i in picks)
    return [(c * w, r * h, w, h) for r, c in chosen]
