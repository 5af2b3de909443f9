"""Fields that show the same glass, found by content: any shift, upright or turned by 180 degrees.

Two steps. Every pair of small, band-passed pictures is cross-correlated at all shifts at once, and
the best shift is scored by how unlikely it is by chance: a correlation over n independent pixels
has deviation 1 / sqrt(n) (Fisher 1915), so a small overlap must agree better than a large one.
What stands out is then checked at full size by normalised cross-correlation over the overlap
(Lewis, "Fast Normalized Cross-Correlation", 1995), refining the shift to whole pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Box
from bloodfilm.core.boxes import clip
from bloodfilm.core.progress import NoProgress, Progress, counter

Grey = NDArray[np.uint8]
"""(H, W)."""
Small = NDArray[np.float32]
"""(SIDE, SIDE), of unit deviation."""
Surface = NDArray[np.float32]
Load = Callable[[int], Grey]

SIDE = 96
"""Pixels per side of a small picture; it is padded to twice that, so that shifts do not wrap."""
BAND = 2.5  # small pixels; slower changes, such as vignetting, are taken out
MIN_SHARE = 0.06
MIN_Z = 6.0
# Cells are alike, so unrelated fields correlate too: real pairs that overlap by 5 % or more score
# 1.3 times the median of all pairs and up.
STANDS_OUT = 1.2
ENOUGH_PAIRS = 60
MIN_NCC = 0.9
SMALL_OVERLAP, SMALL_MIN_NCC = 30_000, 0.96
"""An overlap of fewer pixels than this holds few cells: it must agree better."""
MIN_CONTRAST = 3.0  # grey levels; two empty overlaps agree whatever they show
BLOCK = 32
QUARTER = 4.0
MIN_QUARTER_NCC = 0.65
IDENTICAL_SHARE = 0.98
ALIKE_SIDE = 24
MIN_ALIKE = 0.93


@dataclass(frozen=True, slots=True)
class FieldOverlap:
    """Two fields that show the same glass.

    Attributes:
        first, second: the fields' numbers.
        turned: whether the second is upside down against the first.
        shift: (x, y) in pixels: a point p of the second (after turning it about the field's
            centre, if `turned`) lies at p + shift of the first.
        ncc: normalised cross-correlation over the overlap, in [-1, 1].
        share: of the field that the overlap covers.
        size: (width, height) of both fields.
    """

    first: int
    second: int
    turned: bool
    shift: tuple[float, float]
    ncc: float
    share: float
    size: tuple[int, int]

    @property
    def identical(self) -> bool:
        """Whether it is one picture twice."""
        return self.share >= IDENTICAL_SHARE

    def common(self) -> tuple[Box, Box]:
        """Return the rectangle both fields show, in the first's pixels and in the second's."""
        seen = clip(self.to_first(np.array([[0.0, 0.0, *self.size]])), *self.size)
        back = clip(self.swapped().to_first(np.array([[0.0, 0.0, *self.size]])), *self.size)
        (a, b, c, d), (e, f, g, h) = seen[0].tolist(), back[0].tolist()
        return (a, b, c, d), (e, f, g, h)

    def to_first(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert boxes (n, 4) of the second field to the first's pixels."""
        moved = boxes.copy()
        if self.turned:
            moved[:, 0] = self.size[0] - boxes[:, 0] - boxes[:, 2]
            moved[:, 1] = self.size[1] - boxes[:, 1] - boxes[:, 3]
        moved[:, :2] += self.shift
        return moved

    def swapped(self) -> "FieldOverlap":
        """Return the same overlap seen from the other field."""
        sign = 1.0 if self.turned else -1.0
        shift = (sign * self.shift[0], sign * self.shift[1])
        return replace(self, first=self.second, second=self.first, shift=shift)


def small_picture(grey: Grey) -> Small:
    """Return the small, band-passed picture (SIDE, SIDE) of unit deviation."""
    small = np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.float32)
    band = small - cv2.GaussianBlur(small, (0, 0), BAND)
    deviation = float(band.std())
    return np.asarray(np.clip(band / max(deviation, 1e-3), -4, 4), dtype=np.float32)


