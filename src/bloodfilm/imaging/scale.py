"""Measure scale and pixel aspect ratio from the red cells of a field, and pool over fields.

A red cell is 7.5 um across and round, so the mean second moments of a field's red cells give
its scale along each axis. A single close-up may hold too few; fields of one microscope are pooled.
A folder that mixes microscopes is split into groups, never averaged.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import DataError
from bloodfilm.core.pixels import RED_CELL_UM, PixelSize, Ruler
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.imaging.corrections import MAX_VEILING_GLARE, Corrections, estimate_corrections
from bloodfilm.imaging.illumination import EVEN, MIN_FIELDS, Illumination, Survey, of_folder
from bloodfilm.imaging.red_cells import find_red_cells

Key = TypeVar("Key", bound=Hashable)

UNMEASURABLE_SHARE = 0.67
"""If a larger share of the sampled fields is not measurable, a detector measures some of them."""
DETECTED_SAMPLE = 8
POOL_SAMPLE = 24
"""Measured fields per group: more would change its scale by less than its error."""
# Annotators draw boxes slightly outside the half-maximum edge that the outlines follow: 7 % in PBC,
# 9 % in Raabin, 11 % in BCCD. A detector learns such boxes; the box of a red cell must be 7.5 um.
OUTLINE_TO_BOX = 1.06
MIN_CELLS = 3
TYPICAL_SPREAD = 0.08
TRUSTED_ERROR = 0.05
ARC_TRUST = 0.7
DETECTED_TRUST = 0.8
DETECTED_ASPECT = 0.25
"""Largest |log(width / height)| of detected boxes that is taken for square pixels, on which the
boxes of the shipped detector are 0 to 15 % higher than wide."""
MIN_GAP = 0.3
LONE_GAP = 0.5
SIZE_GAP = 0.15
GLARE_QUANTILE = 0.5


@dataclass(frozen=True, eq=False)
class Measurement:
    """Measurement of one field by its red cells.

    Attributes:
        width, height: of the field, px.
        corrections: optical and colour corrections, applied before red cells are detected.
        cells: whole single red cells found.
        arcs: circles fitted to parts of cells, searched only where `cells` is below `MIN_CELLS`;
            if there are `MIN_CELLS` of them, they give the diameter, and the pixel aspect ratio
            is 1.
        diameter: geometric mean of their diameters along x and y, px; 0 without cells.
        pixel_aspect_ratio: width / height, in pixels, of a round cell; 1 without cells.
        spread: standard deviation of log diameter from cell to cell.
        confidence: 0..1; 0 if the field is not measurable.
        moments: (n, 3) second moments xx, yy, xy of each cell, px^2, for pooling.
        centres: (n, 2) of each cell, px.
        ruler: what found the cells: their `outlines`, or a trained `detector`.
        light: illumination survey of the field, for the illumination shared by a folder.
    """

    width: int
    height: int
    corrections: Corrections
    cells: int
    diameter: float
    pixel_aspect_ratio: float
    spread: float
    confidence: float
    moments: Floats = field(repr=False)
    centres: Floats = field(repr=False)
    arcs: int = 0
    ruler: Ruler = "outlines"
    light: Survey | None = field(default=None, repr=False)

    @property
    def white_point(self) -> tuple[float, float, float]:
        """Colour of empty glass, RGB."""
        return self.corrections.white_point

    @property
    def is_measurable(self) -> bool:
        """Whether whole or partial red cells give scale and aspect ratio from this field alone."""
        return self.cells >= MIN_CELLS or self.arcs >= MIN_CELLS

    @property
    def diameter_x(self) -> float:
        """Width of a round red cell, px."""
        return self.diameter * self.pixel_aspect_ratio**0.5

    @property
    def diameter_y(self) -> float:
        """Height of a round red cell, px."""
        return self.diameter / self.pixel_aspect_ratio**0.5


@dataclass(frozen=True)
class Group:
    """Fields that agree in scale and aspect ratio, as from one microscope and camera.

    Attributes:
        diameter: of their red cells, px; geometric mean along x and y.
        pixel_aspect_ratio: width / height, in pixels, of a round cell.
        spread: standard deviation of log diameter from cell to cell.
        cells, fields: how many were measured.
        confidence: 0..1.
        sizes: of the images, px.
        red_cell_um: diameter of these red cells, micrometres.
    """

    diameter: float
    pixel_aspect_ratio: float
    spread: float
    cells: int
    fields: int
    confidence: float
    sizes: frozenset[tuple[int, int]]
    red_cell_um: float = RED_CELL_UM

    def accepts(self, measurement: Measurement) -> bool:
        """Whether a measurable field agrees with this group."""
        apart = abs(np.log(measurement.diameter / self.diameter))
        stretch = abs(np.log(measurement.pixel_aspect_ratio / self.pixel_aspect_ratio))
        return bool(apart < MIN_GAP and stretch < MIN_GAP)


@dataclass(frozen=True)
class SharedLight:
    """What the fields of one camera have in common beside their scale.

    Attributes:
        illumination: shared by the fields; `EVEN` if there is none.
        max_veiling_glare: upper limit of the stray light of a field: the glare of fields with few
            or pale nuclei is overestimated.
    """

    illumination: Illumination = EVEN
    max_veiling_glare: float = MAX_VEILING_GLARE


NO_LIGHT = SharedLight()


@dataclass(frozen=True)
class Pooled:
    """Scale and light shared by the fields of a folder.

    Attributes:
        groups: fields of one scale each, largest first; more than one means that microscopes are
            mixed.
        note: message for the user about the groups; empty if there is nothing to report.
        light: light of the fields; the illumination is that of the commonest image size.
        lights: light by image size (width, height), where several sizes are mixed and one has
            `MIN_FIELDS` fields: images of another size come from another camera.
    """

    groups: tuple[Group, ...]
    note: str = ""
    light: SharedLight = NO_LIGHT
    lights: Mapping[tuple[int, int], SharedLight] = field(default_factory=dict)

    def light_of(self, width: int, height: int) -> SharedLight:
        """Return the light of images of a size."""
        return self.lights.get((width, height), self.light)

    def group_for(self, measurement: Measurement) -> Group | None:
        """The group a field belongs to; None if it is ambiguous.

        A measurable field joins the group it agrees with. Any other joins the only group, or the
        only group with images of its size.
        """
        if measurement.is_measurable:
            fitting = [g for g in self.groups if g.accepts(measurement)]
            size = np.log(max(measurement.diameter, 1e-9))
            return min(fitting, key=lambda g: abs(np.log(g.diameter) - size), default=None)
        if len(self.groups) == 1:
            return self.groups[0]
        same = [g for g in self.groups if (measurement.width, measurement.height) in g.sizes]
        return same[0] if len(same) == 1 else None


@dataclass(frozen=True)
class ScalePrior:
    """What is known of a field's pixel size before its own red cells are measured.

    Attributes:
        um_per_px: micrometres per pixel along y, provided by the user or by a data set's metadata.
        pixel_aspect_ratio: width / height, in pixels, of what is round on the glass; same origin.
        source: where both values come from.
        pooled: measurement of a group of fields (a folder, a case). It is more precise, but
            provided values take precedence over a contradicting measurement.
        file_metadata: what the image file itself states. Files keep it when a picture is resized,
            and programs write it for another objective, so red cells take precedence over it.

    >>> prior = ScalePrior.of(PixelSize(0.2, 0.1, "user"))
    >>> prior.um_per_px, prior.pixel_aspect_ratio, prior.source
    (0.1, 0.5, 'user')
    """

    um_per_px: float | None = None
    pixel_aspect_ratio: float | None = None
    source: Literal["user", "metadata"] = "user"
    pooled: Pooled | None = None
    file_metadata: PixelSize | None = None

    def __post_init__(self) -> None:
        for name in ("um_per_px", "pixel_aspect_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise DataError(f"scale: {name} must be a positive number, not {value!r}")

    @property
    def is_provided(self) -> bool:
        """Whether the scale or the aspect ratio is provided."""
        return self.um_per_px is not None or self.pixel_aspect_ratio is not None

    def illumination_of(self, image: NDArray[np.uint8]) -> Illumination:
        """Return the illumination that an image (H, W, 3) shares with others of its folder."""
        height, width = image.shape[:2]
        return self.pooled.light_of(width, height).illumination if self.pooled else EVEN

    def with_image(self, pixel_size: PixelSize | None) -> "ScalePrior":
        """Return the prior with what an image states of its own pixels.

        A size whose source is `metadata` is the file's; any other is provided, where nothing is.
        """
        if pixel_size is None:
            return self
        if pixel_size.source == "metadata":
            return replace(self, file_metadata=pixel_size)
        return self if self.is_provided else replace(self.of(pixel_size), pooled=self.pooled)

    @classmethod
    def of(cls, pixel_size: PixelSize) -> "ScalePrior":
        """Return the prior of a known pixel size."""
        source: Literal["user", "metadata"] = (
            "metadata" if pixel_size.source == "metadata" else "user"
        )
        return cls(pixel_size.um_per_px_y, pixel_size.aspect_ratio, source)

    @classmethod
    def of_domain(
        cls, domain: Domain, source: Literal["user", "metadata"] = "metadata"
    ) -> "ScalePrior":
        """Return the prior given by the acquisition metadata of a field."""
        return cls(domain.um_per_px, domain.pixel_aspect_ratio, source)


def measure(image: NDArray[np.uint8], folder: Illumination = EVEN) -> Measurement:
    """Measure corrections, scale and aspect ratio of one field, uint8 RGB (H, W, 3).

    `folder` is the illumination shared by the fields of its folder.
    """
    corrections, light = estimate_corrections(image, folder)
    found = find_red_cells(corrections.apply(image), corrections.white_point)
    height, width = image.shape[:2]
    moments, arcs = found.moments, found.arcs
    cells = len(moments)
    diameter, aspect, spread = summarise(moments)
    certainty = confidence(cells, spread) if cells >= MIN_CELLS else 0.0
    if len(arcs) >= MIN_CELLS > cells:
        diameter, aspect = OUTLINE_TO_BOX * float(np.median(arcs)), 1.0
        spread = float(np.std(np.log(arcs)))
        certainty = ARC_TRUST * confidence(len(arcs), spread)
    return Measurement(
        width=width,
        height=height,
        corrections=corrections,
        cells=cells,
        diameter=diameter,
        pixel_aspect_ratio=aspect,
        spread=spread,
        confidence=certainty,
        moments=moments,
        centres=found.centres,
        arcs=len(arcs),
        light=light,
    )


def with_detected(measurement: Measurement, boxes: ArrayLike) -> Measurement:
    """The measurement by red-cell boxes (n, 4), x, y, w, h in px, instead of outlines.

    The boxes are of whole red cells that a detector found; fewer than `MIN_CELLS` change nothing.
    Detected boxes are slightly higher than wide or vice versa, whatever the cells: an aspect ratio
    within `DETECTED_ASPECT` of 1 (natural logarithm) counts as 1.
    """
    table = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if len(table) < MIN_CELLS:
        return measurement
    across, down = (table[:, 2:] / (4.0 * OUTLINE_TO_BOX)).T
    if abs(np.median(np.log(across / down))) < DETECTED_ASPECT:
        across = down = np.sqrt(across * down)
    moments = np.stack([across**2, down**2, np.zeros(len(table))], axis=1)
    diameter, aspect, spread = summarise(moments)
    return replace(
        measurement,
        cells=len(table),
        diameter=diameter,
        pixel_aspect_ratio=aspect,
        spread=spread,
        confidence=DETECTED_TRUST * confidence(len(table), spread),
        moments=moments,
        centres=table[:, :2] + table[:, 2:] / 2,
        arcs=0,
        ruler="detector",
    )


def summarise(moments: Floats) -> tuple[float, float, float]:
    """Diameter (geometric mean of both axes, px), aspect ratio, spread of log diameter."""
    if len(moments) == 0:
        return 0.0, 1.0, 0.0
    log_diameter = np.log(4.0 * OUTLINE_TO_BOX) + 0.25 * np.log(_determinant(moments))
    spread = float(np.std(log_diameter))
    return float(np.exp(np.median(log_diameter))), aspect_ratio_of(moments), spread


def aspect_ratio_of(moments: Floats) -> float:
    """Width / height of a round cell, from second moments (n, 3) of cells that need not be round.

    Tyler's M-estimator of shape (Annals of Statistics 15, 1987, eq. 1.2-1.3), restricted to the
    image axes: each cell's moments are scaled to unit determinant, and more elongated
    cells, after correction of the aspect ratio, have less weight. If cells lie in all directions
    the estimate is unbiased, however elongated they are.
    """
    unit = moments[:, :2] / np.sqrt(_determinant(moments))[:, None]
    shape = np.ones(2)
    for _ in range(30):
        weights = 1.0 / (unit / shape).sum(axis=1)
        updated = (weights[:, None] * unit).sum(axis=0)
        updated /= np.sqrt(updated.prod())
        done = np.abs(np.log(updated / shape)).max() < 1e-6
        shape = updated
        if done:
            break
    return float(np.sqrt(shape[0] / shape[1]))


def confidence(cells: int, spread: float) -> float:
    """0..1: one half where the standard error of the mean log diameter is `TRUSTED_ERROR`."""
    error = max(spread, TYPICAL_SPREAD) / np.sqrt(max(cells, 1))
    return float(1.0 / (1.0 + (error / TRUSTED_ERROR) ** 2))


def _determinant(moments: Floats) -> Floats:
    product: Floats = moments[:, 0] * moments[:, 1] - moments[:, 2] ** 2
    return product


Remeasure = Callable[[NDArray[np.uint8], Measurement], Measurement]


@dataclass(frozen=True)
class GroupScale:
    """The scale of a group of fields, e.g. of a folder.

    Attributes:
        pooled: their pooled measurement; `None` for a single field.
        measurements: of the fields that were measured for it, by key.
    """

    pooled: Pooled | None = None
    measurements: Mapping[Any, Measurement] = field(default_factory=dict)


def pool_sample(keys: Sequence[Key]) -> list[Key]:
    """Return an evenly spread sample of the fields of a group; empty for a single field.

    >>> pool_sample(["a"]), pool_sample(["a", "b"]), len(pool_sample(range(1000)))
    ([], ['a', 'b'], 24)
    """
    if len(keys) < 2:
        return []
    return [keys[i] for i in evenly_spread(len(keys), POOL_SAMPLE).tolist()]


def pool_scale(
    keys: Sequence[Key],
    load: Callable[[Key], NDArray[np.uint8] | None],
    *,
    remeasure: Remeasure | None = None,
    without: Collection[Key] = (),
    map_: Callable[..., Iterable[Any]] = map,
) -> GroupScale:
    """Measure a sample of a group's fields, spread over all of them; pool illumination and scale.

    Args:
        keys: the fields of the group.
        load: returns the pixels of one, uint8 RGB (H, W, 3); `None` or an error leaves it out.
        remeasure: measures a field by the red cells of a detector; called for some of the fields
            without measurable outlines if most fields have none.
        without: fields to leave out of the sample.
        map_: `map`, or the `map` of an executor.
    """
    if len(keys) < 2:
        return GroupScale()

    def readable(key: Key) -> NDArray[np.uint8] | None:
        try:
            return load(key)
        except Exception:
            return None  # the error is reported when the field itself is analysed

    pooled, measured = measure_fields(
        [key for key in pool_sample(keys) if key not in without], readable, map_
    )
    unmeasured = [key for key, found in measured.items() if not found.is_measurable]
    if remeasure is not None and len(unmeasured) > UNMEASURABLE_SHARE * len(measured):
        chosen = unmeasured[:: -(-len(unmeasured) // DETECTED_SAMPLE)]

        def again(key: Key) -> Measurement:
            image = readable(key)
            return measured[key] if image is None else remeasure(image, measured[key])

        measured |= dict(zip(chosen, map_(again, chosen), strict=True))
        pooled = regroup(pooled, list(measured.values()))
    return GroupScale(pooled, measured)


def pool(measurements: Sequence[Measurement]) -> Pooled:
    """Pool the fields of a folder into groups of equal scale, one per microscope.

    Only whole cells count, not arcs. Fields with at least `MIN_CELLS` are split wherever their
    diameters or aspect ratios form two distinct clusters; the cells of the other fields are added
    if there is a single group.
    """
    groups, note = _groups(measurements)
    sizes: dict[tuple[int, int], list[Measurement]] = {}
    for m in measurements:
        sizes.setdefault((m.width, m.height), []).append(m)
    lights = {
        size: _light(own)
        for size, own in sizes.items()
        if MIN_FIELDS <= len(own) < len(measurements)  # those of all fields are below
    }
    return Pooled(groups, note, _light(measurements), lights)


def _light(fields: Sequence[Measurement]) -> SharedLight:
    glares = [m.corrections.veiling_glare for m in fields]
    glare = float(np.quantile(glares, GLARE_QUANTILE)) if len(glares) > 1 else MAX_VEILING_GLARE
    return SharedLight(of_folder([m.light for m in fields if m.light is not None]), round(glare, 3))


def regroup(pooled: Pooled, measurements: Sequence[Measurement]) -> Pooled:
    """Return `pooled` with scale groups recomputed from other measurements of its fields."""
    groups, note = _groups(measurements)
    return replace(pooled, groups=groups, note=note)


def measure_fields(
    keys: Iterable[Key],
    load: Callable[[Key], NDArray[np.uint8] | None],
    map_: Callable[..., Iterable[Any]] = map,
) -> tuple[Pooled, dict[Key, Measurement]]:
    """Measure fields of one folder with their shared illumination, and pool them.

    Args:
        keys: names of the fields.
        load: returns the pixels of one; `None` if it cannot be read, which leaves it out.
        map_: `map`, or the `map` of an executor.
    """

    def first(key: Key) -> Measurement | None:
        image = load(key)
        return None if image is None else measure(image)

    def again(key: Key) -> Measurement | None:
        image = load(key)
        return (
            None
            if image is None
            else measure(image, ScalePrior(pooled=pooled).illumination_of(image))
        )

    names = list(keys)
    seen = zip(names, map_(first, names), strict=True)
    measured = {key: found for key, found in seen if found is not None}
    pooled = pool(list(measured.values()))
    shared = (pooled.light, *pooled.lights.values())
    if any(light.illumination.method != "none" for light in shared):
        names = list(measured)
        seen = zip(names, map_(again, names), strict=True)
        measured = {key: found for key, found in seen if found is not None}
        pooled = regroup(pooled, list(measured.values()))
    return pooled, measured


def _groups(measurements: Sequence[Measurement]) -> tuple[tuple[Group, ...], str]:
    measurable = [m for m in measurements if m.cells >= MIN_CELLS]
    unmeasured = [m for m in measurements if 0 < m.cells < MIN_CELLS]
    if not measurable:
        if sum(m.cells for m in unmeasured) < MIN_CELLS:
            return (), "too few whole red cells in these images to tell their scale"
        return (_group(unmeasured),), "few whole red cells in any one image"
    clusters = [c for part in _by_image_size(measurable) for c in _split(part)]
    if len(clusters) == 1:
        clusters = [measurable + unmeasured]
    groups = sorted((_group(c) for c in clusters), key=lambda g: (-g.fields, g.diameter))
    note = ""
    if len(groups) > 1:
        scales = ", ".join(f"{g.fields} with red cells of {g.diameter:.0f} px" for g in groups)
        note = f"images of different scale or pixel aspect ratio, kept apart: {scales}"
    return tuple(groups), note


def _group(fields: Sequence[Measurement]) -> Group:
    moments = np.vstack([m.moments for m in fields])
    middle = np.median(np.log(_determinant(moments)))
    # An isolated blob in a field without red cells may be a platelet or a white cell.
    near = np.abs(np.log(_determinant(moments)) - middle) < 4 * MIN_GAP
    diameter, aspect, spread = summarise(moments[near])
    sizes = frozenset((m.width, m.height) for m in fields)
    cells = int(near.sum())
    return Group(diameter, aspect, spread, cells, len(fields), confidence(cells, spread), sizes)


def _by_image_size(fields: list[Measurement]) -> list[list[Measurement]]:
    """Split fields by image size if red cells differ between sizes by more than `SIZE_GAP`.

    Images of another size with cells of another size come from another camera, so a smaller gap
    suffices. Sizes with fewer than three fields join the size of the nearest scale.
    """
    sizes: dict[tuple[int, int], list[Measurement]] = {}
    for m in fields:
        sizes.setdefault((m.width, m.height), []).append(m)
    middles = {
        size: float(np.median([np.log(m.diameter) for m in members]))
        for size, members in sizes.items()
        if len(members) >= 3
    }
    if not middles or max(middles.values()) - min(middles.values()) < SIZE_GAP:
        return [fields]
    parts: dict[tuple[int, int], list[Measurement]] = {size: [] for size in middles}
    for m in fields:
        size = (m.width, m.height)
        if size not in parts:
            size = min(middles, key=lambda s: abs(middles[s] - np.log(m.diameter)))
        parts[size].append(m)
    return list(parts.values())


def _split(fields: list[Measurement]) -> list[list[Measurement]]:
    """Split fields recursively where a gap separates two clusters."""
    for key in ("diameter", "pixel_aspect_ratio"):
        fields = sorted(fields, key=lambda m: float(getattr(m, key)))
        at = _gap(np.log([float(getattr(m, key)) for m in fields]))
        if at:
            return _split(fields[:at]) + _split(fields[at:])
    return [fields]


def _gap(values: Floats) -> int:
    """Return where sorted values split into two distinct clusters; 0 if they do not.

    The split with the smallest within-cluster sum of squares counts if the medians differ by
    `MIN_GAP` and by four times the within-cluster scatter; a cluster of fewer than three fields,
    which may be a mismeasurement, needs `LONE_GAP`.
    """
    n = len(values)
    if n < 2:
        return 0
    count = np.arange(1, n)
    total, squares = np.cumsum(values), np.cumsum(values**2)
    left = squares[:-1] - total[:-1] ** 2 / count
    right = squares[-1] - squares[:-1] - (total[-1] - total[:-1]) ** 2 / (n - count)
    at = int(np.argmin(left + right)) + 1
    low, high = values[:at], values[at:]
    apart = np.median(high) - np.median(low)
    scatter = 1.4826 * np.median(np.concatenate([abs(c - np.median(c)) for c in (low, high)]))
    needed = MIN_GAP if min(len(low), len(high)) >= 3 else LONE_GAP
    return at if apart > max(needed, 4 * scatter) else 0
