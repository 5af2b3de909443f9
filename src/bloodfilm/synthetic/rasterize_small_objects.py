"""Red cells, platelets and dirt, painted as amounts of dye."""

import numpy as np

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.noise_fields import (
    ANGLES,
    blur,
    dots,
    grid_for,
    noise,
    outline,
    press,
    ramp,
)
from bloodfilm.synthetic.profiles import AZURE, CHROMATIN, DYES, GREY, HAEMOGLOBIN, RNA
from bloodfilm.synthetic.rasterize_cells import PaintedObject

RED_FORMS = {
    "spherocyte": 0.86,
    "target cell": 1.05,
    "crenated cell": 0.97,
    "polychromatic cell": 1.18,
    "elliptocyte": 1.0,
}
"""Red cells of abnormal form that can be drawn, and their diameter relative to a normal one."""

DEBRIS_FORMS = {"fibre": (9.0, 26.0), "crystal": (4.0, 12.0)}
"""Dirt of a form of its own, and its usual length in um."""


def paint_red(
    seed: int, diameter: float, walls: tuple[tuple[float, float], ...] = (), form: str = ""
) -> PaintedObject:
    """Paint a red cell: biconcave, its pallor of any depth, its outline mildly varied.

    `form` is a key of `RED_FORMS`, or empty for a normal red cell.
    """
    rng = np.random.default_rng(seed)
    radius = diameter / 2
    grid = grid_for(radius * 1.18 + 0.35)
    stretch = abs(rng.normal(0, 0.045)) + (0.2 if form == "elliptocyte" else 0.0)
    table = outline(rng, radius, 0.03, stretch, 5)
    mood = {"crenated cell": 0.01, "target cell": 0.04, "": rng.random()}.get(form, 0.5)
    if mood < 0.03:  # crenated
        angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
        table *= (1 + 0.05 * np.cos(int(rng.integers(9, 14)) * angle)).astype(np.float32)
    table = press(table, walls)
    edge = table[grid.turn]
    signed = grid.rho - edge
    cover = ramp(signed, 0.3)
    place = grid.rho / edge
    depth, width = float(rng.uniform(0.35, 0.95)), float(rng.uniform(0.22, 0.5))
    if mood > 0.8:  # no visible pallor
        depth = 0.15
    if form in ("spherocyte", "polychromatic cell"):
        depth = 0.04
    dx, dy = (grid.x - float(rng.normal(0, 0.25)), grid.y - float(rng.normal(0, 0.25)))
    inner = np.sqrt(dx * dx + dy * dy) / edge
    far, rim = inner / width, np.square(np.square(place))
    profile = 1.04 - depth * np.exp(far * far * far / -1.6) - 0.12 * rim * rim
    if 0.03 < mood < 0.05:  # target cell
        profile += 0.5 * np.exp(-((inner / 0.2) ** 2))
    shade = 1 + 0.035 * noise(rng, grid.n, 2.0)
    amount = cover * np.maximum(profile, 0.05) * shade * float(np.exp(rng.normal(0, 0.09)))
    if form == "spherocyte":
        amount *= float(rng.uniform(1.15, 1.5))
    if form == "polychromatic cell":
        blue = amount * float(rng.uniform(0.15, 0.5))
        both = np.stack([amount * 0.9, blue], axis=-1).astype(np.float32)
        return PaintedObject(both, cover, np.zeros_like(cover), (HAEMOGLOBIN, RNA))
    return PaintedObject(amount[..., None], cover, np.zeros_like(cover), (HAEMOGLOBIN,))


