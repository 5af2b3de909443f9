"""The canonical view: each field at one scale, square pixels, evenly lit, on one white.

Red cells give the scale. With too few, the view reports an issue and uses, in this order, what
other fields of its group show, what the user or the data set provides, what the file's metadata
state, and last an assumption. Where they contradict each other, what the user or the data set
provides comes before the red cells, and red cells before the file's metadata.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Pixels
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import RED_CELL_UM, Ruler, ScaleSource, ViewRecord
from bloodfilm.imaging.corrections import Corrections, lift
from bloodfilm.imaging.field_of_view import RoundField
from bloodfilm.imaging.illumination import EVEN, Illumination, Region
from bloodfilm.imaging.resample import BACKGROUND, resize, window, window_region
from bloodfilm.imaging.scale import (
    MIN_CELLS,
    Group,
    Measurement,
    ScalePrior,
    confidence,
    measure,
)

DETECTOR_UM = 0.2
CROP_UM = 0.175
CROP_SIZE = 128
ASSUMED_UM = 0.1
DISAGREEMENT = 0.15
MIN_REFINE = 5
CELL_ASPECT_SPREAD = 0.17
MAX_CANONICAL_PIXELS = 64_000_000
"""Of a field at any scale: what is enlarged beyond costs gigabytes and shows nothing more."""


@dataclass(frozen=True)
class CanonicalView:
    """How one field maps to canonical pixels.

    Attributes:
        um_per_px_x, um_per_px_y: micrometres per original pixel along each axis.
        white_point: background colour of the original in even light, RGB.
        red_cells: whole single red cells found in this field.
        confidence: 0..1 in scale and aspect ratio; 0 where they are assumed.
        scale_source, aspect_source: where scale and pixel aspect ratio come from.
        width, height: of the original, px.
        issues: about scale and aspect ratio; empty if there are none.
        illumination: uneven light, which is divided out.
        veiling_glare: stray light as a share of the glass's light, which is subtracted.
        round_field: the field of view where it is a disc on black; the rest is painted white.
        ruler: what found the red cells of this field: their `outlines`, or the `detector`.
        metadata_um_per_px: along x and y, according to the file's metadata, if they state it.
        red_cell_um: diameter of the red cells that give the scale, micrometres.
    """

    um_per_px_x: float
    um_per_px_y: float
    white_point: tuple[float, float, float]
    red_cells: int
    confidence: float
    scale_source: ScaleSource
    aspect_source: ScaleSource
    width: int
    height: int
    issues: tuple[Issue, ...] = ()
    illumination: Illumination = EVEN
    veiling_glare: float = 0.0
    round_field: RoundField | None = None
    ruler: Ruler = "outlines"
    metadata_um_per_px: tuple[float, float] | None = None
    red_cell_um: float = RED_CELL_UM

    @property
    def corrections(self) -> Corrections:
        """The image corrections that the view applies."""
        return Corrections(
            self.white_point, self.illumination, self.veiling_glare, self.round_field
        )

    @property
    def pixel_aspect_ratio(self) -> float:
        """Width / height, in original pixels, of what is round on the glass."""
        return self.um_per_px_y / self.um_per_px_x

    @property
    def red_cell_factor(self) -> float:
        """How many times larger than 7.5 um the red cells are that give the scale."""
        return self.red_cell_um / RED_CELL_UM

    def enlarged(self, factor: float) -> "CanonicalView":
        """Return a view of the same pixels in which things are so many times larger."""
        return replace(
            self, um_per_px_x=self.um_per_px_x / factor, um_per_px_y=self.um_per_px_y / factor
        )

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the detector's view, px."""
        return self.size_at(DETECTOR_UM)

    def size_at(self, um_per_px: float) -> tuple[int, int]:
        """Width and height of the field rendered at a scale; `DataError` if absurdly large."""
        width = max(1, round(self.width * self.um_per_px_x / um_per_px))
        height = max(1, round(self.height * self.um_per_px_y / um_per_px))
        if width * height > MAX_CANONICAL_PIXELS:
            scale = _sides(self.um_per_px_x, self.um_per_px_y)
            raise DataError(
                f"a field of {self.width} x {self.height} px at {scale} um per px "
                f"would become {width} x {height} px, more than "
                f"{MAX_CANONICAL_PIXELS // 1_000_000} million; give its true scale, or analyse it "
                "in parts"
            )
        return width, height

    def render(self, image: Pixels, um_per_px: float = DETECTOR_UM) -> Pixels:
        """The whole field (H, W, 3) at a scale: square pixels, evenly lit, background 245."""
        self._check(image)
        resampled = resize(image, *self.size_at(um_per_px))
        return self._drawn(resampled, (0.0, 0.0, float(self.width), float(self.height)))

    def crops(
        self,
        image: Pixels,
        centres_xy: ArrayLike,
        size: int = CROP_SIZE,
        um_per_px: float = CROP_UM,
        *,
        balanced: bool = True,
    ) -> Pixels:
        """Windows (n, size, size, 3) centred on points (n, 2) of the original image.

        Evenly lit and white-balanced by the field's white point, or, if not `balanced`, in the
        image's own colours; where a window leaves the image it is filled with background: 245, or
        the white point.
        """
        self._check(image)
        centres = np.asarray(centres_xy, dtype=np.float64).reshape(-1, 2)
        out = np.empty((len(centres), size, size, 3), dtype=np.uint8)
        out[:] = BACKGROUND if balanced else np.clip(np.rint(self.white_point), 0, 255)
        step = um_per_px / self.um_per_px_x, um_per_px / self.um_per_px_y
        for target, (x, y) in zip(out, centres, strict=True):
            patch, where = window(image, (float(x), float(y)), step, size)
            if patch.size:
                region = window_region(where, (float(x), float(y)), step, size)
                target[where] = self._drawn(patch, region, balanced=balanced)
        return out

    def _drawn(self, pixels: Pixels, region: Region, *, balanced: bool = True) -> Pixels:
        """Pixels of a region of the original as the view shows them."""
        lit = self.corrections.in_even_light(pixels, region, (self.width, self.height))
        return self.balance(lit) if balanced else lit

    def balance(self, pixels: Pixels) -> Pixels:
        """Pixels in even light, as `crops` gives them if not `balanced`, on a background of 245."""
        white = (BACKGROUND, BACKGROUND, BACKGROUND)
        return lift(pixels, self.white_point, self.veiling_glare, white)

    def to_canonical(self, boxes: ArrayLike, um_per_px: float = DETECTOR_UM) -> NDArray[np.float64]:
        """Boxes (n, 4) x, y, w, h of the original in pixels of `render(image, um_per_px)`."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * self._factors(um_per_px)

    def to_original(self, boxes: ArrayLike, um_per_px: float = DETECTOR_UM) -> NDArray[np.float64]:
        """Boxes (n, 4) of `render(image, um_per_px)` in pixels of the original."""
        return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) / self._factors(um_per_px)

    def _factors(self, um_per_px: float) -> NDArray[np.float64]:
        # The rendered size is rounded to whole pixels; boxes follow the actual size.
        width, height = self.size_at(um_per_px)
        return np.tile([width / self.width, height / self.height], 2)

    def _check(self, image: Pixels) -> None:
        if image.shape != (self.height, self.width, 3):
            raise ValueError(
                f"the view is of a {self.width} x {self.height} field, the image is {image.shape}"
            )

    def record(self, sharpness: float | None = None, film_score: float | None = None) -> ViewRecord:
        """Return what a result keeps of the view, and what was measured in the rendered field."""
        return ViewRecord(
            um_per_px_x=self.um_per_px_x,
            um_per_px_y=self.um_per_px_y,
            scale_source=self.scale_source,
            aspect_source=self.aspect_source,
            confidence=self.confidence,
            white_point=self.white_point,
            red_cells=self.red_cells,
            width=self.width,
            height=self.height,
            sharpness=sharpness,
            illumination=self.illumination.to_json(),
            veiling_glare=self.veiling_glare,
            round_field=None if self.round_field is None else self.round_field.as_tuple,
            ruler=self.ruler,
            film_score=film_score,
            metadata_um_per_px=self.metadata_um_per_px,
            red_cell_um=self.red_cell_um,
        )

    @classmethod
    def from_record(cls, record: ViewRecord) -> "CanonicalView":
        """Return the view that a result was made in."""
        return cls(
            um_per_px_x=record.um_per_px_x,
            um_per_px_y=record.um_per_px_y,
            white_point=record.white_point,
            red_cells=record.red_cells,
            confidence=record.confidence,
            scale_source=record.scale_source,
            aspect_source=record.aspect_source,
            width=record.width,
            height=record.height,
            illumination=Illumination.from_json(record.illumination),
            veiling_glare=record.veiling_glare,
            round_field=None if record.round_field is None else RoundField(*record.round_field),
            ruler=record.ruler,
            metadata_um_per_px=record.metadata_um_per_px,
            red_cell_um=record.red_cell_um,
        )


_SETTLE_CODES = {
    "scale": (issue_codes.SCALE_ASSUMED, issue_codes.SCALE_CONFLICT),
    "pixel aspect ratio": (issue_codes.ASPECT_ASSUMED, issue_codes.ASPECT_CONFLICT),
}


def canonical_view(image: Pixels, prior: ScalePrior | None = None) -> CanonicalView:
    """Return the canonical view of one field, uint8 RGB (H, W, 3).

    `prior` is the prior knowledge of its pixel size.
    """
    prior = prior or ScalePrior()
    return view_of(measure(image, prior.illumination_of(image)), prior)


def view_of(measurement: Measurement, prior: ScalePrior | None = None) -> CanonicalView:
    """Return the canonical view that follows from a measurement already taken."""
    prior = prior or ScalePrior()
    pooled = prior.pooled
    group = pooled.group_for(measurement) if pooled else None
    light = pooled.light_of(measurement.width, measurement.height) if pooled else None
    seen = _observed(measurement, group)
    issues = _ruler_issues(measurement)
    stated = prior.file_metadata
    seen_aspect = _significant_aspect(seen, issues) if seen else None
    aspect, aspect_source = _settle(
        "pixel aspect ratio",
        seen_aspect,
        _Provided(prior.pixel_aspect_ratio, prior.source, stated.aspect_ratio if stated else None),
        1.0,
        issues,
    )
    seen_um = seen.red_cell_um / seen.diameter * aspect**0.5 if seen else None
    um_y, scale_source = _settle(
        "scale",
        seen_um,
        _Provided(prior.um_per_px, prior.source, stated.um_per_px_y if stated else None),
        ASSUMED_UM,
        issues,
    )
    issues += metadata_conflict(prior, um_y, aspect)
    sources = [s or (seen.source if seen else "assumed") for s in (scale_source, aspect_source)]
    sure = min(_CONFIDENCE.get(s, seen.confidence if seen else 0.0) for s in sources)
    return CanonicalView(
        um_per_px_x=um_y / aspect,
        um_per_px_y=um_y,
        white_point=measurement.white_point,
        red_cells=measurement.cells,
        confidence=round(sure, 3),
        scale_source=sources[0],
        aspect_source=sources[1],
        width=measurement.width,
        height=measurement.height,
        issues=tuple(issues),
        illumination=measurement.corrections.illumination,
        veiling_glare=min(
            measurement.corrections.veiling_glare, light.max_veiling_glare if light else 1.0
        ),
        round_field=measurement.corrections.round_field,
        ruler=measurement.ruler,
        metadata_um_per_px=(stated.um_per_px_x, stated.um_per_px_y) if stated else None,
        red_cell_um=seen.red_cell_um if seen else RED_CELL_UM,
    )


def _ruler_issues(measurement: Measurement) -> list[Issue]:
    """Return what is wrong with the red cells from which a scale is taken."""
    facts = {"red_cells": measurement.cells}
    if not measurement.is_measurable:
        message = f"too few whole red cells in this field ({measurement.cells})"
    elif measurement.ruler == "detector":
        message = (
            f"too few whole outlines in this field: scale from {measurement.cells} red cells that "
            "the detector found"
        )
        facts = {"detected": measurement.cells}
    elif measurement.cells < MIN_CELLS:
        message = (
            f"hardly any whole red cells in this field ({measurement.cells}): scale from "
            f"{measurement.arcs} arcs of cut or overlapping ones, less certain"
        )
        facts["arcs"] = measurement.arcs
    else:
        return []
    return [issue(issue_codes.FEW_RED_CELLS, message, **facts)]


def fixed_view(image: Pixels, side: int) -> CanonicalView:
    """Return a view without any measurement: the image scaled so that its longer side is `side`.

    Colours and light stay as they are and pixels are taken to be square. This is how a detector is
    used that knows of no microscope: the baseline of cross-domain evaluations. No scale is known;
    sizes in micrometres mean nothing.
    """
    height, width = image.shape[:2]
    um_per_px = side * DETECTOR_UM / max(width, height)
    message = f"scaled to {side} px, whatever the size of its cells: no scale is known"
    return CanonicalView(
        um_per_px_x=um_per_px,
        um_per_px_y=um_per_px,
        white_point=(float(BACKGROUND),) * 3,
        red_cells=0,
        confidence=0.0,
        scale_source="assumed",
        aspect_source="assumed",
        width=width,
        height=height,
        issues=(issue(issue_codes.FIXED_INPUT, message, side=side),),
    )


_CONFIDENCE = {"user": 0.9, "metadata": 0.9, "assumed": 0.0}
PROVIDED = ("user", "metadata")


@dataclass(frozen=True)
class _Seen:
    """Scale measured by red cells, and its source."""

    diameter: float
    pixel_aspect_ratio: float
    confidence: float
    cells: int
    source: ScaleSource
    red_cell_um: float = RED_CELL_UM


def _observed(measurement: Measurement, group: Group | None) -> _Seen | None:
    """Return the scale pooled over the folder, else measured in the field, else None.

    The pooled scale takes precedence where the field agrees with it: the microscope is the same,
    and many fields are more precise than one.
    """
    if group and (group.fields > 1 or not measurement.is_measurable):
        g = group
        return _Seen(
            g.diameter, g.pixel_aspect_ratio, g.confidence, g.cells, "pooled", g.red_cell_um
        )
    m = measurement
    return (
        _Seen(m.diameter, m.pixel_aspect_ratio, m.confidence, max(m.cells, 1), "measured")
        if m.is_measurable
        else None
    )


def _significant_aspect(seen: _Seen, issues: list[Issue]) -> float:
    """Return the aspect ratio of the red cells, or 1 where it does not differ significantly.

    Nearly every camera has square pixels, and single red cells are not quite round: a few of
    them may deviate from 1 by 10 %.
    """
    error = CELL_ASPECT_SPREAD / np.sqrt(seen.cells)
    if abs(np.log(seen.pixel_aspect_ratio)) > 2 * error:
        return seen.pixel_aspect_ratio
    if abs(seen.pixel_aspect_ratio - 1) > 0.05:
        message = (
            f"pixel aspect ratio {seen.pixel_aspect_ratio:.2f} of {seen.cells} red cells is within "
            "its error of 1, which is used"
        )
        measured = round(seen.pixel_aspect_ratio, 3)
        issues.append(issue(issue_codes.ASPECT_ROUNDED, message, measured=measured))
    return 1.0


@dataclass(frozen=True)
class _Provided:
    """One quantity as it is known beforehand.

    Attributes:
        value: provided by the user or the data set, with its source; red cells do not replace it.
        source: of `value`.
        fallback: according to the file's metadata; used where there are no red cells.
    """

    value: float | None
    source: ScaleSource
    fallback: float | None


def _settle(
    name: str, seen: float | None, provided: _Provided, assumed: float, issues: list[Issue]
) -> tuple[float, ScaleSource | None]:
    """Value of one quantity, and its source unless it was measured; adds issues on conflicts."""
    unit = " um per px" if name == "scale" else ""
    missing, conflict = _SETTLE_CODES[name]
    given = provided.value
    if seen is None:
        if given is not None:
            return given, provided.source
        if provided.fallback is not None:
            return provided.fallback, "metadata"
        message = f"{name} is not known: {assumed:g}{unit} is assumed, provide the true value"
        issues.append(issue(missing, message, assumed=assumed))
        return assumed, "assumed"
    if given is not None and _disagree(seen, given):
        message = f"red cells measure {name} {seen:.3g}{unit}, {given:.3g} was provided and is used"
        facts = {"measured": round(seen, 4), "used": given}
        issues.append(issue(conflict, message, **facts))
        return given, provided.source
    return seen, None


def _disagree(one: float, other: float) -> bool:
    return bool(abs(np.log(one / other)) > np.log1p(DISAGREEMENT))


def metadata_conflict(prior: ScalePrior, um_y: float, aspect: float) -> list[Issue]:
    """Return the issue of a file whose metadata state another pixel size than is used."""
    stated = prior.file_metadata
    if stated is None:
        return []
    um_x = um_y / aspect
    pairs = ((stated.um_per_px_x, um_x), (stated.um_per_px_y, um_y))
    if not any(_disagree(said, used) for said, used in pairs):
        return []
    message = (
        f"the file's metadata state {_sides(stated.um_per_px_x, stated.um_per_px_y)} um per px, "
        f"{_sides(um_x, um_y)} is used"
    )
    facts = {
        "metadata": [stated.um_per_px_x, stated.um_per_px_y],
        "used": [round(um_x, 4), round(um_y, 4)],
    }
    return [issue(issue_codes.METADATA_CONFLICT, message, **facts)]


def refine(view: CanonicalView, red_cell_boxes: ArrayLike) -> CanonicalView:
    """The view corrected by red-cell boxes (n, 4) that a detector found, in original px.

    Uses boxes that neither touch the edge nor each other; with fewer than `MIN_REFINE` the view
    comes back unchanged. What was provided is only checked, never replaced. An
    issue reports a change or a contradiction.
    """
    boxes = _clear_boxes(np.asarray(red_cell_boxes, dtype=np.float64).reshape(-1, 4), view)
    if len(boxes) < MIN_REFINE:
        return view
    wide, high = np.exp(np.median(np.log(boxes[:, 2:]), axis=0))
    issues = list(view.issues)
    aspect, um_y = float(wide / high), float(view.red_cell_um / high)
    off_aspect, off_scale = aspect / view.pixel_aspect_ratio - 1, um_y / view.um_per_px_y - 1
    spread = float(np.std(np.log(boxes[:, 2] * boxes[:, 3])) / 2)
    keep_scale, keep_aspect = (
        source in PROVIDED for source in (view.scale_source, view.aspect_source)
    )
    if max(abs(off_aspect), abs(off_scale)) > 0.02:
        verb = "contradict" if keep_scale or keep_aspect else "change"
        message = (
            f"{len(boxes)} detected red cells {verb} scale by {off_scale:+.0%} and pixel aspect "
            f"ratio by {off_aspect:+.0%}"
        )
        facts = {"scale_off": round(off_scale, 3), "aspect_off": round(off_aspect, 3)}
        held = keep_scale or keep_aspect
        code = issue_codes.SCALE_CONFLICT if held else issue_codes.SCALE_CORRECTED
        issues.append(issue(code, message, **facts))
    um_y = view.um_per_px_y if keep_scale else um_y
    aspect = view.pixel_aspect_ratio if keep_aspect else aspect
    return replace(
        view,
        um_per_px_x=um_y / aspect,
        um_per_px_y=um_y,
        red_cells=max(view.red_cells, len(boxes)),
        confidence=max(view.confidence, round(confidence(len(boxes), spread), 3)),
        scale_source=view.scale_source if keep_scale else "measured",
        aspect_source=view.aspect_source if keep_aspect else "measured",
        issues=tuple(issues),
    )


def red_cell_enlargement(view: CanonicalView, red_cell_boxes: ArrayLike) -> float | None:
    """Return how many times larger than red cells the whole ones of a field are in a view.

    Args:
        view: whose scale is in question.
        red_cell_boxes: (n, 4) that a detector found, px.

    Returns:
        `None` with fewer than `MIN_CELLS` boxes that do not touch the edge.

    >>> view = CanonicalView(0.1, 0.1, (240, 240, 240), 0, 0, "assumed", "assumed", 600, 400)
    >>> red_cell_enlargement(view, [(x, 90, 150, 150) for x in (9, 200, 390)])
    2.0
    """
    boxes = np.asarray(red_cell_boxes, dtype=np.float64).reshape(-1, 4)
    ends = boxes[:, :2] + boxes[:, 2:]
    whole = (boxes[:, :2] > 1).all(axis=1) & (ends < (view.width - 1, view.height - 1)).all(axis=1)
    if whole.sum() < MIN_CELLS:
        return None
    sides = boxes[whole, 2:] * (view.um_per_px_x, view.um_per_px_y)
    return float(np.median(np.sqrt(sides.prod(axis=1)))) / view.red_cell_um


def _clear_boxes(boxes: NDArray[np.float64], view: CanonicalView) -> NDArray[np.float64]:
    """Boxes whole inside the field that overlap no other box by more than a sliver."""
    x0, y0 = boxes[:, 0], boxes[:, 1]
    x1, y1 = x0 + boxes[:, 2], y0 + boxes[:, 3]
    across = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
    down = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
    shared = np.clip(across, 0, None) * np.clip(down, 0, None)
    np.fill_diagonal(shared, 0.0)
    area = np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)
    alone = shared.max(axis=1, initial=0.0) < 0.05 * area
    inside = (x0 > 1) & (y0 > 1) & (x1 < view.width - 1) & (y1 < view.height - 1)
    clear: NDArray[np.float64] = boxes[alone & inside & (boxes[:, 2:] > 1).all(axis=1)]
    return clear


def _sides(x: float, y: float) -> str:
    """Return micrometres per pixel, along x and y where they differ."""
    return f"{x:.3g}" if f"{x:.3g}" == f"{y:.3g}" else f"{x:.3g} x {y:.3g}"
