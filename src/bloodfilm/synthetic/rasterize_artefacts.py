"""What is no intact white cell but may pass for one, painted as amounts of dye.

Smudge (basket) cells, squashed nuclei, giant platelets, platelet clumps, stain deposits and
overlapping red cells. Their appearance follows the descriptions in haematology (Bain, Blood Cells,
chapter 3; Palmer et al., ICSH recommendations, Int J Lab Hematol 2015).
"""

from types import MappingProxyType

import cv2
import numpy as np

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.noise_fields import (
    PAINT_UM,
    Grid,
    blur,
    dots,
    grid_for,
    noise,
    outline,
    ramp,
)
from bloodfilm.synthetic.nuclei import paint_nucleus
from bloodfilm.synthetic.profiles import AZURE, CHROMATIN, DYES, GREY, HAEMOGLOBIN, RNA
from bloodfilm.synthetic.rasterize_cells import PaintedObject, paint_chromatin


def _empty(grid: Grid) -> Floats32:
    return np.zeros((grid.n, grid.n, DYES), np.float32)


def _stretched(
    grid: Grid, rng: np.random.Generator, most: float
) -> tuple[Floats32, Floats32, float]:
    """Coordinates along and across a random direction, and how much longer than wide."""
    angle, ratio = rng.uniform(0, np.pi), float(rng.uniform(1.0, most))
    along = grid.x * np.cos(angle) + grid.y * np.sin(angle)
    across = grid.y * np.cos(angle) - grid.x * np.sin(angle)
    return np.asarray(along, np.float32), np.asarray(across, np.float32), ratio


def paint_smudge(seed: int, diameter: float) -> PaintedObject:
    """Paint a smudge (basket) cell: a burst nucleus spread out, without cytoplasm or edge.

    A loose net of violet strands with holes, an almost even, washed-out patch, or material drawn
    out into threads along the direction of the smear.
    """
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.95 + 1.0)
    kind = str(rng.choice(["net", "even", "threads"], p=[0.4, 0.35, 0.25]))
    along, across, ratio = _stretched(grid, rng, 2.6 if kind == "threads" else 1.8)
    table = outline(rng, diameter / 2, 0.16, abs(rng.normal(0.05, 0.1)), 7)
    rho = np.hypot(along / np.sqrt(ratio), across * np.sqrt(ratio))
    if kind == "net":
        frayed, soft = float(rng.uniform(0.5, 1.3)), float(rng.uniform(0.9, 2.2))
        edge = noise(rng, grid.n, float(rng.uniform(1.4, 2.6)), 3)
        amount = _net(grid, rng)
    elif kind == "even":
        frayed, soft = float(rng.uniform(0.2, 0.8)), float(rng.uniform(1.2, 3.5))
        edge = noise(rng, grid.n, float(rng.uniform(2.5, 5.0)), 2)
        amount = 0.6 + 0.09 * noise(rng, grid.n, float(rng.uniform(2.5, 5.0)), 3)
        holes = dots(rng, ramp(rho - diameter / 2, 1.0), int(rng.integers(0, 6)), 0.7, 0.5)
        amount -= 0.35 * holes
    else:
        frayed, soft = float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.6, 1.6))
        threads = _threads(grid, rng, along, across)
        edge = threads + 0.4 * noise(rng, grid.n, 1.6, 2)
        ahead = np.clip(along / diameter + 0.5, 0, 1)  # the further along, the fewer threads
        amount = np.asarray(0.75 - 0.35 * ahead - 0.3 * ahead * threads, np.float32)
    cover = ramp(rho - table[grid.turn] + frayed * edge, soft)
    body = blur(
        cover * np.asarray(np.clip(amount, 0.06, 1), np.float32), float(rng.uniform(0.08, 0.45))
    )
    dyes = _empty(grid)
    dyes[..., CHROMATIN] = body * float(rng.uniform(0.4, 0.95))
    dyes[..., RNA] = body * float(rng.uniform(0, 0.15))
    if rng.random() < 0.3:  # a remnant of the nucleus is denser
        dx, dy = rng.normal(0, diameter * 0.12, 2)
        rest = ramp(
            np.hypot(grid.x - dx, grid.y - dy) - diameter * float(rng.uniform(0.1, 0.2)), 1.5
        )
        dyes[..., CHROMATIN] += rest * cover * 0.3
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def _net(grid: Grid, rng: np.random.Generator) -> Floats32:
    """How much chromatin is left where a nucleus was pulled into a net."""
    net = np.abs(noise(rng, grid.n, float(rng.uniform(1.0, 2.2)), 3))
    amount = 0.68 - float(rng.uniform(0.1, 0.5)) * net + 0.10 * noise(rng, grid.n, 0.6, 2)
    fibres = 1 - np.clip(np.abs(noise(rng, grid.n, 0.7)), 0, 1)
    return np.asarray(amount + float(rng.uniform(0, 0.25)) * (fibres - 0.5), np.float32)


