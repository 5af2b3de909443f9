"""Nucleus shapes: round, indented, folded, banded, lobed; drawn as strokes, then made organic."""

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.noise_fields import PAINT_UM, Grid, blur, noise

Path = NDArray[np.float64]
"""A stroke: rows (x, y, radius) in units of the nucleus."""

Shape = tuple[list[Path], list[Path]]
"""Strokes that add nucleus, and strokes that cut clefts into it."""


def _stroke(x: ArrayLike, y: ArrayLike, r: ArrayLike) -> Path:
    columns = [np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (x, y, r)]
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def _arc(span: float, radius: float, thick: NDArray[np.float64]) -> Path:
    angle = np.linspace(-span / 2, span / 2, len(thick))
    return _stroke(radius * np.cos(angle), radius * np.sin(angle), thick)


def _round(rng: np.random.Generator) -> Shape:
    return [_stroke(0, 0, 1)], []


def _oval(rng: np.random.Generator) -> Shape:
    long = rng.uniform(0.15, 0.4)
    return [_stroke(np.linspace(-long, long, 9), 0, 1)], []


def _cleft(rng: np.random.Generator, angle: float, depth: float, width: float) -> Path:
    """A notch cut from outside towards the centre."""
    far, near = 1.5, 1 - depth
    t = np.linspace(0, 1, 14)
    bend = rng.normal(0, 0.12) * np.sin(np.pi * t)
    along = far + (near - far) * t
    x = along * np.cos(angle) - bend * np.sin(angle)
    y = along * np.sin(angle) + bend * np.cos(angle)
    return _stroke(x, y, width * (2.0 - 1.6 * t))


def _lobulated(rng: np.random.Generator) -> Shape:
    lobes = int(rng.choice([2, 3, 4], p=[0.4, 0.45, 0.15]))
    start = rng.uniform(0, 2 * np.pi)
    turns = start + 2 * np.pi * (np.arange(lobes) + rng.uniform(-0.15, 0.15, lobes)) / lobes
    add = [_stroke(0, 0, 0.68)]
    add += [
        _stroke(0.44 * np.cos(a), 0.44 * np.sin(a), r)
        for a, r in zip(turns, rng.uniform(0.5, 0.62, lobes), strict=True)
    ]
    cut = [
        _cleft(rng, a + np.pi / lobes, rng.uniform(0.3, 0.5), rng.uniform(0.07, 0.12))
        for a in turns[: max(2, lobes - 1)]
    ]
    return add, cut


def _folded(rng: np.random.Generator) -> Shape:
    span = rng.uniform(1.9, 2.8)
    t = np.linspace(0, 1, 24)
    thick = 0.56 + 0.09 * np.sin(2 * np.pi * (t + rng.random())) + rng.normal(0, 0.02, 24)
    body = _arc(span, 0.72, thick)
    lobe = _stroke(0.2 + rng.normal(0, 0.1), rng.normal(0, 0.3), 0.62)
    cut = [_cleft(rng, rng.uniform(2.4, 3.9), rng.uniform(0.4, 0.65), 0.1)]
    return [body, lobe], cut


def _kidney(rng: np.random.Generator) -> Shape:
    t = np.linspace(-1, 1, 24)
    thick = rng.uniform(0.54, 0.68) - 0.06 * (1 - t * t) + 0.04 * np.sin(3 * t + rng.uniform(0, 6))
    return [_arc(rng.uniform(1.9, 3.0), rng.uniform(0.66, 0.8), thick)], []


def _oval_notch(rng: np.random.Generator) -> Shape:
    add, _ = _oval(rng)
    angles = rng.choice([1.2, 1.9, 4.4, 5.0], 2, replace=False)
    cut = [_cleft(rng, float(a), rng.uniform(0.3, 0.5), rng.uniform(0.08, 0.14)) for a in angles]
    return add, cut


def _bilobed_notch(rng: np.random.Generator) -> Shape:
    gap = rng.uniform(0.55, 0.7)
    add = [_stroke(-gap, 0, rng.uniform(0.68, 0.8)), _stroke(gap, 0, rng.uniform(0.6, 0.75))]
    waist = _stroke(np.linspace(-gap, gap, 9), rng.normal(0, 0.1), 0.4)
    return [*add, waist], [_cleft(rng, np.pi / 2 + rng.normal(0, 0.2), 0.5, 0.1)]


