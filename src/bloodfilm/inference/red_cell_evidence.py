"""Evidence that what passes for red cells are red cells.

All of it is physics of the cells of one film, none of it look: they hold one dye, of a colour that
eosin and haemoglobin have on a camera; they hold it everywhere, in nearly the same amount, and no
nucleus; and they are nearly, but never quite, of one size. Everything is measured on the field as
it is rendered for the film score, where a red cell is nine pixels wide.
"""

from dataclasses import dataclass

import numpy as np

from bloodfilm.core.arrays import BoxArray, Floats, Image
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.imaging.stain import GRID, MIDDLE, absorbance_in_middles

MIN_CELLS = 5
"""Red cells that must be seen to speak of their colour."""
LEAST_ABSORBANCE = 0.01
MIN_ABSORBANCE = 0.6
"""Absorbance, natural logarithm over three channels, below which a pale cell's colour is that of
noise and lamp: a Raspberry Pi camera's red cells have 0.2 to 0.4."""
BLUE_TO_GREEN = (1.2, 1.5)
RED_TO_GREEN = (1.7, 2.2)
"""Absorbance of red cells, as ratios of channels: up to the first no doubt, from the second on no
film. 41 fields of eight cameras have at most 1.0, and 1.45 (slate-blue)."""
COLOUR_SPREAD = (0.08, 0.11)
"""Likewise, how far the share of a channel differs from cell to cell, median of all; less where
they absorb less than `MIN_ABSORBANCE`. 420 fields of eleven sets have at most 0.074."""
MIN_ABSORBANCE_OF_SPREAD = 0.3
"""Absorbance below which cells of one dye differ in their shares by noise."""
MIN_FOR_TREND = 24
"""Red cells from which a smooth change of their colour over the field is taken for that of the
light, which is not always divided out."""
TEXTURE = (0.02, 0.04)
THICKNESS_SPREAD = (0.06, 0.1)
"""Where there are only red cells: variation of absorbance within a cell, and from cell to cell, as
shares; below the first they are too even, from the second on there is no doubt."""
SIZE_SPREAD = (0.025, 0.042)
"""Likewise, variation of their size: the volume of red cells varies by 11.5 to 14.5 % in health. In
fields with 20 whole red cells it is 0.05 or more, in close-ups with 10 it is 0.03."""
TOO_EVEN = 0.5
"""What perfectly even red cells, or those of exactly one size, leave of the score: not enough to
refuse a field by itself."""
MANY = 10
"""Whole red cells from which their sizes mean something."""
NUCLEUS = (0.45, 0.8)
"""How much more the middle of a cell absorbs than the cell around it, median of all: no doubt up to
the first, nucleated from the second on. 442 fields of eleven sets have at most 0.40, most of
them 0: the middle of a red cell is its thinnest part."""
PALE = (0.05, 0.12)
"""Absorbance of the middle of red cells: up to the first they are rings or holes, from the second
on there is no doubt. The palest of 440 fields (refractile cells, a Raspberry Pi camera) have
0.15."""
UNEQUAL = (1.1, 1.6)
"""Spread of their absorbance from cell to cell, as a share of the mean: at most 1.1."""
SIZES = (0.28, 0.42)
"""Variation of their size: at most 0.26 in all fields but one, which has 0.42."""

EDGE = 2.0
"""Pixels from the edge of a field within which a box counts as cut."""


@dataclass(frozen=True)
class RedCellEvidence:
    """What speaks for red cells, each in [0, 1].

    Attributes:
        colour: whether they are of one colour that red cells have.
        variation: in [0.5, 1], whether they vary as cells do.
        anucleate: whether they have no nucleus.
        alike: whether all of them hold dye, nearly as much of it, and are nearly of one size.
    """

    colour: float = 1.0
    variation: float = 1.0
    anucleate: float = 1.0
    alike: float = 1.0


def red_cell_evidence(
    drawn: Image, view: CanonicalView, red: BoxArray, um_per_px: float
) -> RedCellEvidence:
    """Weigh the red cells of a field.

    Args:
        drawn: the field rendered at `um_per_px`, background white.
        view: its canonical view.
        red: boxes (n, 4), x, y, w, h in px of the field, of its red cells.
        um_per_px: micrometres per pixel of `drawn`.
    """
    if len(red) < MIN_CELLS:
        return RedCellEvidence()
    white = (BACKGROUND, BACKGROUND, BACKGROUND)
    points = absorbance_in_middles(drawn, white, view.to_canonical(red, um_per_px))
    cells = np.median(points, axis=1)
    sums = points.sum(axis=2)
    totals = np.maximum(cells.sum(axis=1), LEAST_ABSORBANCE)
    within = float(np.median(sums.std(axis=1) / totals))
    between = float(totals.std() / totals.mean())
    whole, spread = _sizes(view, red)
    natural = (1 - falling(within, TEXTURE)) * (1 - falling(between, THICKNESS_SPREAD))
    sizes = 1 - falling(spread, SIZE_SPREAD) if whole >= MANY else 1.0
    alike = (1 - falling(float(np.median(totals)), PALE)) * falling(between, UNEQUAL)
    if whole >= MANY:
        alike *= falling(spread, SIZES)
    return RedCellEvidence(
        colour=_colour(cells, totals, (red[:, :2] + red[:, 2:] / 2) / (view.width, view.height)),
        variation=TOO_EVEN + (1 - TOO_EVEN) * natural * sizes,
        anucleate=falling(_nucleus(sums), NUCLEUS),
        alike=alike,
    )