def find_overlaps(
    small: Sequence[Small],
    load: Load,
    quarter: Load,
    numbers: Sequence[int],
    progress: Progress | None = None,
) -> list[FieldOverlap]:
    """Return the overlaps among fields of one size, by first, then second field.

    Args:
        small: `small_picture` of each field.
        load: returns the grey picture of a field by its number; called for few pairs.
        quarter: returns the same picture reduced to a quarter (`reduced`); called for more.
        numbers: the fields' numbers, as long as `small`.
        progress: follows the fields that have been compared with all others.
    """
    found = []
    for one, two, turned, shift in _candidates(small, progress or NoProgress()):
        overlap = verify(load, quarter, (numbers[one], numbers[two]), turned, shift)
        if overlap is not None:
            found.append(overlap)
    return sorted(_best(found), key=lambda o: (o.first, o.second))


def _best(found: list[FieldOverlap]) -> list[FieldOverlap]:
    """Keep the better of two ways in which one pair may fit."""
    best: dict[tuple[int, int], FieldOverlap] = {}
    for overlap in found:
        key = overlap.first, overlap.second
        if key not in best or overlap.ncc > best[key].ncc:
            best[key] = overlap
    return list(best.values())


# ---- candidates ------------------------------------------------------------------------------


def _candidates(
    small: Sequence[Small], progress: Progress
) -> Iterator[tuple[int, int, bool, tuple[float, float]]]:
    """Yield (first, second, turned, shift as a share of the field) of pairs that stand out."""
    padded = (2 * SIDE, 2 * SIDE)
    spectra = np.stack([np.fft.rfft2(s, padded).astype(np.complex64) for s in small])
    weight = _weights()
    found: list[tuple[float, int, int, bool, int]] = []
    count = counter(progress, "comparing fields", len(small))
    for one in range(len(small) - 1):
        for start in range(one + 1, len(small), BLOCK):
            block = spectra[start : start + BLOCK]
            for turned in (False, True):
                product = spectra[one] * (block if turned else np.conj(block))
                surface = np.fft.irfft2(product, padded).astype(np.float32, copy=False)
                flat = (surface * weight[turned]).reshape(len(block), -1)
                peaks = flat.argmax(axis=1)
                for place, peak in enumerate(peaks.tolist()):
                    found.append((float(flat[place, peak]), one, start + place, turned, peak))
        count(one + 1)
    scores = np.array([f[0] for f in found])
    ordinary = float(np.median(scores)) if len(scores) >= ENOUGH_PAIRS else 0.0
    least = max(MIN_Z, STANDS_OUT * ordinary)
    for score, one, two, turned, peak in found:
        if score >= least:
            yield one, two, turned, _shift(peak, turned)


def _shifts(turned: bool) -> NDArray[np.int64]:
    """Return the shift that each place of a padded correlation stands for, in small pixels."""
    place = np.arange(2 * SIDE)
    if turned:  # correlating with the picture turned is convolving: place = x1 + x2
        return np.asarray(place - (SIDE - 1))
    return np.asarray((place + SIDE) % (2 * SIDE) - SIDE)


def _weights() -> dict[bool, Surface]:
    """Return, per turn, 1 / sqrt(pixels that overlap) at each place; 0 where too few do."""
    weights = {}
    for turned in (False, True):
        along = np.clip(SIDE - np.abs(_shifts(turned)), 0, None).astype(np.float64)
        count = np.outer(along, along)
        enough = count >= MIN_SHARE * SIDE * SIDE
        weights[turned] = np.where(enough, 1 / np.sqrt(np.maximum(count, 1)), 0).astype(np.float32)
    return weights


def _shift(peak: int, turned: bool) -> tuple[float, float]:
    row, column = divmod(peak, 2 * SIDE)
    shifts = _shifts(turned)
    return float(shifts[column]) / SIDE, float(shifts[row]) / SIDE


# ---- verification ----------------------------------------------------------------------------