def _threads(grid: Grid, rng: np.random.Generator, along: Floats32, across: Floats32) -> Floats32:
    """Noise of about unit deviation that runs along one direction, spreading like a fan."""
    spread = 1 + float(rng.uniform(0, 0.9)) * np.clip(along / (grid.n * PAINT_UM / 2), -0.5, 1)
    line = noise(rng, grid.n, float(rng.uniform(0.5, 1.1)), 2)
    centre = (grid.n - 1) / 2
    rows = np.asarray(across / spread / PAINT_UM + centre, np.float32)
    columns = np.asarray(along * float(rng.uniform(0.04, 0.15)) / PAINT_UM + centre, np.float32)
    return np.asarray(cv2.remap(line, columns, rows, cv2.INTER_LINEAR), np.float32)


def paint_squashed_nucleus(seed: int, diameter: float) -> PaintedObject:
    """Paint a nucleus without cytoplasm: drawn out into a tail, or bare and sharply edged."""
    rng = np.random.default_rng(seed)
    if rng.random() < 0.6:
        return _bare_nucleus(rng, diameter)
    grid = grid_for(diameter * 0.95 + 1.0)
    along, across, ratio = _stretched(grid, rng, 2.4)
    tail = np.clip(along / diameter, 0, 1) * float(rng.uniform(0.0, 0.7))
    bend = float(rng.normal(0, 0.25)) * along**2 / diameter
    rho = np.hypot(along / np.sqrt(ratio), (across + bend) * np.sqrt(ratio) * (1 + tail))
    table = outline(rng, diameter / 2, 0.1, 0.0, 7)
    signed = rho - table[grid.turn] + 0.32 * noise(rng, grid.n, 1.8, 2)
    cover = ramp(signed, 0.6)
    streaks = noise(rng, grid.n, 1.1, 2)
    body = cover * np.clip(0.85 + 0.12 * streaks + 0.06 * noise(rng, grid.n, 0.35), 0.2, 1.3)
    dyes = _empty(grid)
    dyes[..., CHROMATIN] = body * float(rng.uniform(0.6, 1.05))
    return PaintedObject(dyes, cover, cover)


def _bare_nucleus(rng: np.random.Generator, diameter: float) -> PaintedObject:
    """A nucleus whose cytoplasm is lost: angular, indented or round, its chromatin still seen."""
    grid = grid_for(diameter * 0.8 + 1.0)
    stretch = abs(rng.normal(0, 0.14))
    table = outline(rng, diameter / 2, float(rng.uniform(0.05, 0.2)), stretch, 9)
    ragged = np.float32(0.2 * rng.random() ** 2)
    signed = grid.rho - table[grid.turn] + ragged * noise(rng, grid.n, 1.2, 2)
    room = ramp(signed, float(rng.uniform(0.25, 0.7)))
    kind = str(
        rng.choice(["whole", "oval notch", "lobulated", "kidney", "folded", "bilobed notch"])
    )
    nucleus = room
    if kind != "whole":
        area = float(rng.uniform(0.72, 0.95)) * float((room > 0.5).sum()) * PAINT_UM**2
        nucleus = paint_nucleus(grid, rng, kind, room, area, 0.0)
    values = {
        "nuclear_chromatin": str(rng.choice(["coarse", "open"])),
        "nucleolus": "prominent" if rng.random() < 0.15 else "inconspicuous",
    }
    dyes = _empty(grid)
    paint_chromatin(dyes, rng, nucleus, float(rng.uniform(0.45, 1.0)), values)
    if rng.random() < 0.35:  # washed out, as a nucleus is that has lost its membrane too
        dyes[..., CHROMATIN] = blur(
            np.ascontiguousarray(dyes[..., CHROMATIN]), float(rng.uniform(0.2, 0.5))
        )
    if rng.random() < 0.3:  # a trace of the cytoplasm around it
        beyond = np.asarray(signed - float(rng.uniform(0.4, 1.5)), np.float32)
        trace = ramp(beyond, float(rng.uniform(0.8, 2.0)))
        dyes[..., RNA] += (trace - nucleus).clip(0) * float(rng.uniform(0.03, 0.1))
    return PaintedObject(dyes, np.maximum(nucleus, 0), nucleus)