def falling(value: float, ends: tuple[float, float]) -> float:
    """Return 1 up to the first end, 0 from the second on, a straight line between.

    >>> [falling(value, (1.0, 2.0)) for value in (0.5, 1.25, 3.0)]
    [1.0, 0.75, 0.0]
    """
    return min(max((ends[1] - value) / (ends[1] - ends[0]), 0.0), 1.0)


def _colour(cells: Floats, totals: Floats, places: Floats) -> float:
    """Whether cells are of one plausible colour.

    Args:
        cells, totals: their absorbances (n, 3), and the sums of these.
        places: (n, 2) where they are, as shares of the field's width and height.
    """
    total = float(np.median(totals))
    if total < MIN_ABSORBANCE_OF_SPREAD:
        return 1.0
    shares = cells / totals[:, None]
    scale = min(1.0, total / MIN_ABSORBANCE)
    spread = scale * _spread(shares)
    if spread > COLOUR_SPREAD[0] and len(shares) >= MIN_FOR_TREND:
        spread = scale * _spread(_without_light(cells, totals, places) / total)
    one = falling(spread, COLOUR_SPREAD)
    if total < MIN_ABSORBANCE:
        return one
    red, green, blue = np.maximum(np.median(cells, axis=0), LEAST_ABSORBANCE).tolist()
    return one * falling(blue / green, BLUE_TO_GREEN) * falling(red / green, RED_TO_GREEN)


def _spread(shares: Floats) -> float:
    """How far shares (n, 3) lie from their median, in the channel that differs most: a median."""
    return float(np.median(np.abs(shares - np.median(shares, axis=0)).max(axis=1)))


def _without_light(cells: Floats, totals: Floats, places: Floats) -> Floats:
    """What neither the amount of one dye nor a smooth light explains of absorbances (n, 3).

    Light adds to absorbance: a quadratic surface over the places (n, 2), on average nothing.
    """
    x, y = places.T
    surface = np.stack([x, y, x * x, x * y, y * y], axis=1)
    terms = np.column_stack([surface - surface.mean(axis=0), totals])
    colours = cells - cells.mean(axis=1, keepdims=True)
    fitted, *_ = np.linalg.lstsq(terms, colours, rcond=None)
    return np.asarray(colours - terms @ fitted)


_ACROSS = (np.arange(GRID) / (GRID - 1) - 0.5) * MIDDLE
_FROM_CENTRE = np.hypot(_ACROSS[:, None], _ACROSS[None, :]).ravel()
_CORE, _AROUND = _FROM_CENTRE < 0.27 * MIDDLE, _FROM_CENTRE >= 0.3 * MIDDLE
CORE_QUANTILE = 0.9


def _nucleus(sums: Floats) -> float:
    """How much more the darkest part of the middle absorbs than the rest, median of cells (n, p).

    In a thin cell with a nucleus it is the nucleus.
    """
    core = np.quantile(sums[:, _CORE], CORE_QUANTILE, axis=1)
    return float(np.median(core - np.median(sums[:, _AROUND], axis=1)))


def _sizes(view: CanonicalView, red: BoxArray) -> tuple[int, float]:
    """How many red cells are whole, and how their width and height vary: a standard deviation.

    The deviation is that of the logarithm, robust, mean of both directions.
    """
    ends = red[:, :2] + red[:, 2:]
    whole = (red[:, :2] > EDGE).all(axis=1)
    whole &= (ends < np.array([view.width, view.height]) - EDGE).all(axis=1)
    if view.round_field is not None:
        away = np.hypot(*((red[:, :2] + ends) / 2 - view.round_field.as_tuple[:2]).T)
        whole &= away + red[:, 2:].max(axis=1) / 2 < view.round_field.radius
    if whole.sum() < 2:
        return int(whole.sum()), 0.0
    logs = np.log(np.maximum(red[whole, 2:], 1e-6))
    off = np.median(np.abs(logs - np.median(logs, axis=0)), axis=0)
    return int(whole.sum()), float(1.4826 * off.mean())
