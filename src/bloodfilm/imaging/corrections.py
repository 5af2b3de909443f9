"""Correct images for round field, uneven light, stray light and colour of the glass.

Four corrections in this order, before any measurement or detection:

1. what lies outside a round field of view is masked (`field_of_view`);
2. uneven light is divided out (`illumination`);
3. stray light is subtracted: a haze over the whole field makes nuclei pale;
4. the colour of empty glass becomes the same white everywhere.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Pixels
from bloodfilm.imaging.channels import byte_histogram
from bloodfilm.imaging.field_of_view import Mask, RoundField, find_round_field
from bloodfilm.imaging.illumination import EVEN, Illumination, Region, Survey, better, survey
from bloodfilm.imaging.red_cells import background_colour, red_cell_tone

White = tuple[float, float, float]

DARKEST = 0.1
"""Percentile of the field taken as its darkest object: a smaller share than one nucleus."""
CLEAR = 0.33
"""Share of the glass's light that the darkest channel of the darkest thing lets through, at most,
in a picture without stray light. Sharp fields of PBC, Raabin, LLD, BCISC and KRD have 0.02 to
0.39, hazy ones of a Raspberry Pi camera 0.55 to 0.73."""
STRONG_TONE = 0.35
"""Red cells that absorb this share are not pale; with them no stray light is subtracted."""
DARKER = 0.85
"""A nucleus lets through less than this share of the light that red cells do."""
MIN_TONE = 0.04
"""Corrections of glass without a film."""
MAX_VEILING_GLARE = 0.5
SEARCH_SIDE = 720


@dataclass(frozen=True)
class Corrections:
    """The corrections of one image.

    Attributes:
        white_point: colour of empty glass in even light, RGB.
        illumination: how unevenly the field is lit.
        veiling_glare: stray light as a share of the glass's light, 0 in a clear picture.
        round_field: the field of view where it is a disc on black.
    """

    white_point: White
    illumination: Illumination = EVEN
    veiling_glare: float = 0.0
    round_field: RoundField | None = None

    @property
    def plain(self) -> bool:
        """Whether only the white point differs from an ideal picture."""
        return (
            self.illumination.method == "none"
            and not self.veiling_glare
            and self.round_field is None
        )

    def apply(self, image: Pixels) -> Pixels:
        """The whole image (H, W, 3) in even light, without stray light and surround.

        Empty glass keeps the colour `white_point`.
        """
        if self.plain:
            return image
        height, width = image.shape[:2]
        region = (0.0, 0.0, float(width), float(height))
        lit = self.in_even_light(image, region, (width, height))
        return lift(lit, self.white_point, self.veiling_glare, self.white_point)

    def in_even_light(self, pixels: Pixels, region: Region, size: tuple[int, int]) -> Pixels:
        """Pixels of a region x, y, w, h of an image of a size, in even light, surround painted."""
        lit = self.illumination.divide(pixels, region, size)
        if self.round_field is not None:
            inside = self.round_field.mask_of(region, pixels.shape[1], pixels.shape[0])
            lit = np.where(inside[..., None], lit, _colour(self.white_point))
        return lit


def lift(pixels: Pixels, white: White, veiling_glare: float, target: White) -> Pixels:
    """Pixels (..., 3) without stray light, `white` drawn as `target`.

    Stray light adds to every pixel the same share `veiling_glare` of the glass's light.
    """
    ramp = np.arange(256, dtype=np.float64)[:, None]
    glass = np.maximum(np.array(white, dtype=np.float64), 1.0)[None, :]
    clear = (
        (ramp - veiling_glare * glass) / (1.0 - veiling_glare) * (np.array(target)[None, :] / glass)
    )
    table = np.clip(np.rint(clear), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(pixels, table.reshape(1, 256, 3)), np.uint8).reshape(pixels.shape)


def estimate_corrections(image: Pixels, folder: Illumination = EVEN) -> tuple[Corrections, Survey]:
    """Estimate the corrections of one field (H, W, 3), and survey its illumination.

    `folder` is the illumination shared by the fields of its folder.
    """
    height, width = image.shape[:2]
    disc = find_round_field(image)
    mask = disc.mask(width, height) if disc else None
    seen = survey(image, mask)
    light = better(seen, folder)
    white = background_colour(light.even(image), mask)
    clear = Corrections(white, light, 0.0, disc)
    return replace(clear, veiling_glare=stray_light(clear.apply(image), white, mask)), seen


def stray_light(even: Pixels, white: White, mask: Mask | None = None) -> float:
    """Share of the glass's light that lies over a whole field (H, W, 3) in even light.

    Estimated from nuclei, the darkest objects. 0 where they or the red cells are as dark as in a
    clear picture, and where nothing is darker than red cells.
    """
    step = max(1, max(even.shape[:2]) // SEARCH_SIDE)
    small = np.ascontiguousarray(even[::step, ::step])
    inside = None if mask is None else np.asarray(mask[::step, ::step], dtype=np.uint8)
    if inside is not None and not inside.any():
        return 0.0
    darkest = 1.0
    # Green first, in which most nuclei are darkest: one channel that is dark enough decides.
    for channel in (1, 0, 2):
        plane = np.asarray(cv2.blur(cv2.extractChannel(small, channel), (3, 3)), dtype=np.uint8)
        least = _percentile(plane, inside, DARKEST) / max(white[channel], 1.0)
        if least <= CLEAR:
            return 0.0
        darkest = min(darkest, least)
    floor = (darkest - CLEAR) / (1 - CLEAR)
    tone = float(red_cell_tone(even, white).max()) / 255
    if tone < MIN_TONE or darkest > DARKER * (1 - tone):
        return 0.0
    return round(float(np.clip(min(floor, 1 - tone / STRONG_TONE), 0.0, MAX_VEILING_GLARE)), 3)


def _percentile(plane: Pixels, inside: Pixels | None, percent: float) -> float:
    """Return a percentile of a plane (H, W), as `np.percentile` does, from its histogram.

    `inside` (H, W) is not 0 where pixels count; `None` counts all.
    """
    reached = np.cumsum(byte_histogram(plane, inside).astype(np.int64))
    place = (int(reached[-1]) - 1) * (percent / 100)
    below = int(place)
    low, high = np.searchsorted(reached, [below, min(below + 1, reached[-1] - 1)], side="right")
    return float(low + (high - low) * (place - below))


def _colour(white: White) -> NDArray[np.uint8]:
    return np.rint(np.array(white)).astype(np.uint8)