def paint_giant_platelet(seed: int, diameter: float) -> PaintedObject:
    """Paint a giant platelet: pale blue-grey, ragged, purple granules gathered in the middle."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.75 + 0.8)
    table = outline(rng, diameter / 2, 0.1, abs(rng.normal(0, 0.14)), 9)
    signed = grid.rho - table[grid.turn] + 0.16 * noise(rng, grid.n, 0.7, 2)
    cover = ramp(signed, 0.4)
    gathered = float(rng.uniform(0.35, 0.8))
    dx, dy = rng.normal(0, diameter * 0.06, 2)
    inner = ramp(np.hypot(grid.x - dx, grid.y - dy) - gathered * diameter / 2, 1.2) * cover
    where = np.asarray(np.maximum(inner, 0.55 * cover * (rng.random() < 0.3)), dtype=np.float32)
    grains = dots(rng, where, int(where.sum() * 0.0064 * rng.uniform(4, 8)), 0.17, 0.3)
    strength = float(rng.uniform(0.6, 1.1))
    dyes = _empty(grid)
    cloud = 1 + 0.15 * noise(rng, grid.n, 1.2, 2)
    dyes[..., RNA] = cover * cloud * float(rng.uniform(0.14, 0.32))
    dyes[..., AZURE] = strength * (0.14 * inner + 0.55 * grains * cover)
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def paint_platelet_clump(seed: int, diameter: float) -> PaintedObject:
    """Paint a clump of platelets: some to dozens, touching, fused where they are densest."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.7 + 1.0)
    area = np.pi * (diameter / 2) ** 2
    count = max(4, int(area / float(rng.uniform(4.5, 8.0))))
    table = outline(rng, diameter / 2 * 0.8, 0.22, abs(rng.normal(0, 0.2)), 7)
    signed = np.full((grid.n, grid.n), 9.0, np.float32)
    for _ in range(count):
        angle = rng.uniform(0, 2 * np.pi)
        reach = float(table[int(angle / (2 * np.pi) * len(table)) % len(table)])
        far = reach * np.sqrt(rng.random())
        radius = float(rng.uniform(0.9, 1.8))
        gap = np.hypot(grid.x - far * np.cos(angle), grid.y - far * np.sin(angle)) - radius
        signed = np.minimum(signed, np.asarray(gap, np.float32))
    signed += 0.18 * noise(rng, grid.n, 0.6, 2)
    cover = ramp(signed, 0.4)
    grains = dots(rng, cover, int(cover.sum() * 0.0064 * rng.uniform(4, 7)), 0.19, 0.3)
    strength, cloud = float(rng.uniform(0.55, 1.0)), 1 + 0.2 * noise(rng, grid.n, 1.0, 2)
    dyes = _empty(grid)
    dyes[..., RNA] = cover * 0.22 * cloud
    dyes[..., AZURE] = strength * cover * (0.18 + 0.5 * grains)
    return PaintedObject(dyes, cover, np.zeros_like(cover))


