"""Red cells, platelets, smudge cells and dirt, painted as amounts of dye."""

import numpy as np

from bloodfilm.synthetic.noise_fields import (
    ANGLES,
    Floats,
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


def paint_red(
    seed: int, diameter: float, walls: tuple[tuple[float, float], ...] = ()
) -> PaintedObject:
    """Paint a red cell: biconcave, its pallor of any depth, its outline mildly varied."""
    rng = np.random.default_rng(seed)
    radius = diameter / 2
    grid = grid_for(radius * 1.18 + 0.35)
    table = outline(rng, radius, 0.03, abs(rng.normal(0, 0.045)), 5)
    mood = rng.random()
    if mood < 0.03:  # crenated
        angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
        table *= (1 + 0.05 * np.cos(int(rng.integers(9, 14)) * angle)).astype(np.float32)
    table = press(table, walls)
    edge = table[grid.turn]
    signed = grid.rho - edge
    cover = ramp(signed, 0.3)
    place = grid.rho / edge
    depth, width = float(rng.uniform(0.35, 0.95)), float(rng.uniform(0.22, 0.5))
    if mood > 0.8:  # no pallor seen
        depth = 0.15
    dx, dy = (grid.x - float(rng.normal(0, 0.25)), grid.y - float(rng.normal(0, 0.25)))
    inner = np.sqrt(dx * dx + dy * dy) / edge
    far, rim = inner / width, np.square(np.square(place))
    profile = 1.04 - depth * np.exp(far * far * far / -1.6) - 0.12 * rim * rim
    if 0.03 < mood < 0.05:  # target cell
        profile += 0.5 * np.exp(-((inner / 0.2) ** 2))
    shade = 1 + 0.035 * noise(rng, grid.n, 2.0)
    amount = cover * np.maximum(profile, 0.05) * shade * float(np.exp(rng.normal(0, 0.09)))
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


def paint_smudge(seed: int, diameter: float) -> PaintedObject:
    """Paint a smudge cell: a burst nucleus smeared out, without cytoplasm or edge."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.85 + 1.0)
    table = outline(rng, diameter / 2, 0.16, abs(rng.normal(0.1, 0.1)), 7)
    signed = grid.rho - table[grid.turn] + 0.7 * noise(rng, grid.n, 2.0, 3)
    cover = ramp(signed, 1.2)
    net = np.abs(noise(rng, grid.n, 1.6, 3))
    amount = cover * np.clip(0.62 - 0.24 * net + 0.10 * noise(rng, grid.n, 0.6, 2), 0.08, 1)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    dyes[..., CHROMATIN] = amount * float(rng.uniform(0.55, 0.85))
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def paint_debris(seed: int, diameter: float) -> PaintedObject:
    """Paint stain deposit (small, dark, purple or black) or a faint smear."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.9 + 0.5)
    table = outline(rng, diameter / 2, 0.2, abs(rng.normal(0, 0.2)), 6)
    signed = grid.rho - table[grid.turn] + 0.2 * noise(rng, grid.n, 0.6, 2)
    cover = ramp(signed, 0.4)
    body: Floats = cover * np.clip(0.8 + 0.4 * noise(rng, grid.n, 0.5), 0.1, 2)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    if rng.random() < 0.08:  # a refractile bead: bright, with a dark ring
        dyes[..., GREY] = 0.9 * (blur(cover, 0.25) - cover) - 0.12 * cover
        return PaintedObject(dyes, cover, np.zeros_like(cover))
    faint = diameter > 1.6
    dyes[..., AZURE] = body * float(rng.uniform(0.08, 0.25) if faint else rng.uniform(0.2, 0.7))
    if rng.random() < 0.25 and not faint:
        dyes[..., GREY] = body * float(rng.uniform(0.3, 1.4))
    return PaintedObject(dyes, cover, np.zeros_like(cover))
