"""Granules by kind: fine, dusty, azurophil, mixed, hypergranular, eosinophil, basophil."""

import numpy as np

from bloodfilm.films.grid import Floats, Grid, blur, dots, noise
from bloodfilm.films.looks import AZURE, CHROMATIN, EOSIN, GROUND, RNA

SCATTERED: dict[str, tuple[tuple[int, float, float, float, float], ...]] = {
    # (dye, dots per um2 of cytoplasm, radius um, amount, amount over the nucleus)
    "fine": ((GROUND, 2.6, 0.13, 0.9, 0.0), (AZURE, 0.75, 0.12, 0.26, 0.02)),
    "dusty": ((AZURE, 1.2, 0.11, 0.16, 0.04),),
    "mixed": ((GROUND, 2.2, 0.13, 0.8, 0.1), (AZURE, 1.1, 0.15, 0.42, 0.15)),
    "azurophil": ((AZURE, 2.0, 0.17, 0.62, 0.30),),
    "hypergranular": ((AZURE, 3.2, 0.16, 0.75, 0.35),),
}


def paint_granules(
    dyes: Floats, grid: Grid, rng: np.random.Generator, kind: str, parts: tuple[Floats, Floats]
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
    dyes: Floats, grid: Grid, rng: np.random.Generator, inner: Floats, nucleus: Floats
) -> None:
    """Pack the cytoplasm with coarse orange-red, refractile granules; leave a clear patch."""
    plasma = inner * (1 - nucleus)
    bare = np.clip((noise(rng, grid.n, 4.0) - 1.3) * 2.5, 0, 1)
    full = plasma * (1 - bare)
    area = float(full.sum()) * 0.0064
    grains = dots(rng, full, int(area * 4.5), 0.27, 0.2)
    gleam = dots(rng, full, int(area * 0.8), 0.13, 0.2)
    amount = 0.42 + 0.62 * grains - 0.30 * gleam
    dyes[..., EOSIN] += plasma * np.maximum(amount, 0) * (1 - 0.85 * bare)
    dyes[..., AZURE] += plasma * 0.06 * grains
    dyes[..., RNA] *= 1 - 0.6 * (plasma * (1 - bare))


def _basophil(dyes: Floats, rng: np.random.Generator, cover: Floats, nucleus: Floats) -> None:
    """Strew coarse, nearly black-purple granules over the whole cell, nucleus and edge too."""
    where = np.clip(blur(cover, 0.2) * 1.6 - 0.45, 0, 1)
    area = float(where.sum()) * 0.0064
    grains = dots(rng, where, int(area * rng.uniform(1.4, 2.2)), 0.34, 0.25)
    holes = dots(rng, where, int(area * 0.8), 0.2, 0.3)
    dyes[..., CHROMATIN] += grains * (0.62 + 0.0 * nucleus) * (1 - 0.45 * nucleus)
    dyes[..., AZURE] += grains * 0.5 * (1 - 0.4 * nucleus)
    dyes *= (1 - 0.35 * holes * (1 - grains))[..., None]


def _auer_rods(dyes: Floats, grid: Grid, rng: np.random.Generator, room: Floats) -> None:
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
