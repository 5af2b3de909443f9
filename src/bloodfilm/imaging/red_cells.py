"""Find whole, single red cells by their outline: the size reference of a field.

No learning and no colour rule: everything that absorbs light is foreground; isolated blobs that are
convex and fill their ellipse of inertia are candidates; the commonest size and darkness among
them, weighted by area, are the red cells. White cells, platelets, dust and clumps fall outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.imaging.channels import brightest, byte_histogram
from bloodfilm.imaging.circle_fit import find_arcs

WORK_SIDE = 720
SAMPLE_SIDE = 160
MIN_DIAMETER = 7.0
MIN_SOLIDITY = 0.94
MIN_ELLIPTICITY = 0.975
MAX_ASPECT = 3.0
SIZE_BANDWIDTH = 0.09
ENOUGH = 8
FEW = 3
MIN_ARC_RADIUS = 12.0
ERODE: tuple[float, ...] = (0.3, 0.5)
MIN_LEVEL = 6.0
VALLEY_RISE = 1.1
HUE_WIDTH = 0.12
STRENGTH_WIDTH = 0.3
MIN_LIKENESS = 0.1
SIZE_POWER = 1.0
LEVEL_SHARE = 0.5
MAX_LEVEL_SHARE = 0.7
MIN_COVER = 0.02
SIZE_GATE = 0.25

_GAUSS = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
_ROOTS = np.sqrt(np.arange(256)).astype(np.intp)


@dataclass(frozen=True, eq=False)
class RedCells:
    """Outlines taken for whole red cells, in pixels of the image they were found in.

    `centres` (n, 2); `moments` (n, 3): second central moments xx, yy, xy of the filled outline
    (a disc of diameter d has xx = yy = d^2 / 16). `arcs` (n,): diameters of circles through parts
    of outlines, searched only where whole cells are too few.
    """

    centres: Floats
    moments: Floats
    arcs: Floats


def background_colour(
    image: Pixels, mask: NDArray[np.bool_] | None = None
) -> tuple[float, float, float]:
    """RGB of empty glass: the commonest colour of the bright part of the image (H, W, 3).

    Only pixels inside `mask` (H, W) count.

    Blood only absorbs, so empty glass is the bright peak of the sum of channels. The bright part
    is separated by Otsu's threshold (IEEE Trans. SMC 1979).
    """
    step = max(1, max(image.shape) // (2 * SAMPLE_SIDE))
    image = np.ascontiguousarray(image[::step, ::step])
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    inside = None if mask is None else np.ascontiguousarray(mask[::step, ::step])
    counts = byte_histogram(np.asarray(grey, dtype=np.uint8), inside)
    smooth = np.convolve(counts, np.ones(5) / 5, mode="same")
    cut = otsu(counts)
    peak = cut + 1 + int(np.argmax(smooth[cut + 1 :])) if cut < 255 else 255
    chosen = np.asarray(cv2.inRange(grey, max(peak - 4, 0), min(peak + 4, 255)), dtype=np.uint8)
    if inside is not None:
        chosen[~inside] = 0
    red, green, blue = (
        _histogram_median(byte_histogram(np.asarray(channel, dtype=np.uint8), chosen))
        for channel in cv2.split(image)
    )
    return red, green, blue


def otsu(histogram: Floats) -> int:
    """Last bin of the lower class by Otsu's criterion, middle of a plateau of equal optima."""
    weights = histogram / max(histogram.sum(), 1.0)
    omega = np.cumsum(weights)
    mu = np.cumsum(weights * np.arange(len(weights)))
    spread = omega * (1.0 - omega)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.where(spread > 1e-12, (mu[-1] * omega - mu) ** 2 / spread, 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return int(best[len(best) // 2])


def _histogram_median(counts: Floats) -> float:
    """Median of binned integers, interpolated inside its bin."""
    cumulative = np.cumsum(counts)
    half = cumulative[-1] / 2
    at = int(np.searchsorted(cumulative, half))
    if cumulative[-1] == 0 or counts[at] == 0:
        return 255.0
    before = cumulative[at] - counts[at]
    return float(np.clip(at - 0.5 + (half - before) / counts[at], 0, 255))


def absorption(image: Pixels, white: tuple[float, float, float]) -> Pixels:
    """How much darker than the background each channel is: 255 (1 - p / white), (H, W, 3)."""
    ramp = np.arange(256, dtype=np.float64)[:, None]
    table = 255.0 * (1.0 - ramp / np.maximum(np.array(white), 1.0)[None, :])
    lut = np.clip(np.rint(table), 0, 255).astype(np.uint8).reshape(1, 256, 3)
    return np.asarray(cv2.LUT(image, lut), dtype=np.uint8)


def find_red_cells(image: Pixels, white: tuple[float, float, float]) -> RedCells:
    """Whole single red cells of a field (H, W, 3), given its background colour.

    Arcs of cut or overlapping cells are searched only where whole cells are too few.
    """
    scale = min(1.0, WORK_SIDE / max(image.shape[:2]))
    small = image
    if scale < 1.0:
        small = np.asarray(
            cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        )
    factors = image.shape[1] / small.shape[1], image.shape[0] / small.shape[0]
    scene = _look(small, white)
    best, arcs = np.zeros((0, 6)), np.zeros(0)
    if scene.level >= MIN_LEVEL:
        found = _commonest(_search(scene))
        # The only single round blobs may be dust; red cells cover more of the field.
        covered = 4 * np.pi * float((_sizes(found) ** 2).sum())
        if covered > MIN_COVER * np.count_nonzero(scene.mask):
            best = found
        if len(best) < FEW:
            arcs = _arcs(scene) * float(np.sqrt(factors[0] * factors[1]))
    stretch = np.array([factors[0] ** 2, factors[1] ** 2, factors[0] * factors[1]])
    return RedCells(best[:, :2] * factors, best[:, 2:5] * stretch, arcs)


@dataclass(frozen=True, eq=False)
class _Scene:
    """A preprocessed field: absorption per channel, threshold, tone of red cells, foreground."""

    colours: Pixels
    level: float
    tone: Floats
    mask: Pixels
    outlines: Sequence[cv2.typing.MatLike]

    @cached_property
    def depth(self) -> NDArray[np.float32]:
        """Distance of every pixel inside an outline from the outside, px."""
        filled = cv2.drawContours(np.zeros_like(self.mask), self.outlines, -1, 255, cv2.FILLED)
        return np.asarray(cv2.distanceTransform(filled, cv2.DIST_L2, 3), dtype=np.float32)


def _look(image: Pixels, white: tuple[float, float, float]) -> _Scene:
    """Foreground mask, by a threshold at half the red cells' tone."""
    colours = absorption(np.asarray(cv2.blur(image, (3, 3)), dtype=np.uint8), white)
    dark = brightest(colours)
    level, tone = _level(colours, dark)
    mask = cv2.threshold(dark, level, 255, cv2.THRESH_BINARY)[1]
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opened = np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, cross), dtype=np.uint8)
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return _Scene(colours, level, tone, opened, outlines)


def _level(colours: Pixels, dark: Pixels) -> tuple[float, Floats]:
    """Threshold for red cells, half of their tone, and the tone (3,) itself.

    The tone is the commonest one of all that is darker than the valley beside the background's
    peak: red cells cover more of a film than nuclei do. Half of it puts outlines on half-way
    edges, so that sizes do not depend on stain or blur.
    """
    cut = _valley(byte_histogram(dark))
    step = max(1, max(dark.shape) // SAMPLE_SIDE)
    tone = _main_tone(colours[::step, ::step], dark[::step, ::step] > cut)
    # Half the tone of very pale cells may lie in the background's noise; the valley does not.
    strength = float(tone.max())
    return max(LEVEL_SHARE * strength, min(cut, MAX_LEVEL_SHARE * strength)), tone


def _valley(histogram: Floats) -> int:
    """First real valley right of the background's peak, at most Otsu's threshold."""
    smooth = np.convolve(histogram, _GAUSS, mode="same")
    limit = max(otsu(histogram), 1)
    start = int(np.argmax(smooth[:limit]))
    lowest = start
    for level in range(start, limit):
        if smooth[level] < smooth[lowest]:
            lowest = level
        elif smooth[level] > VALLEY_RISE * smooth[lowest]:
            return lowest
    return limit


def _main_tone(colours: Pixels, mask: NDArray[np.bool_]) -> Floats:
    """The commonest absorption (3,) among the chosen pixels, by a coarse smoothed histogram.

    Bins are even in the square root, so that pale tones are resolved as well as dark ones.
    """
    chosen = colours[mask]
    if len(chosen) == 0:
        return np.zeros(3)
    bins = [_ROOTS[channel] for channel in np.ascontiguousarray(chosen.T)]
    index = (bins[0] * 16 + bins[1]) * 16 + bins[2]
    cube = np.bincount(index, minlength=4096).reshape(16, 16, 16).astype(np.float64)
    for axis in range(3):
        along = np.moveaxis(cube, axis, 0)
        before = along.copy()
        along[1:] += before[:-1]
        along[:-1] += before[1:]
    peak = np.unravel_index(int(np.argmax(cube)), cube.shape)
    near = np.logical_and.reduce([np.abs(b - at) <= 1 for b, at in zip(bins, peak, strict=True)])
    tone: Floats = chosen[near].mean(axis=0, dtype=np.float64)
    return tone


def _search(scene: _Scene) -> Floats:
    """Single round blobs (n, 6): those that stand alone, then those that only touch others.

    Columns: x, y, xx, yy, xy, likeness to the tone (0..1).
    """
    alone = _blobs(scene, scene.outlines, 0.0)
    if len(alone) >= ENOUGH:
        return alone
    depth = scene.depth
    few = alone[alone[:, 5] > MIN_LIKENESS]
    radius = _rough_radius(depth)
    if len(few) >= FEW:
        radius = 2 * float(np.median(np.sqrt(few[:, 2:4].min(axis=1))))
    tables = [alone]
    for peel in (share * radius for share in ERODE):
        if peel < 2.0:
            continue
        cores = np.asarray(depth > peel, dtype=np.uint8)
        outlines, _ = cv2.findContours(cores, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        touching = _blobs(scene, outlines, peel)
        known = np.vstack(tables)
        gap = np.hypot(*(touching[:, None, :2] - known[None, :, :2]).transpose(2, 0, 1))
        tables.append(touching[gap.min(axis=1, initial=np.inf) > radius])
    return np.vstack(tables)


def _rough_radius(depth: NDArray[np.float32]) -> float:
    """Approximate radius of a cell, from the thickness of the foreground; 0 without any."""
    sample = depth[::2, ::2]
    inside = sample[sample > 0]
    return float(np.percentile(inside, 95)) if len(inside) else 0.0


def _arcs(scene: _Scene) -> Floats:
    """Diameters (n,) of circles through arcs of the outlines, of the commonest size only."""
    height, width = scene.mask.shape
    radius = _rough_radius(scene.depth)
    if radius < MIN_ARC_RADIUS:
        return np.zeros(0)
    rows = []
    for x, y, diameter, coverage in find_arcs(scene.outlines, (height, width), radius):
        reach = 0.3 * diameter
        rows_in = slice(max(int(y - reach), 0), max(int(y + reach), 0))
        columns_in = slice(max(int(x - reach), 0), max(int(x + reach), 0))
        part = scene.colours[rows_in, columns_in]
        if part.size and _likeness(np.array(cv2.mean(part)[:3]), scene.tone) > MIN_LIKENESS:
            rows.append((diameter, coverage))
    if not rows:
        return np.zeros(0)
    diameter, coverage = np.array(rows, dtype=np.float64).T
    gap = np.abs(np.log(diameter[:, None] / diameter[None, :]))
    peak = int(np.argmax(np.exp(-0.5 * (gap / SIZE_BANDWIDTH) ** 2) @ coverage))
    chosen: Floats = diameter[gap[peak] < 2 * SIZE_BANDWIDTH]
    return chosen


def _blobs(scene: _Scene, outlines: Sequence[cv2.typing.MatLike], peel: float) -> Floats:
    """Outlines that are round, whole and alone: (n, 6); `peel` px were taken off all around."""
    height, width = scene.mask.shape
    margin = 1 + int(np.ceil(peel))
    rows = []
    for contour in outlines:
        if len(contour) < 2 * MIN_DIAMETER:
            continue
        x, y, w, h = cv2.boundingRect(contour)
        if min(x, y) <= margin or x + w >= width - margin or y + h >= height - margin:
            continue
        shape = _round(contour, peel)
        if shape is None:
            continue
        inside = scene.mask[y : y + h, x : x + w]
        if peel:
            own = cv2.drawContours(np.zeros_like(inside), [contour], -1, 255, -1, offset=(-x, -y))
            inside = inside & np.asarray(own, dtype=np.uint8)
        mean = cv2.mean(scene.colours[y : y + h, x : x + w], inside)[:3]
        rows.append((*shape, _likeness(np.array(mean), scene.tone)))
    return np.array(rows, dtype=np.float64).reshape(-1, 6)


def _likeness(colour: Floats, tone: Floats) -> float:
    """0..1: similarity of a blob to the tone, in absorption and hue."""
    strength, expected = float(np.linalg.norm(colour)), float(np.linalg.norm(tone))
    angle = np.arccos(min(1.0, float(colour @ tone) / max(strength * expected, 1e-9)))
    ratio = np.log(max(strength, 1e-9) / expected)
    return float(np.exp(-0.5 * ((angle / HUE_WIDTH) ** 2 + (ratio / STRENGTH_WIDTH) ** 2)))


def _round(
    contour: cv2.typing.MatLike, peel: float
) -> tuple[float, float, float, float, float] | None:
    """Centre and second moments of an outline that is convex and elliptical, else None."""
    m = cv2.moments(contour)
    area = m["m00"]
    if area < MIN_DIAMETER**2 / 2:
        return None
    hull = cv2.contourArea(cv2.convexHull(contour))
    if area < MIN_SOLIDITY * hull:
        return None
    xx, yy, xy = m["mu20"] / area, m["mu02"] / area, m["mu11"] / area
    determinant = xx * yy - xy * xy
    # An ellipse has area 4 pi sqrt(det) whatever its axes; every other shape has less.
    if determinant <= 0 or area < MIN_ELLIPTICITY * 4 * np.pi * np.sqrt(determinant):
        return None
    if max(xx, yy) > MAX_ASPECT**2 * min(xx, yy):
        return None
    # The outline runs through the centres of edge pixels, half a pixel inside on either side.
    lost = (0.5 + peel) / 2
    grow_x, grow_y = 1 + lost / np.sqrt(xx), 1 + lost / np.sqrt(yy)
    centre = m["m10"] / area, m["m01"] / area
    return *centre, xx * grow_x**2, yy * grow_y**2, xy * grow_x * grow_y


def _sizes(table: Floats) -> Floats:
    """Fourth root of the determinant of the moments: a quarter of the diameter."""
    sizes: Floats = (table[:, 2] * table[:, 3] - table[:, 4] ** 2) ** 0.25
    return sizes


def _commonest(table: Floats) -> Floats:
    """The blobs (n, 6) of the commonest size among those like red cells in tone."""
    table = table[table[:, 5] > MIN_LIKENESS]
    if len(table) == 0:
        return table
    size = np.log(_sizes(table))
    gap = np.abs(size[:, None] - size[None, :])
    votes = np.exp(-0.5 * (gap / SIZE_BANDWIDTH) ** 2) @ (table[:, 5] * np.exp(SIZE_POWER * size))
    peak = int(np.argmax(votes))
    centre = np.median(size[gap[peak] < 2 * SIZE_BANDWIDTH])
    return table[np.abs(size - centre) < SIZE_GATE]


def red_cell_tone(image: Pixels, white: tuple[float, float, float]) -> Floats:
    """Absorption (3,), 0..255 per channel, of what covers most of a field: its red cells.

    `image` (H, W, 3); `white` is its background colour. Zero where nothing is on the glass.
    """
    step = max(1, max(image.shape[:2]) // (2 * SAMPLE_SIDE))
    small = np.ascontiguousarray(image[::step, ::step])
    colours = absorption(np.asarray(cv2.blur(small, (3, 3)), dtype=np.uint8), white)
    return _level(colours, brightest(colours))[1]