def paint_platelet(seed: int, diameter: float) -> PaintedObject:
    """Paint a platelet: a ragged pale disc full of purple granules."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.8 + 0.6)
    table = outline(rng, diameter / 2, 0.09, abs(rng.normal(0, 0.08)), 8)
    signed = grid.rho - table[grid.turn] + 0.12 * noise(rng, grid.n, 0.6)
    cover = ramp(signed, 0.35)
    core = cover * np.clip(blur(cover, 0.35) * 1.4 - 0.3, 0, 1)
    area = np.pi * diameter**2 / 4
    grains = dots(rng, cover, int(area * 5), 0.2, 0.3)
    strength = float(rng.uniform(0.6, 1.15))
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    dyes[..., AZURE] = strength * core * (0.22 + 0.58 * grains)
    dyes[..., RNA] = strength * cover * 0.22
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def _paint_fibre(rng: np.random.Generator, length: float) -> PaintedObject:
    """A thread of cloth or paper: long, bent, even, with bright and dark edges."""
    grid = grid_for(length * 0.6 + 1.0)
    angle, bend = rng.uniform(0, np.pi), float(rng.normal(0, 0.03))
    along = grid.x * np.cos(angle) + grid.y * np.sin(angle)
    across = grid.y * np.cos(angle) - grid.x * np.sin(angle) + bend * along**2
    half = float(rng.uniform(0.5, 1.4))
    signed = np.maximum(np.abs(across) - half, np.abs(along) - length / 2)
    cover = ramp(np.asarray(signed, np.float32), 0.35)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    rim = cover - np.clip(blur(cover, 0.35) * 1.5 - 0.5, 0, 1)
    dye = int(rng.choice([GREY, AZURE, RNA]))
    dyes[..., dye] = cover * float(rng.uniform(0.1, 0.6)) + rim * float(rng.uniform(0.0, 0.5))
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def _paint_crystal(rng: np.random.Generator, size: float) -> PaintedObject:
    """A crystal of salt or stain: straight edges, refractile, dark or nearly clear."""
    grid = grid_for(size * 0.75 + 0.8)
    sides = int(rng.integers(3, 7))
    angles = np.sort(rng.uniform(0, 2 * np.pi, sides)) + np.arange(sides) * 0.15
    signed = np.full((grid.n, grid.n), -9.0, np.float32)
    for angle in angles:
        plane = grid.x * np.cos(angle) + grid.y * np.sin(angle)
        signed = np.maximum(signed, plane - size / 2 * float(rng.uniform(0.45, 0.9)))
    signed = np.maximum(signed, grid.rho - np.float32(size * 0.7))
    cover = ramp(np.asarray(signed, np.float32), 0.25)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    rim = np.abs(blur(cover, 0.2) - cover)
    dyes[..., GREY] = cover * float(rng.uniform(-0.05, 0.5)) + rim * float(rng.uniform(0.8, 2.0))
    dyes[..., CHROMATIN] = cover * float(rng.choice([0.0, 0.0, 0.4]))
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def paint_debris(seed: int, diameter: float, form: str = "") -> PaintedObject:
    """Paint stain deposit (small, dark, purple or black) or a faint smear.

    `form` is a key of `DEBRIS_FORMS`, or empty; `diameter` is then the length, um.
    """
    rng = np.random.default_rng(seed)
    if form:
        return (_paint_fibre if form == "fibre" else _paint_crystal)(rng, diameter)
    grid = grid_for(diameter * 0.9 + 0.5)
    table = outline(rng, diameter / 2, 0.2, abs(rng.normal(0, 0.2)), 6)
    signed = grid.rho - table[grid.turn] + 0.2 * noise(rng, grid.n, 0.6, 2)
    cover = ramp(signed, 0.4)
    body: Floats32 = cover * np.clip(0.8 + 0.4 * noise(rng, grid.n, 0.5), 0.1, 2)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    if rng.random() < 0.08:  # a refractile bead: bright, with a dark ring
        dyes[..., GREY] = 0.9 * (blur(cover, 0.25) - cover) - 0.12 * cover
        return PaintedObject(dyes, cover, np.zeros_like(cover))
    faint = diameter > 1.6
    dyes[..., AZURE] = body * float(rng.uniform(0.08, 0.25) if faint else rng.uniform(0.2, 0.7))
    if rng.random() < 0.25 and not faint:
        dyes[..., GREY] = body * float(rng.uniform(0.3, 1.4))
    return PaintedObject(dyes, cover, np.zeros_like(cover))