def reduced(grey: Grey) -> Grey:
    """Return a grey picture at a quarter of its size, for the first step of checking."""
    height, width = grey.shape
    size = max(1, round(width / QUARTER)), max(1, round(height / QUARTER))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def verify(
    load: Load, quarter: Load, pair: tuple[int, int], turned: bool, shift: tuple[float, float]
) -> FieldOverlap | None:
    """Check at full size whether two fields overlap by about a shift, given as a share of a field.

    Returns the overlap with its shift to the pixel, `None` if they do not agree.
    """
    x, y, ncc = _at(quarter, pair, turned, shift, slack=1.5 / SIDE)
    if ncc < MIN_QUARTER_NCC:
        return None
    slack = 1.5 / min(quarter(pair[0]).shape)
    x, y, ncc = _at(load, pair, turned, (x, y), slack)
    share = max(0.0, 1 - abs(x)) * max(0.0, 1 - abs(y))
    height, width = load(pair[0]).shape
    needed = SMALL_MIN_NCC if share * width * height < SMALL_OVERLAP else MIN_NCC
    if ncc < needed or share < MIN_SHARE / 2:
        return None
    moved = float(round(x * width)), float(round(y * height))
    return FieldOverlap(*pair, turned, moved, round(ncc, 4), round(share, 4), (width, height))


def _at(
    load: Load, pair: tuple[int, int], turned: bool, shift: tuple[float, float], slack: float
) -> tuple[float, float, float]:
    """Return the best shift within `slack` of one (all as shares of a field), and its NCC."""
    first, second = load(pair[0]), load(pair[1])
    if first.shape != second.shape:
        return *shift, -1.0
    if turned:
        second = np.ascontiguousarray(second[::-1, ::-1])
    height, width = first.shape
    a, b = (np.asarray(cv2.GaussianBlur(g, (0, 0), 0.8), np.float32) for g in (first, second))
    step = int(np.ceil(slack * max(width, height))) + 1
    dx, dy, ncc = _refine(a, b, (round(shift[0] * width), round(shift[1] * height)), step)
    return dx / width, dy / height, ncc


def _refine(a: Surface, b: Surface, shift: tuple[int, int], step: int) -> tuple[int, int, float]:
    """Return the whole shift within `step` of the given one that correlates best, and how well."""
    height, width = a.shape
    best = (shift[0], shift[1], -1.0)
    dx, dy = shift
    # The part of b that stays inside a for every shift tried.
    x0, x1 = max(0, step - dx), min(width, width - dx - step)
    y0, y1 = max(0, step - dy), min(height, height - dy - step)
    if x1 - x0 < 6 or y1 - y0 < 6:
        return best
    template = b[y0:y1, x0:x1]
    if template.std() < MIN_CONTRAST:
        return best
    top, left = y0 + dy - step, x0 + dx - step
    window = a[top : top + (y1 - y0) + 2 * step, left : left + (x1 - x0) + 2 * step]
    surface = cv2.matchTemplate(window, template, cv2.TM_CCOEFF_NORMED)
    _, value, _, (px, py) = cv2.minMaxLoc(surface)
    return dx - step + px, dy - step + py, float(value)


# ---- one picture twice, whatever the patient and the name ----------------------------------------


def alike_pairs(small: Sequence[Small]) -> Iterator[tuple[int, int, bool]]:
    """Yield (first, second, turned) of whole pictures that look the same, whatever their names.

    Cheap enough for thousands of fields: small pictures, compared by one matrix product per block.
    """
    if len(small) < 2:
        return
    size = (ALIKE_SIDE, ALIKE_SIDE)
    listed = [cv2.resize(s, size, interpolation=cv2.INTER_AREA) for s in small]
    thumbnails = np.stack(listed).astype(np.float32)
    upright = _unit(thumbnails)
    turned = _unit(thumbnails[:, ::-1, ::-1])
    for start in range(0, len(small), 512):
        for is_turned, other in ((False, upright), (True, turned)):
            likeness = upright[start : start + 512] @ other.T
            for row, column in np.argwhere(likeness >= MIN_ALIKE).tolist():
                if column > start + row:
                    yield start + row, column, is_turned


def _unit(pictures: Surface) -> Surface:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))
