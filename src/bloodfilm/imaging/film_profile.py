"""A field's stain and optics in a few numbers, to tell how far it is from known films.

Colours are absorbances (Beer-Lambert) against the glass, so that lamp and white balance play no
part: how much red cells and nuclei absorb, and in which proportion of the colour channels. With
them, how sharp the field is and how large its pixels are by its red cells.
"""

import numpy as np
from numpy.typing import ArrayLike

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.imaging.stain import MIN_RED_CELLS, darker_absorbance

FEATURES = (
    "red_cell_absorbance",
    "red_cell_red",
    "red_cell_blue",
    "nucleus_absorbance",
    "nucleus_red",
    "nucleus_blue",
    "sharpness",
    "pixel_size",
)
"""Amounts are natural logarithms; `..._red` and `..._blue` are shares of the absorbance."""
LEAST = 1e-3


def film_profile(
    image: Pixels, view: CanonicalView, red: ArrayLike, nucleated: ArrayLike, sharpness: float
) -> Floats | None:
    """Return the profile (len(FEATURES),) of a field.

    Args:
        image: the field, RGB (H, W, 3).
        view: its canonical view.
        red, nucleated: boxes (n, 4) x, y, w, h in px of the cells found in it.
        sharpness: of its rendered view.

    Returns:
        `None` where it is undefined: fewer than `MIN_RED_CELLS` red cells, no nucleated cell, no
        measured sharpness.
    """
    red, nucleated = (np.asarray(b, dtype=np.float64).reshape(-1, 4) for b in (red, nucleated))
    if len(red) < MIN_RED_CELLS or not len(nucleated) or not np.isfinite(sharpness):
        return None
    even = view.corrections.apply(image)
    parts: list[float] = []
    for boxes in (red, nucleated):
        colour = np.median(darker_absorbance(even, view.white_point, boxes), axis=0)
        total = max(float(colour.sum()), LEAST)
        parts += [np.log(total), float(colour[0]) / total, float(colour[2]) / total]
    # At red cells of one size, whatever the granulocytes of this film said of them.
    pixel_size = view.um_per_px_y / view.red_cell_factor
    parts += [np.log(max(sharpness, LEAST)), np.log(pixel_size)]
    return np.array(parts)
