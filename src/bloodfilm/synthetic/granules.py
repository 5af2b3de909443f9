"""Granules by kind: fine, dusty, azurophil, mixed, hypergranular, eosinophil, basophil."""

import numpy as np

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.noise_fields import Grid, blur, dots, noise
from bloodfilm.synthetic.profiles import AZURE, CHROMATIN, EOSIN, GROUND, RNA

SCATTERED: dict[str, tuple[tuple[int, float, float, float, float], ...]] = {
    # (dye, dots per um2 of cytoplasm, radius um, amount, amount over the nucleus)
    "fine": ((GROUND, 2.6, 0.13, 0.45, 0.0), (AZURE, 0.9, 0.11, 0.32, 0.02)),
    "dusty": ((AZURE, 1.8, 0.11, 0.17, 0.04),),
    "mixed": ((GROUND, 2.2, 0.13, 0.6, 0.1), (AZURE, 1.8, 0.14, 0.45, 0.2)),
    "azurophil": ((AZURE, 3.6, 0.15, 0.6, 0.28), (GROUND, 1.0, 0.6, 0.7, 0.2)),
    "hypergranular": ((AZURE, 4.5, 0.15, 0.72, 0.34),),
}


def paint_granules(
    dyes: Floats32,
    grid: Grid,
    rng: np.random.Generator,
    kind: str,
    parts: tuple[Floats32, Floats32],
) -> None:
    """Add granules of `kind` to a cell given its (coverage, nucleus)."""
    cover, nucleus = parts
    inner = np.clip(blur(cover, 0.25) * 2 - 1, 0, 1)
    if kind == "eosinophil":
        _eosinophil(dyes, grid, rng, inner, nucleus)
    elif kind == "basophil":
        _basophil(dyes, rng, cover, nucleus)
    for dye, density, radius, amount, above in SCATTERED.get(kind, ()):
        area = float(inner.sum()) * 0.0064
        grains = dots(rng, inner, int(area * density), radius, 0.3)
        dyes[..., dye] += grains * (amount * (1 - nucleus) + above * nucleus) * cover
    if kind == "hypergranular":
        _auer_rods(dyes, grid, rng, inner * (1 - nucleus))


def _eosinophil(
    dyes: Floats32, grid: Grid, rng: np.random.Generator, inner: Floats32, nucleus: Floats32
) -> None:
    """Pack the cytoplasm with coarse orange-red, refractile granules; leave a clear patch."""
    plasma = inner * (1 - nucleus)
    bare = np.clip((noise(rng, grid.n, 4.0) - 1.7) * 2.5, 0, 1)
    full = plasma * (1 - bare)
    area = float(full.sum()) * 0.0064
    grains = dots(rng, full, int(area * 5.0), 0.24, 0.2)
    gleam = dots(rng, full, int(area * 1.2), 0.15, 0.2)
    dark = dots(rng, full, int(area * 1.1), 0.17, 0.3)
    amount = 0.46 + 0.42 * grains + 0.55 * dark - 0.28 * gleam + 0.10 * noise(rng, grid.n, 1.2)
    dyes[..., EOSIN] += plasma * np.maximum(amount, 0) * (1 - 0.85 * bare)
    dyes[..., RNA] *= 1 - 0.6 * (plasma * (1 - bare))


def _basophil(dyes: Floats32, rng: np.random.Generator, cover: Floats32, nucleus: Floats32) -> None:
    """Strew coarse, nearly black-purple granules over the whole cell, nucleus and edge too."""
    where = np.clip(blur(cover, 0.2) * 1.6 - 0.45, 0, 1)
    area = float(where.sum()) * 0.0064
    grains = dots(rng, where, int(area * rng.uniform(2.4, 3.8)), 0.24, 0.25)
    holes = dots(rng, where, int(area * 0.8), 0.2, 0.3)
    dyes *= (1 - 0.3 * holes)[..., None]
    dyes[..., AZURE] += where * (1 - nucleus) * 0.22
    dyes[..., CHROMATIN] += grains * (0.72 - 0.44 * nucleus)
    dyes[..., AZURE] += grains * 0.18


def _auer_rods(dyes: Floats32, grid: Grid, rng: np.random.Generator, room: Floats32) -> None:
    """Lay a few thin rods (bundled Auer rods) into the cytoplasm of about half the cells."""
    flat = np.flatnonzero(room > 0.5)
    if flat.size == 0 or rng.random() < 0.5:
        return
    for _ in range(int(rng.integers(1, 5))):
        row, col = np.divmod(int(rng.choice(flat)), grid.n)
        angle, half = rng.uniform(0, np.pi), rng.uniform(0.8, 1.6)
        dx, dy = grid.x - grid.x[row, col], grid.y - grid.y[row, col]
        along = dx * np.cos(angle) + dy * np.sin(angle)
        across = dy * np.cos(angle) - dx * np.sin(angle)
        rod = np.exp(-((across / 0.11) ** 2)) * (np.abs(along) < half)
        dyes[..., AZURE] += np.asarray(rod * room * 0.6, dtype=np.float32)
