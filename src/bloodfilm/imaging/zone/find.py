"""Find the monolayer of a slide: where red cells lie side by side, show their pallor, are sharp."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Image
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress, counter
from bloodfilm.imaging.sources.base import ImageSource
from bloodfilm.imaging.zone.features import (
    FEATURE_UM,
    BlockFeatures,
    RedCellReference,
    block_features,
)
from bloodfilm.imaging.zone.zone import Zone, block_size, grid_shape

OVERVIEW = 2048
"""Longest side, px, of the picture in which empty glass is told from film."""
GLASS = 0.04
"""Blocks that absorb less on average, in layers of red cells, are empty glass."""
MIN_SINGLES = 6
THRESHOLD = 0.5
"""Smoothed score from which on a block belongs to the zone."""
UNCERTAIN = 0.2
"""The same where no block reaches `THRESHOLD`."""
MIN_BLOCKS = 3
"""Smaller parts are chance."""
PALLOR_SEEN = 0.93
"""If the best tenth of blocks has no deeper pallor, this slide shows none and it tells nothing."""

Scores = NDArray[np.float64]
Ramp = tuple[float, float]

ISOLATED: Ramp = (0.15, 0.45)
COVERED_LOW: Ramp = (0.06, 0.13)
COVERED_HIGH: Ramp = (0.75, 0.55)
LAYERS: Ramp = (1.6, 1.3)
PALLOR: Ramp = (0.97, 0.88)
SHARPNESS: Ramp = (0.3, 0.55)
"""Of the slide's sharpest tenth."""
FOREIGN: Ramp = (0.15, 0.03)


def find_zone(
    source: ImageSource,
    um_per_px: tuple[float, float],
    reference: RedCellReference,
    *,
    progress: Progress | None = None,
    map_: Callable[..., Iterable[Any]] = map,
) -> Zone:
    """Score the film of a slide block by block, and choose its monolayer.

    Args:
        source: the slide.
        um_per_px: along x and y.
        reference: how its glass and red cells look.
        progress: follows the rows of blocks.
        map_: `map`, or the `map` of an executor.

    Returns:
        the zone; it is empty where nothing looks like single red cells, and has the issue
        `zone-uncertain` where no block is clearly a monolayer.
    """
    width, height = source.size
    block = block_size(um_per_px)
    shape = grid_shape(width, height, block)
    film = _film(source, reference, block, shape)
    rows = [row for row in range(shape[0]) if film[row].any()]
    count = counter(progress or NoProgress(), "finding the zone", len(rows))
    count(0)

    def measured(row: int) -> list[BlockFeatures]:
        return _row_features(source, reference, um_per_px, row, film[row])

    features = [[BlockFeatures()] * shape[1] for _ in range(shape[0])]
    for number, (row, found) in enumerate(zip(rows, map_(measured, rows), strict=True), 1):
        features[row] = found
        count(number)
    scores = score_blocks(features)
    chosen, uncertain = choose(scores)
    issues: tuple[Issue, ...] = ()
    if uncertain:
        message = "no part of the film is clearly a monolayer; the parts that come nearest are used"
        best = round(float(scores.max(initial=0.0)), 3)
        issues = (issue(issue_codes.ZONE_UNCERTAIN, message, best_score=best),)
    return Zone(width, height, block, um_per_px, "found", chosen, scores, issues=issues)


def _film(
    source: ImageSource,
    reference: RedCellReference,
    block: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.bool_]:
    """Return which blocks are not empty glass, by a small picture of the slide."""
    overview = source.thumbnail(OVERVIEW)
    layers, other = reference.split(overview)
    seen = np.maximum(np.minimum(layers, 3.0), other)
    fx, fy = overview.shape[1] / source.size[0], overview.shape[0] / source.size[1]
    film = np.zeros(shape, dtype=bool)
    for row in range(shape[0]):
        y0 = int(row * block[1] * fy)
        y1 = max(y0 + 1, min(overview.shape[0], round((row + 1) * block[1] * fy)))
        for column in range(shape[1]):
            x0 = int(column * block[0] * fx)
            x1 = max(x0 + 1, min(overview.shape[1], round((column + 1) * block[0] * fx)))
            part = seen[y0:y1, x0:x1]
            film[row, column] = bool(part.size and float(part.mean()) > GLASS)
    return film