def _band(rng: np.random.Generator) -> Shape:
    t = np.linspace(-1, 1, 40)
    thick = 0.31 + 0.08 * t * t + 0.05 * np.sin(5 * t + rng.uniform(0, 6))
    if rng.random() < 0.25:  # an S
        x, y = 1.1 * t, 0.45 * np.sin(np.pi * t * 0.9)
        return [_stroke(x, y, thick)], []
    return [_arc(rng.uniform(3.2, 4.6), 0.78, thick)], []


def _lobe(rng: np.random.Generator, x: float, y: float, size: float) -> Path:
    turn, half = rng.uniform(0, np.pi), rng.uniform(0.2, 0.75) * size
    t = np.linspace(-half, half, 13)
    swell = size * (1 + rng.uniform(-0.08, 0.08) * t / max(half, 1e-6))
    return _stroke(x + t * np.cos(turn), y + t * np.sin(turn), swell * 0.86)


def _filament(a: tuple[float, float], b: tuple[float, float], width: float, bow: float) -> Path:
    t = np.linspace(0, 1, 30)
    x = a[0] + (b[0] - a[0]) * t - bow * (b[1] - a[1]) * t * (1 - t)
    y = a[1] + (b[1] - a[1]) * t + bow * (b[0] - a[0]) * t * (1 - t)
    return _stroke(x, y, width * (1 + 1.2 * (2 * t - 1) ** 4))


def _constricted(rng: np.random.Generator) -> Shape:
    """A bent sausage nipped into lobes."""
    lobes = int(rng.choice([2, 3, 4], p=[0.25, 0.5, 0.25]))
    t = np.linspace(0, 1, 60)
    neck, wide = rng.uniform(0.08, 0.16), {2: 0.54, 3: 0.46, 4: 0.38}[lobes]
    beat = np.abs(np.sin(np.pi * t * lobes)) ** 1.1
    size = np.interp(t * lobes, np.arange(lobes + 1), rng.uniform(0.9, 1.15, lobes + 1))
    thick = neck + (wide - neck) * beat * size
    thick[[0, -1]] = 0.2
    path = _arc(rng.uniform(3.4, 5.2), 0.85, thick)
    if rng.random() < 0.35:  # an S rather than a C
        turn = np.where(t < 0.5, 1.0, -1.0) * rng.uniform(2.4, 3.6)
        heading = np.cumsum(turn) / len(t)
        step = rng.uniform(2.6, 3.2) / len(t)
        path = _stroke(np.cumsum(np.cos(heading)) * step, np.cumsum(np.sin(heading)) * step, thick)
    return [path], []


def _segmented(rng: np.random.Generator) -> Shape:
    if rng.random() < 0.55:
        return _constricted(rng)
    lobes = int(rng.choice([2, 3, 4, 5], p=[0.12, 0.45, 0.33, 0.10]))
    step = {2: 2.6, 3: 2.0, 4: 1.5, 5: 1.22}[lobes] * rng.uniform(0.8, 1.05)
    angle = step * np.arange(lobes) + rng.normal(0, 0.12, lobes)
    far = 0.95 + rng.normal(0, 0.08, lobes)
    spots = [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(far, angle, strict=True)]
    size = {2: 0.7, 3: 0.6, 4: 0.54, 5: 0.48}[lobes]
    add = [_lobe(rng, x, y, size * rng.uniform(0.85, 1.15)) for x, y in spots]
    for a, b in pairwise(spots):
        width = rng.uniform(0.09, 0.14) if rng.random() < 0.6 else rng.uniform(0.18, 0.34)
        add.append(_filament(a, b, width, rng.normal(-0.3, 0.3)))
    return add, []


def _bilobed(rng: np.random.Generator) -> Shape:
    lobes = 2 if rng.random() < 0.82 else 3
    step = rng.uniform(1.9, 2.9) if lobes == 2 else rng.uniform(1.5, 1.9)
    spots = [(float(np.cos(step * i)), float(np.sin(step * i))) for i in range(lobes)]
    size = 0.74 if lobes == 2 else 0.58
    add = [_lobe(rng, x, y, size * rng.uniform(0.9, 1.1)) for x, y in spots]
    for a, b in pairwise(spots):
        add.append(_filament(a, b, rng.uniform(0.1, 0.22), rng.normal(-0.4, 0.2)))
    return add, []


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "round": _round,
    "oval": _oval,
    "oval notch": _oval_notch,
    "lobulated": _lobulated,
    "folded": _folded,
    "kidney": _kidney,
    "band": _band,
    "segmented": _segmented,
    "bilobed": _bilobed,
    "bilobed notch": _bilobed_notch,
}