def paint_stain_deposit(seed: int, diameter: float) -> PaintedObject:
    """Paint precipitated stain: dark purple to black grains, strewn, heaped or in one lump."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.8 + 0.6)
    table = outline(rng, diameter / 2, 0.25, abs(rng.normal(0, 0.2)), 6)
    region = ramp(grid.rho - table[grid.turn] + 0.8 * noise(rng, grid.n, 1.2, 2), 0.8)
    heaped = np.clip(region * (1.1 - grid.rho / (diameter * 0.6)), 0, 1)
    where = region if rng.random() < 0.5 else np.asarray((heaped > 0.35) * region, dtype=np.float32)
    coarse = float(rng.uniform(0.16, 0.45))
    density = float(rng.uniform(0.8, 3.2))
    grains = dots(rng, where, int(where.sum() * 0.0064 * density / coarse * 0.25), coarse, 0.45)
    lump = np.zeros_like(grains)
    if rng.random() < 0.35:
        lump = ramp(grid.rho - table[grid.turn] * 0.45 + 0.3 * noise(rng, grid.n, 0.8, 2), 0.4)
    cover = np.asarray(np.maximum(grains, lump), dtype=np.float32)
    black = float(rng.uniform(0, 1))
    dyes = _empty(grid)
    dyes[..., CHROMATIN] = cover * (1 - black) * float(rng.uniform(0.5, 1.1))
    dyes[..., AZURE] = cover * float(rng.uniform(0.2, 0.8))
    dyes[..., GREY] = cover * black * float(rng.uniform(0.6, 1.8))
    solid = np.asarray(np.maximum(cover, blur(region, 0.4) * 0.6), dtype=np.float32)
    return PaintedObject(dyes, solid, np.zeros_like(cover))


def paint_overlapping_red_cells(seed: int, diameter: float) -> PaintedObject:
    """Paint two or three red cells on each other: a dark lens where they overlap."""
    rng = np.random.default_rng(seed)
    grid = grid_for(diameter * 0.75 + 1.0)
    total = np.zeros((grid.n, grid.n), np.float32)
    cover = np.zeros_like(total)
    angle = rng.uniform(0, 2 * np.pi)
    count = 2 if rng.random() < 0.75 else 3
    radius = diameter / (2.0 + float(rng.uniform(0.5, 1.1)))
    for index in range(count):
        turn = angle + index * (np.pi if count == 2 else 2 * np.pi / 3)
        step = (diameter / 2 - radius) * float(rng.uniform(0.85, 1.0))
        dx, dy = grid.x - step * np.cos(turn), grid.y - step * np.sin(turn)
        rho = np.hypot(dx, dy)
        wave = 1 + 0.03 * np.cos(2 * np.arctan2(dy, dx) + rng.uniform(0, 6.3))
        edge = radius * float(np.clip(1 + rng.normal(0, 0.05), 0.85, 1.15)) * wave
        single = ramp(np.asarray(rho - edge, np.float32), 0.3)
        pallor = float(rng.uniform(0.0, 0.5)) * np.exp(-((rho / (0.4 * radius)) ** 2))
        total += single * np.asarray(1.0 - pallor, np.float32) * float(np.exp(rng.normal(0, 0.1)))
        cover = np.maximum(cover, single)
    total *= 1 + 0.04 * noise(rng, grid.n, 2.0)
    blue = float(np.clip(rng.normal(0.04, 0.06), 0, 0.3))  # polychromatic ones take some azure blue
    dyes = np.stack([total, total * blue], axis=-1).astype(np.float32)
    return PaintedObject(dyes, cover, np.zeros_like(cover), (HAEMOGLOBIN, RNA))


ARTEFACTS = MappingProxyType(
    {
        "smudge cell": (paint_smudge, (11.0, 24.0)),
        "squashed nucleus": (paint_squashed_nucleus, (7.0, 15.0)),
        "giant platelet": (paint_giant_platelet, (5.5, 12.0)),
        "platelet clump": (paint_platelet_clump, (7.0, 20.0)),
        "stain deposit": (paint_stain_deposit, (4.0, 13.0)),
        "overlapping red cells": (paint_overlapping_red_cells, (9.5, 14.0)),
    }
)
"""By class of the taxonomy: how it is painted, and its usual diameters in um."""