def _row_features(
    source: ImageSource,
    reference: RedCellReference,
    um_per_px: tuple[float, float],
    row: int,
    film: NDArray[np.bool_],
) -> list[BlockFeatures]:
    """Measure the blocks of one row that hold film, read in runs of neighbours."""
    width, height = source.size
    block = block_size(um_per_px)
    y = row * block[1]
    rows = min(block[1], height - y)
    found = [BlockFeatures()] * len(film)
    for first, last in _runs(film):
        x = first * block[0]
        columns = min(last * block[0], width) - x
        pixels = _at_feature_scale(source, (x, y, columns, rows), um_per_px)
        for column in range(first, last):
            left = round((column * block[0] - x) * um_per_px[0] / FEATURE_UM)
            right = round((min((column + 1) * block[0], width) - x) * um_per_px[0] / FEATURE_UM)
            part = np.ascontiguousarray(pixels[:, left:right])
            # A sliver at the edge of the slide shows too few cells.
            if min(part.shape[:2]) * FEATURE_UM >= 0.4 * block[0] * um_per_px[0]:
                found[column] = block_features(part, reference)
    return found


def _at_feature_scale(
    source: ImageSource, region: tuple[int, int, int, int], um_per_px: tuple[float, float]
) -> Image:
    um = min(um_per_px)
    pixels = source.read_region(*region, downsample=max(1.0, FEATURE_UM / um))
    size = tuple(
        max(1, round(n * u / FEATURE_UM)) for n, u in zip(region[2:], um_per_px, strict=True)
    )
    if pixels.shape[1::-1] == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _runs(film: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last (exclusive) of each run of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], film.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def score_blocks(features: Sequence[Sequence[BlockFeatures]]) -> Scores:
    """Return how much each block looks like a monolayer, in [0, 1].

    The score is a product of ramps: single red cells, how much of the glass they cover, one layer
    of them, visible pallor, sharpness relative to the slide's own, nothing foreign.
    """
    rows, columns = len(features), len(features[0]) if features else 0
    flat = [f for row in features for f in row]

    def table(name: str) -> Scores:
        return np.array([getattr(f, name) for f in flat], dtype=np.float64)

    enough = table("singles") >= MIN_SINGLES
    if not enough.any():
        return np.zeros((rows, columns))
    isolated, pallor = table("isolated"), table("pallor")
    score = _ramp(isolated, ISOLATED) * _ramp(table("covered"), COVERED_LOW)
    score *= _ramp(table("covered"), COVERED_HIGH) * _ramp(table("layers"), LAYERS)
    score *= _ramp(table("foreign"), FOREIGN) * enough
    best = score >= np.quantile(score[enough], 0.5)
    if float(np.quantile(pallor[enough & best], 0.1)) < PALLOR_SEEN:
        score *= _ramp(pallor, PALLOR)
    sharp = table("sharpness")
    score *= _ramp(sharp / max(float(np.quantile(sharp[enough], 0.9)), 1e-6), SHARPNESS)
    return np.asarray(score.reshape(rows, columns))


def _ramp(values: Scores, ends: Ramp) -> Scores:
    """0 at and before the first end, 1 at and beyond the second, in either direction."""
    first, second = ends
    return np.clip((values - first) / (second - first), 0.0, 1.0)


def choose(scores: Scores) -> tuple[NDArray[np.bool_], bool]:
    """Return the blocks of the zone, and whether none is clearly a monolayer."""
    smooth = _smoothed(scores)
    for threshold, uncertain in ((THRESHOLD, False), (UNCERTAIN, True)):
        chosen = _without_specks((smooth >= threshold) & (scores >= threshold / 2))
        if chosen.any():
            return chosen, uncertain
    return np.zeros(scores.shape, dtype=bool), False


def _smoothed(scores: Scores) -> Scores:
    """Mean of a block and of its surroundings; what lies beyond the slide does not count."""
    kernel = np.ones((3, 3))
    total = cv2.filter2D(scores, -1, kernel, borderType=cv2.BORDER_CONSTANT)
    count = cv2.filter2D(np.ones_like(scores), -1, kernel, borderType=cv2.BORDER_CONSTANT)
    return np.asarray((scores + total / count) / 2, dtype=np.float64)


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Drop parts of fewer than `MIN_BLOCKS` blocks, unless nothing else is there."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=4
    )
    sizes = stats[:, cv2.CC_STAT_AREA]
    large = [n for n in range(1, count) if sizes[n] >= MIN_BLOCKS]
    return np.isin(labels, large) if large else mask