CREASE = 64
"""What is left, of 255, where a cleft is cut: a fold is pale, not empty."""

_SHIFT = 4


def _draw(grid: Grid, strokes: list[Path], mask: NDArray[np.uint8], value: int) -> None:
    centre = (grid.n - 1) / 2
    for stroke in strokes:
        points = np.round((stroke / PAINT_UM + [centre, centre, 0]) * 2**_SHIFT).astype(int)
        for x, y, r in points.tolist():
            cv2.circle(mask, (x, y), max(r, 8), value, -1, cv2.LINE_8, _SHIFT)


def _turned(strokes: list[Path], angle: float, scale: float, at: tuple[float, float]) -> list[Path]:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, s, 0], [-s, c, 0], [0, 0, scale]])
    return [stroke @ matrix + [at[0], at[1], 0.0] for stroke in strokes]


def _extent(strokes: list[Path]) -> tuple[Path, float]:
    points = np.concatenate(strokes)
    weight = points[:, 2:] ** 2
    centre = (points[:, :2] * weight).sum(0) / weight.sum()
    moved = [stroke - np.array([centre[0], centre[1], 0.0]) for stroke in strokes]
    points = np.concatenate(moved)
    reach = float((np.hypot(points[:, 0], points[:, 1]) + points[:, 2]).max())
    return centre, reach


def paint_nucleus(
    grid: Grid, rng: np.random.Generator, kind: str, room: Floats32, area: float, eccentric: float
) -> Floats32:
    """Draw a nucleus of `kind` and about `area` um2 inside `room` (coverage); returns coverage.

    The shape is scaled until what lies inside the room has the wanted area, moved off centre as
    far as the room allows times `eccentric`, and softened to an organic outline.
    """
    add, cut = SHAPES[kind](rng)
    centre, reach = _extent(add)
    back = np.array([centre[0], centre[1], 0.0])
    add, cut = [s - back for s in add], [s - back for s in cut]
    angle, way = rng.uniform(0, 2 * np.pi, 2)
    inside = room > 0.5
    radius = float(np.sqrt(inside.sum() / np.pi)) * PAINT_UM
    scale = float(np.sqrt(area / np.pi))
    push = eccentric * float(rng.uniform(0.5, 1.0))
    mask = np.zeros((grid.n, grid.n), np.uint8)
    ratio = 1.0
    for _ in range(6):
        if scale > 1.15 * radius / reach:  # no room to grow any longer: grow thicker
            scale = 1.15 * radius / reach
            add = [s * [1, 1, min(ratio, 1.3)] for s in add]
        off = max(0.0, radius - scale * reach * 0.96) * push
        at = (off * float(np.cos(way)), off * float(np.sin(way)))
        mask[:] = 0
        _draw(grid, _turned(add, angle, scale, at), mask, 255)
        _draw(grid, _turned(cut, angle, scale, at), mask, CREASE)
        got = np.count_nonzero((mask > CREASE) & inside) * PAINT_UM**2
        ratio = float(np.sqrt(area / max(got, 1.0)))
        if abs(ratio - 1) < 0.02:
            break
        scale *= ratio
    return _organic(grid, rng, mask, room)


def _organic(
    grid: Grid, rng: np.random.Generator, mask: NDArray[np.uint8], room: Floats32
) -> Floats32:
    """Wave the outline a little, round its corners and make its edge soft."""
    wave = noise(rng, grid.n, 2.2, 2) * (0.13 / PAINT_UM)
    drift = noise(rng, grid.n, 2.2, 2) * (0.13 / PAINT_UM)
    index = grid.pixels(grid.x), grid.pixels(grid.y)
    moved = cv2.remap(mask, index[0] + wave, index[1] + drift, cv2.INTER_LINEAR)
    smooth = blur(np.asarray(moved, np.float32) * np.float32(1 / 255), 0.16)
    return np.minimum(np.clip((smooth - 0.5) * 2.0 + 0.5, 0, 1).astype(np.float32), room)
