"""Bring a cell's crop to standard colours: clear glass white, the nucleus dark purple.

Stain, lamp and camera change colours from film to film far more than one kind of cell differs
from another. Four measurements of a crop undo most of it:

- the colour of its clearest part becomes the standard white (white balance, but of this place, so
  that uneven light does not matter);
- how dark its darkest part is, and how strong its strongest colours are, become standard (the
  idea of Reinhard et al., IEEE CG&A 2001, on ranges instead of standard deviations, which depend
  on how much of a crop the cell fills);
- the hue of its darkest part in the middle, the nucleus, turns to purple, all other hues with it.

The first is a table look-up, the others one affine map in CIELAB, all in eight bits, so that a crop
of 128 px costs a fraction of a millisecond.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.errors import DataError

CLEAREST = 0.9
"""Pixels brighter than this share of a crop are clear glass."""
DARKEST = 0.04
STRONGEST = 0.93
NUCLEUS = 0.15
"""Share of a crop's middle, the darkest pixels, that is taken for the nucleus."""
EDGE = 0.2
"""Width of the margin around the middle, as a share of a crop's side."""
GAIN_LIGHT = (0.5, 3.5)
GAIN_COLOUR = (0.4, 3.5)
"""Limits of the factors, so that noise is not amplified."""
MOST_TURN = 0.8
"""Radians."""
GREY = 0.25
"""The standard nucleus enters the measured one with this weight: a grey one has no hue to turn."""
STEP = 3
"""Every third pixel, each way, is measured."""
DARK_WHITE = 8.0
"""Pixels darker than this are never glass."""
_L_SCALE, _AB_ZERO = 255 / 100, 128


@dataclass(frozen=True)
class ColourStandard:
    """Target colours of the normalisation.

    Attributes:
        white: brightness of clear glass in every channel, 0 to 255.
        depth: how much darker than clear glass the darkest part is, in L* of CIELAB.
        chroma: strength of the strongest colours, in CIELAB.
        nucleus: a* and b* of a nucleus; their direction is the standard hue. `None` leaves hues
            as they are.
    """

    white: float = 240.0
    depth: float = 62.0
    chroma: float = 38.0
    nucleus: tuple[float, float] | None = (22.0, -32.0)

    def to_json(self) -> dict[str, Any]:
        """Return all attributes as plain data."""
        return {**asdict(self), "nucleus": None if self.nucleus is None else list(self.nucleus)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ColourStandard":
        """Build a standard from `to_json` data; `DataError` if a value is missing or wrong."""
        try:
            rest = {f.name: float(data[f.name]) for f in fields(cls) if f.name != "nucleus"}
            if data["nucleus"] is None:
                return cls(nucleus=None, **rest)
            red_green, yellow_blue = data["nucleus"]
            return cls(nucleus=(float(red_green), float(yellow_blue)), **rest)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"colour standard: {error} is missing or wrong") from None


@dataclass(frozen=True)
class Jitter:
    """Deviation of a normalisation, for training; the default is exact.

    Attributes:
        white: factors on the measured white, RGB.
        light, colour: natural logarithms of factors on lightness and colour.
        turn: of the hue, radians.
    """

    white: tuple[float, float, float] = (1.0, 1.0, 1.0)
    light: float = 0.0
    colour: float = 0.0
    turn: float = 0.0


EXACT = Jitter()


def measure_white(crop: Pixels) -> Floats:
    """Return the mean RGB of the clearest part of a crop (H, W, 3)."""
    sampled = crop[::STEP, ::STEP].astype(np.float32)
    brightness = sampled[..., 0] + sampled[..., 1] + sampled[..., 2]
    clear = brightness >= _quantile(brightness, CLEAREST)
    return np.maximum(sampled[clear].mean(axis=0, dtype=np.float64), DARK_WHITE)


def balanced_lab(crop: Pixels, standard: ColourStandard, jitter: Jitter = EXACT) -> Pixels:
    """Return a crop in CIELAB as OpenCV keeps it in eight bits, its clear glass at the standard."""
    gain = standard.white / (measure_white(crop) * jitter.white)
    table = np.clip(np.arange(256)[:, None] * gain + 0.5, 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(cv2.LUT(crop, table.reshape(1, 256, 3)), cv2.COLOR_RGB2LAB)
    return np.asarray(lab, dtype=np.uint8)


def standardised(lab: Pixels, standard: ColourStandard, jitter: Jitter = EXACT) -> Pixels:
    """Return the RGB of a crop from `balanced_lab`, its depth, chroma and nucleus at the standard.

    Args:
        lab: (H, W, 3).
        standard: the target.
        jitter: deviation from it.
    """
    sampled = lab[::STEP, ::STEP].astype(np.float32)
    light, colours = sampled[..., 0] / np.float32(_L_SCALE), sampled[..., 1:] - _AB_ZERO
    white = _lightness(standard.white)
    depth = white - float(_quantile(light, DARKEST))
    chroma = float(_quantile(np.hypot(colours[..., 0], colours[..., 1]), STRONGEST))
    gain = np.clip(standard.depth / max(depth, 1.0), *GAIN_LIGHT) * np.exp(jitter.light)
    scale = np.clip(standard.chroma / max(chroma, 1.0), *GAIN_COLOUR)
    turn = jitter.turn
    if standard.nucleus is not None:
        turn += _turn(light, colours * scale, np.array(standard.nucleus))
    scale *= np.exp(jitter.colour)
    along, across = scale * np.cos(turn), scale * np.sin(turn)
    matrix = np.array(
        [
            [gain, 0, 0, white * _L_SCALE * (1 - gain)],
            [0, along, -across, _AB_ZERO * (1 - along + across)],
            [0, across, along, _AB_ZERO * (1 - across - along)],
        ]
    )
    rgb = cv2.cvtColor(cv2.transform(lab, matrix), cv2.COLOR_LAB2RGB)
    return np.asarray(rgb, dtype=np.uint8)


def normalise(crop: Pixels, standard: ColourStandard) -> Pixels:
    """Return a crop (H, W, 3) in standard colours.

    >>> empty = np.full((32, 32, 3), 100, np.uint8)
    >>> [int(v) for v in normalise(empty, ColourStandard())[0, 0]]
    [240, 240, 240]
    """
    return standardised(balanced_lab(crop, standard), standard)


def _turn(light: Any, colours: Any, goal: Floats) -> float:
    """Return the hue rotation (radians) that maps the nucleus to the standard's hue."""
    rows, columns = (round(n * EDGE) for n in light.shape)
    middle = np.s_[rows : light.shape[0] - rows, columns : light.shape[1] - columns]
    dark = light[middle] <= _quantile(light[middle], NUCLEUS)
    seen = colours[middle][dark].mean(axis=0, dtype=np.float64) + GREY * goal
    turn = np.arctan2(goal[1], goal[0]) - np.arctan2(seen[1], seen[0])
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    return float(np.clip(turn, -MOST_TURN, MOST_TURN))


def _lightness(grey: float) -> float:
    """Return L* of a grey pixel as OpenCV's eight bits have it."""
    pixel = np.full((1, 1, 3), round(grey), np.uint8)
    return float(cv2.cvtColor(pixel, cv2.COLOR_RGB2LAB)[0, 0, 0]) / _L_SCALE


def _quantile(values: Any, share: float) -> Any:
    """Return the value that this share of all lie below: one of them, not between two."""
    flat = values.ravel()
    place = int(len(flat) * share)
    return np.partition(flat, place)[place]
