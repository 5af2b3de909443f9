"""Vary a drawn cell and the glass around it, with the masks of both, as films differ.

Drawn cells lie on clear glass, hold their shape, and have a rim of cytoplasm. On real films dried
plasma stains the glass in flecks as dark as pale cytoplasm, neighbours dent and draw cells out, and
a lymphocyte may show nothing but its nucleus. What the outline network has not met it outlines by
the box alone.
"""

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats32, Pixels
from bloodfilm.training.data.appearance import measure_white

BEND_POINTS = (3, 7)
"""Points a side of the grid whose random shifts bend a cell."""
MOST_BARE = 0.4
"""Cells with a smaller share of nucleus never lose all their cytoplasm."""
PALE = (0.15, 1.5)
"""Range of the factor on the absorbance of cytoplasm."""
GRAIN = 0.2
"""Largest standard deviation of the grain of cytoplasm, in absorbance (natural)."""
SPECKS = 0.4
"""Chance that the grain is dark specks on an even ground instead of noise."""
SPECK_LEVEL = 1.0
"""Noise above so many standard deviations is a speck."""
APPROACH = (0.75, 1.02)
"""Range of the distance of a neighbour's middle, in that at which the two would touch."""
HALF = 127
PLASMA = (0.02, 0.35)
"""Range of the mean absorbance (natural) of dried plasma."""
FLECKS = (3, 32)
"""Flecks of plasma across a crop, at least and at most."""

Rng = np.random.Generator


def bend(image: Pixels, mask: Pixels, rng: Rng, strength: float) -> tuple[Pixels, Pixels]:
    """Return a crop and its masks with the same smooth random deformation.

    Args:
        image, mask: (S, S, 3) and (S, S, 2).
        rng: source of all chance.
        strength: standard deviation of the shift, as a share of S.
    """
    side = image.shape[0]
    points = int(rng.integers(*BEND_POINTS, endpoint=True))
    coarse = rng.normal(0, strength * side, (points, points, 2)).astype(np.float32)
    line = np.arange(side, dtype=np.float32)
    shift = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    x, y = shift[..., 0] + line, shift[..., 1] + line[:, None]
    moved = (
        cv2.remap(what, x, y, cv2.INTER_LINEAR, borderMode=border)
        for what, border in ((image, cv2.BORDER_REFLECT_101), (mask, cv2.BORDER_REPLICATE))
    )
    return np.asarray(next(moved), np.uint8), np.asarray(next(moved), np.uint8)


def strip(image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels] | None:
    """Return a cell whose cytoplasm cannot be seen, the nucleus its outline.

    `None` for a cell of which the nucleus is a small part.
    """
    cell, nucleus = (mask[..., i].astype(np.float32) / 255 for i in (0, 1))
    if nucleus.sum() < MOST_BARE * cell.sum():
        return None
    rim = np.clip(cell - nucleus, 0, 1)
    gone = np.clip(cv2.dilate(rim, np.ones((3, 3), np.uint8)) * 2, 0, 1)
    left = np.asarray(np.maximum(1 - gone, nucleus), dtype=np.float32)
    return _absorbing(image, left), np.ascontiguousarray(mask[..., [1, 1]])


def vary_cytoplasm(image: Pixels, mask: Pixels, rng: Rng) -> Pixels:
    """Return a crop whose cell has paler or darker, smoother or grainier cytoplasm."""
    rim = np.clip(mask[..., 0].astype(np.float32) - mask[..., 1], 0, 255) / 255
    factor = float(np.exp(rng.uniform(*np.log(PALE))))
    grain = rng.standard_normal(rim.shape, dtype=np.float32)
    grain = np.asarray(cv2.GaussianBlur(grain, (0, 0), float(rng.uniform(0.4, 1.4))), np.float32)
    if rng.random() < SPECKS:
        grain = np.maximum(grain - np.float32(SPECK_LEVEL) * grain.std(), 0)
    grain *= np.float32(rng.uniform(0, GRAIN) / max(float(grain.std()), 1e-6))
    return _absorbing(image, 1 - (1 - factor) * rim, grain * rim)


def add_neighbour(image: Pixels, mask: Pixels, rng: Rng) -> Pixels:
    """Return a crop in which a turned copy of the cell lies against it, below it where they meet.

    Args:
        image, mask: (S, S, 3) and (S, S, 2) of a cell in the middle.
        rng: source of all chance.
    """
    side = image.shape[0]
    middle = (side - 1) / 2
    rows, columns = np.nonzero(mask[..., 0] > HALF)
    if not len(rows):
        return image
    points = np.stack([columns, rows], axis=1) - middle
    angle, turn = rng.uniform(0, 2 * np.pi, 2)
    toward = np.array([np.cos(angle), np.sin(angle)])
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    reach = (points @ toward).max() - (points @ turned.T @ toward).min()
    shift = toward * reach * rng.uniform(*APPROACH)
    matrix = np.column_stack([turned, middle + shift - turned @ np.full(2, middle)])
    other, inside = (
        cv2.warpAffine(what, matrix, (side, side), flags=cv2.INTER_LINEAR)
        for what in (image, mask[..., 0])
    )
    below = inside.astype(np.float32) / 255 * (1 - mask[..., 0].astype(np.float32) / 255)
    mixed = image + (other.astype(np.float32) - image) * below[..., None]
    return np.asarray(mixed + 0.5, dtype=np.uint8)


def add_plasma(image: Pixels, mask: Pixels, rng: Rng) -> Pixels:
    """Return a crop with dried, stained plasma on its glass, from which the cell stands out less.

    The cell has pushed it aside, in part or wholly, and at times a clear ring is left around it.
    """
    side = image.shape[0]
    cell = mask[..., 0].astype(np.float32) / 255
    flecks = 1 + rng.uniform(0, 1.0) * _flecks(rng, side)
    shown = 1 - np.float32(rng.uniform(0.2, 1.0)) * cell
    if rng.random() < 0.25:
        near = cv2.GaussianBlur(cell, (0, 0), float(rng.uniform(0.015, 0.05)) * side)
        shown *= 1 - np.float32(rng.uniform(0.3, 1.0)) * np.clip(2 * near, 0, 1) * (1 - cell)
    amount = float(np.exp(rng.uniform(*np.log(PLASMA))))
    colour = 0.4 + 1.8 * rng.dirichlet(np.ones(3))
    density = amount * np.clip(flecks, 0, None) * shown
    light = image * np.exp(-density[..., None] * colour.astype(np.float32))
    return np.asarray(np.clip(light + 0.5, 0, 255), dtype=np.uint8)


def _flecks(rng: Rng, side: int) -> Floats32:
    """Return smooth noise (side, side) of unit deviation, coarse and fine together."""
    total = np.zeros((side, side), np.float32)
    for _ in range(2):
        points = int(np.exp(rng.uniform(*np.log(FLECKS))))
        coarse = rng.standard_normal((points, points), dtype=np.float32)
        total += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / max(float(total.std()), 1e-6), dtype=np.float32)


def _absorbing(image: Pixels, factor: Floats32, more: Floats32 | None = None) -> Pixels:
    """Return an image whose absorbance is multiplied by a factor (H, W), and raised by `more`."""
    light = image.astype(np.float32)
    white = measure_white(light)
    density = -np.log(np.clip(light / white, 0.004, 1.2)) * factor[..., None]
    if more is not None:
        density += more[..., None]
    return np.asarray(np.clip(white * np.exp(-density) + 0.5, 0, 255), dtype=np.uint8)
