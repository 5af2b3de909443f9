"""The pixel grid on which objects are painted, with noise and soft-edged shapes.

Every object is painted at a fixed physical resolution from its own seed and then resampled for
each camera: a physical cell has the same texture in every field and domain.
"""

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats32

PAINT_UM = 0.08
"""Micrometres per pixel of the paint grid."""

ANGLES = 512
"""Entries of an outline's radius table."""


@dataclass(frozen=True)
class Grid:
    """A square patch centred on an object.

    Attributes:
        n: pixels per side.
        x, y: coordinates in um, (n, n).
        rho: distance to the centre in um, (n, n).
        turn: index into an outline's radius table, (n, n).
    """

    n: int
    x: Floats32
    y: Floats32
    rho: Floats32
    turn: NDArray[np.int32]

    def pixels(self, um: Floats32) -> Floats32:
        """Turn um coordinates (relative to the centre) into pixel indices."""
        return np.asarray(um / PAINT_UM + (self.n - 1) / 2, dtype=np.float32)


@lru_cache(maxsize=64)
def _grid(n: int) -> Grid:
    line = ((np.arange(n) - (n - 1) / 2) * PAINT_UM).astype(np.float32)
    x, y = np.meshgrid(line, line)
    rho = np.hypot(x, y)
    turn = (np.arctan2(y, x) / (2 * np.pi) * ANGLES).astype(np.int32) % ANGLES
    return Grid(n, x, y, rho, turn.astype(np.int32))


def grid_for(half_um: float) -> Grid:
    """Return the grid that reaches at least `half_um` from the centre, in steps of eight pixels."""
    return _grid(8 * int(np.ceil(2 * half_um / PAINT_UM / 8)))


def noise(rng: np.random.Generator, n: int, period_um: float, octaves: int = 1) -> Floats32:
    """Return smooth (n, n) noise of about unit deviation; each octave halves period and weight."""
    out = np.zeros((n, n), np.float32)
    total = 0.0
    for octave in range(octaves):
        cells = max(4, int(n * PAINT_UM / period_um * 2**octave) + 2)
        if cells >= n:
            layer = rng.standard_normal((n, n), dtype=np.float32)
        else:
            lattice = rng.standard_normal((cells, cells), dtype=np.float32)
            smooth = cv2.INTER_LINEAR if octave else cv2.INTER_CUBIC  # detail needs no smoothness
            layer = np.asarray(cv2.resize(lattice, (n, n), interpolation=smooth))
        weight = 0.6**octave
        out += layer * weight
        total += weight * weight
    return np.asarray(out * (1.3 / np.sqrt(total)), dtype=np.float32)


def blur(image: Floats32, sigma_um: float) -> Floats32:
    """Gaussian blur on the paint grid."""
    sigma = sigma_um / PAINT_UM
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), dtype=np.float32)


def ramp(signed: Floats32, soft_um: float) -> Floats32:
    """Turn a signed distance (negative inside, um) into coverage 0..1 with a soft edge."""
    return np.asarray(np.clip(0.5 - signed / soft_um, 0, 1), dtype=np.float32)


@lru_cache(maxsize=8)
def _harmonics(waves: int) -> NDArray[np.float64]:
    """Cosines and sines of orders 2 and up over one turn, (2, waves, ANGLES)."""
    turns = np.arange(2, 2 + waves)[:, None] * np.arange(ANGLES) * (2 * np.pi / ANGLES)
    return np.stack([np.cos(turns), np.sin(turns)])


def outline(
    rng: np.random.Generator, radius: float, rough: float, stretch: float = 0.0, waves: int = 6
) -> Floats32:
    """Return a closed outline as a table of radii (um) over `ANGLES` directions.

    `rough` is the relative deviation of its low-order Fourier terms, `stretch` the amplitude of
    the second harmonic (an ellipse of axes 1 + stretch to 1 - stretch).
    """
    amplitude = rng.normal(0, rough, waves) / (np.arange(2, 2 + waves) - 0.6)
    phase = rng.uniform(0, 2 * np.pi, waves)
    axis = rng.uniform(0, 2 * np.pi)
    cosine, sine = amplitude * np.cos(phase), amplitude * np.sin(phase)
    cosine[0] += stretch * np.cos(axis)
    sine[0] += stretch * np.sin(axis)
    basis = _harmonics(waves)
    wave = cosine @ basis[0] + sine @ basis[1]
    table = radius * np.maximum(0.35, 1 + wave)
    area = np.sqrt(np.mean(table**2)) / radius
    return np.asarray(table / area, dtype=np.float32)


def press(table: Floats32, walls: tuple[tuple[float, float], ...]) -> Floats32:
    """Flatten an outline against walls, each (direction in radians, distance in um)."""
    if not walls:
        return table
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    out = table.astype(np.float64)
    for direction, distance in walls:
        facing = np.cos(angle - direction)
        limit = np.where(facing > 0.2, max(distance, 0.8) / np.maximum(facing, 0.2), np.inf)
        out = np.minimum(out, limit)
    lost = np.sqrt(np.mean(table.astype(np.float64) ** 2) / np.mean(out**2))
    grown = out * min(1.08, float(lost))  # what is pressed in at one side bulges at the others
    return np.asarray(np.where(out < table * 0.995, out, grown), dtype=np.float32)


def dots(
    rng: np.random.Generator, where: Floats32, count: int, radius_um: float, spread: float = 0.25
) -> Floats32:
    """Scatter `count` soft discs over the area where `where` > 0.5; returns 0..1.

    Radii vary by `spread`. A dot is an impulse blurred and then saturated, so touching granules
    merge as they do under the microscope.
    """
    out = np.zeros_like(where)
    flat = np.flatnonzero(where > 0.5)
    if flat.size == 0 or count <= 0:
        return out
    for scale, share in ((1 - spread, 0.4), (1 + spread, 0.6)):
        layer = np.zeros(where.size, np.float32)
        np.add.at(layer, rng.choice(flat, max(1, round(count * share))), 1.0)
        sigma = max(radius_um * scale * 0.62, 0.05)
        peak = 2 * np.pi * (sigma / PAINT_UM) ** 2
        out += blur(layer.reshape(where.shape), sigma) * peak
    return np.asarray(1 - np.exp(-2.0 * out * np.minimum(1, out * 2)), dtype=np.float32)
