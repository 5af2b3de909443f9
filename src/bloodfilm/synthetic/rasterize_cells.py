"""White cells and erythroblasts, painted as amounts of dye on the paint grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.granules import paint_granules
from bloodfilm.synthetic.morphology import MORPHOLOGIES, CellObject
from bloodfilm.synthetic.noise_fields import Grid, blur, dots, grid_for, noise, outline, press, ramp
from bloodfilm.synthetic.nuclei import paint_nucleus
from bloodfilm.synthetic.profiles import CHROMATIN, DYES, GROUND, HAEMOGLOBIN, RNA


@dataclass(frozen=True)
class PaintedObject:
    """One painted object, centred, `PAINT_UM` per pixel.

    Attributes:
        dyes: amounts of dye, (n, n, k).
        which: the k dyes, by channel; all of them by default.
        cover: coverage 0..1, (n, n); 0.5 is the outline the truth's boxes follow.
        nucleus: coverage by the nucleus, (n, n).
    """

    dyes: Floats32
    cover: Floats32
    nucleus: Floats32
    which: tuple[int, ...] = tuple(range(DYES))


def paint_white(item: CellObject) -> PaintedObject:
    """Paint a white cell so that each of its attributes shows."""
    rng = np.random.default_rng(item.seed)
    traits, values = MORPHOLOGIES[item.form], item.values
    radius = item.diameter / 2
    grid = grid_for(radius * 1.3 + 0.8)
    table = outline(rng, radius, traits.rough, stretch=abs(rng.normal(0, traits.rough)))
    signed = grid.rho - press(table, item.walls)[grid.turn]
    signed += traits.ragged * noise(rng, grid.n, 0.8)
    cover = ramp(signed, 0.3)
    room = ramp(signed + 0.38, 0.2)
    irregular = values["nuclear_shape"] == "irregular"
    kind = str(rng.choice(traits.irregular if irregular else traits.regular))
    share = traits.share[int(values["cytoplasm"] == "abundant")] * float(rng.uniform(0.95, 1.05))
    area = share * np.pi * radius**2
    if item.form.endswith(("neutrophil", "eosinophil")) and irregular:
        room = ramp(signed + 0.7, 0.2)
    nucleus = paint_nucleus(grid, rng, kind, room, area, traits.eccentric)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    _cytoplasm(dyes, grid, rng, item, (signed, cover, nucleus))
    paint_chromatin(dyes, rng, nucleus, traits.chromatin, values)
    plasma = np.maximum(cover - nucleus, 0)
    paint_granules(dyes, grid, rng, traits.granules, (cover, nucleus))
    if values["cytoplasmic_vacuoles"] == "prominent":
        _vacuoles(dyes, rng, ramp(signed + 0.7, 0.2) * (1 - blur(nucleus, 0.25)), plasma)
    return PaintedObject(dyes, cover, nucleus)


def _cytoplasm(
    dyes: Floats32,
    grid: Grid,
    rng: np.random.Generator,
    item: CellObject,
    parts: tuple[Floats32, Floats32, Floats32],
) -> None:
    """Fill the cell: basophilic (RNA) with a deeper edge and a pale hof, and the pink ground."""
    signed, cover, nucleus = parts
    traits, values = MORPHOLOGIES[item.form], item.values
    moderate = values["cytoplasmic_basophilia"] == "moderate"
    rna = traits.rna[int(moderate)] * float(rng.uniform(0.9, 1.1))
    cloud = 1 + 0.16 * noise(rng, grid.n, 1.6, 3) + 0.16 * noise(rng, grid.n, 0.3)
    edge = np.exp(np.minimum(signed, 0) / (0.14 * item.diameter / 2))
    plasma = cover * (1 - 0.75 * nucleus)
    amount = rna * (0.82 + 0.5 * edge) * cloud
    if traits.granules in ("azurophil", "mixed", "hypergranular"):
        amount *= 1 - 0.55 * _hof(grid, rng, nucleus, cover, item.diameter)
    dyes[..., RNA] += plasma * np.maximum(amount, 0)
    ground = traits.ground * (
        1 + 0.2 * noise(rng, grid.n, 1.5, 3) + 0.12 * noise(rng, grid.n, 0.25)
    )
    dyes[..., GROUND] += plasma * np.maximum(ground * (0.85 + 0.35 * edge), 0)


def _hof(
    grid: Grid, rng: np.random.Generator, nucleus: Floats32, cover: Floats32, diameter: float
) -> Floats32:
    """The pale Golgi zone beside the nucleus, on the side where the cytoplasm is widest."""
    weight = cover * (1 - nucleus)
    total = float(weight.sum()) + 1e-6
    cx, cy = float((grid.x * weight).sum()) / total, float((grid.y * weight).sum()) / total
    near = (grid.x - cx) ** 2 + (grid.y - cy) ** 2
    return np.asarray(np.exp(-near / (0.12 * diameter) ** 2 / 2), dtype=np.float32)


def paint_chromatin(
    dyes: Floats32,
    rng: np.random.Generator,
    nucleus: Floats32,
    amount: float,
    values: Mapping[str, str],
) -> None:
    """Fill the nucleus: clumps and pale gaps if coarse, a fine even net if open; nucleoli.

    `amount` is that of the dye; `values` those of `nuclear_chromatin` and `nucleolus`.
    """
    n = nucleus.shape[0]
    coarse = values["nuclear_chromatin"] == "coarse"
    rim = np.maximum(nucleus - blur(nucleus, 0.3), 0)
    level = amount * float(rng.uniform(0.95, 1.05))
    if coarse:
        level = max(level, 0.72)
        clump = np.tanh(1.3 * noise(rng, n, 1.1, 2))
        seams = np.clip((noise(rng, n, 0.58, 2) - 0.55) * 1.3, 0, 1)
        holes = dots(rng, blur(nucleus, 0.3), int(nucleus.sum() / 900), 0.2, 0.4)
        body = level * (1.05 + 0.16 * clump + 0.09 * noise(rng, n, 0.24)) * (1 - 0.48 * seams)
        body = body * (1 - 0.35 * holes) + 0.62 * rim
    else:
        level = min(level, 0.78)
        strands = 1 - np.clip(np.abs(noise(rng, n, 0.46)), 0, 1)
        body = level * np.maximum(0.78 + 0.46 * strands + 0.16 * noise(rng, n, 0.24), 0.62)
        body = body + 0.5 * rim
    if values["nucleolus"] == "prominent":
        body = _nucleoli(dyes, rng, nucleus, body)
    dyes[..., CHROMATIN] += nucleus * np.maximum(body, 0.05)


def _nucleoli(
    dyes: Floats32, rng: np.random.Generator, nucleus: Floats32, body: Floats32
) -> Floats32:
    """Clear one to three round, bluish, pale bodies with a chromatin rim out of the nucleus."""
    inner = blur((blur(nucleus, 0.5) > 0.93).astype(np.float32), 0.1)
    if not (inner > 0.5).any():
        inner = nucleus
    count = int(rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25]))
    for _ in range(count):
        spot = dots(rng, inner, 1, float(rng.uniform(0.85, 1.2)), 0.0)
        shell = np.maximum(blur(spot, 0.3) - spot, 0)
        body = body * (1 - 0.62 * spot) + 0.5 * shell
        dyes[..., RNA] += nucleus * spot * 0.5
        inner = inner * (1 - np.clip(blur(spot, 0.6) * 2.5, 0, 1))
    return np.asarray(body, dtype=np.float32)


def _vacuoles(dyes: Floats32, rng: np.random.Generator, room: Floats32, plasma: Floats32) -> None:
    """Punch clear round holes into the cytoplasm; a few, large enough to be visible at 40x."""
    where = room if (room > 0.5).any() else plasma
    count = int(np.clip(where.sum() / 700, 4, 14))
    small = dots(rng, where, count, 0.32, 0.3)
    large = dots(rng, where, max(3, count // 3), 0.6, 0.25)
    hole = np.maximum(small, large)
    dyes *= (1 - 0.92 * hole)[..., None]


def paint_erythroblast(item: CellObject) -> PaintedObject:
    """Paint a nucleated red cell: round, dense nucleus in grey-blue to pink cytoplasm."""
    rng = np.random.default_rng(item.seed)
    radius = item.diameter / 2
    grid = grid_for(radius * 1.3 + 0.8)
    signed = grid.rho - press(outline(rng, radius, 0.035), item.walls)[grid.turn]
    cover, room = ramp(signed, 0.35), ramp(signed + 0.4, 0.2)
    area = float(rng.uniform(18, 34))
    nucleus = paint_nucleus(grid, rng, "round", room, area, 0.6)
    dyes = np.zeros((grid.n, grid.n, DYES), np.float32)
    cloud = 1 + 0.08 * noise(rng, grid.n, 1.4, 2)
    ripe = float(rng.uniform(0.2, 0.9))
    plasma = cover * (1 - 0.7 * nucleus) * cloud
    dyes[..., HAEMOGLOBIN] += plasma * (0.4 + 0.9 * ripe)
    dyes[..., RNA] += plasma * (0.75 - 0.6 * ripe)
    clump = np.tanh(1.5 * noise(rng, grid.n, 1.0, 2))
    dyes[..., CHROMATIN] += nucleus * (1.05 + 0.16 * clump * (1 - 0.6 * ripe))
    return PaintedObject(dyes, cover, nucleus)
