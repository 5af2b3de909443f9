"""The film of a synthetic slide: what lies where, drawn tile by tile in any order.

Positions follow from the seed and the place alone, never from what was drawn before: red cells of
the thin areas lie on a jittered triangular grid, so that they never overlap, those of the thick
area at random, and white cells on a wide jittered grid. So a slide of any size is drawn in little
memory, and the truth of every part is known without drawing it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats32, Image
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Box, Cell
from bloodfilm.synthetic.morphology import MIXES
from bloodfilm.synthetic.optics import CameraPose, develop
from bloodfilm.synthetic.profiles import STAINS, AcquisitionProfile
from bloodfilm.synthetic.slides.layout import (
    FEATHERED,
    GLASS,
    LENGTHWISE,
    PEN,
    THICK,
    TRANSITION,
    Layout,
)
from bloodfilm.synthetic.slides.stock import Stamp, Stock, make_stock

PROFILE = AcquisitionProfile(
    "slide-like",
    STAINS["mgg"],
    um_per_px=0.25,
    white=(246.0, 243.0, 240.0),
    blur_um=0.17,
    sharpen=0.4,
    noise=1.2,
    vignette=0.0,
    tilt=0.0,
    jpeg=None,
)
"""A slide scanner: 40x objective, evenly lit."""
BLOCK_UM = 64.0
THIN_SPACING = 12.4
"""Of red cells in the monolayer, um: 7.5 per 1000 um2."""
JITTER = 2.2
THICK_DENSITY = 24.0
"""Red cells per 1000 um2: several layers."""
PLATELET_DENSITY = 0.8
WHITE_MARGIN = 28.0
"""Smallest distance of two white cells, um."""
PEN_DENSITY = (1.1, 0.75, 0.28)
MARGIN = 8
"""Pixels drawn around a tile, so that blur crosses its edges."""


@dataclass(frozen=True, kw_only=True)
class SlideSpec:
    """A slide to draw.

    Attributes:
        width, height: of level 0, px.
        um_per_px: micrometres per pixel.
        mix: of the white cells, a name in `MIXES`.
        white_density: white cells per square millimetre of film.
        seed: the same seed draws the same slide.
    """

    width: int
    height: int
    um_per_px: float = 0.25
    mix: str = "normal"
    white_density: float = 150.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mix not in MIXES:
            raise ConfigError(f"slide: no mix {self.mix!r}; known: {', '.join(MIXES)}")
        if min(self.width, self.height) < 64 or not 0.02 <= self.um_per_px <= 2:
            raise ConfigError(
                f"slide: {self.width} x {self.height} px at {self.um_per_px:g} um per px; give at "
                "least 64 px each way and 0.02 to 2 um per px"
            )
        if not 0 <= self.white_density <= 1000:
            raise ConfigError("slide: the density of white cells must lie between 0 and 1000")


@dataclass(frozen=True, slots=True)
class WhiteCell:
    """A white cell of the truth: its annotation, and the area of the slide it lies in."""

    cell: Cell
    area: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """A stamp at a place: where its top-left pixel falls on the slide, and its centre in um."""

    stamp: Stamp
    left: int
    top: int
    x: float
    y: float

    @property
    def box(self) -> Box:
        x, y, w, h = self.stamp.box
        return self.left + x, self.top + y, w, h


@dataclass(frozen=True)
class SlideFilm:
    """A slide that can be drawn, and whose truth can be asked for, part by part."""

    spec: SlideSpec
    profile: AcquisitionProfile = field(default=PROFILE)

    @cached_property
    def layout(self) -> Layout:
        """The areas of the slide."""
        um = self.spec.um_per_px
        return Layout(self.spec.width * um, self.spec.height * um)

    @cached_property
    def _camera(self) -> AcquisitionProfile:
        return replace(self.profile, um_per_px=self.spec.um_per_px, vignette=0.0, tilt=0.0)

    @cached_property
    def _stock(self) -> Stock:
        return make_stock(self._camera, self.spec.mix, self.spec.seed)

    def white_cells(self, x: int, y: int, width: int, height: int) -> list[WhiteCell]:
        """Return the white cells with their centre in a rectangle of level 0, px, in reading order.

        Boxes are in px of level 0; a box at the edge of the slide is not cut.
        """
        um = self.spec.um_per_px
        found = []
        for placed in self._whites(x * um, y * um, width * um, height * um):
            item = placed.stamp.item
            ident = f"white-{placed.left}-{placed.top}"
            area = int(self.layout.area_of([(placed.x, placed.y)])[0])
            found.append(WhiteCell(Cell(placed.box, item.label, item.values, id=ident), area))
        return sorted(found, key=lambda w: (w.cell.box or (0, 0, 0, 0))[1::-1])

    def red_boxes(self, x: int, y: int, width: int, height: int) -> NDArray[np.float64]:
        """Return boxes (n, 4) of the red cells with their centre in a rectangle of level 0, px."""
        um = self.spec.um_per_px
        rect = x * um, y * um, width * um, height * um
        whites = list(self._whites(*_grown(rect, 16.0)))
        boxes = [p.box for p in self._reds(*rect, whites)]
        return np.array(boxes, dtype=np.float64).reshape(-1, 4)

    def draw(self, x: int, y: int, width: int, height: int) -> Image:
        """Draw a rectangle of level 0, uint8 RGB; its noise depends on its corner."""
        um = self.spec.um_per_px
        left, top = x - MARGIN, y - MARGIN
        shape = height + 2 * MARGIN, width + 2 * MARGIN
        near = _grown((left * um, top * um, shape[1] * um, shape[0] * um), 12.0)
        density = np.zeros((*shape, 3), np.float32)
        under = np.zeros(shape, np.float32)
        whites = list(self._whites(*_grown(near, 16.0)))
        for placed in self._reds(*near, whites):
            _lay_red(density, under, placed, (left, top), self._camera.pile)
        for placed in self._platelets(*near):
            _lay(density, placed, (left, top), covers=False)
        for placed in whites:
            _lay(density, placed, (left, top), covers=True)
        self._mark(density, left, top)
        pose = CameraPose(shape[1], shape[0], np.eye(2, 3))
        rng = np.random.default_rng([self.spec.seed, 17, x, y])
        image = develop(density, self._camera, pose, rng)
        return np.ascontiguousarray(image[MARGIN:-MARGIN, MARGIN:-MARGIN])

    # ---- positions ---------------------------------------------------------------------------

    def _place(self, stamp: Stamp, x: float, y: float) -> _Placed:
        um = self.spec.um_per_px
        left, top = round(x / um - stamp.centre[0]), round(y / um - stamp.centre[1])
        return _Placed(stamp, left, top, x, y)

    def _whites(self, x: float, y: float, width: float, height: float) -> Iterator[_Placed]:
        if self.spec.white_density <= 0:
            return
        side = math.sqrt(1e6 / self.spec.white_density)
        reach = max(0.0, (side - WHITE_MARGIN) / 2)
        for u, v in _cells(x, y, width, height, side):
            rng = np.random.default_rng([self.spec.seed, 2, u + 10, v + 10])
            dx, dy = rng.uniform(-reach, reach, 2)
            stamp = self._stock.whites[int(rng.integers(len(self._stock.whites)))]
            cx, cy = (u + 0.5) * side + float(dx), (v + 0.5) * side + float(dy)
            if not (x <= cx < x + width and y <= cy < y + height):
                continue
            if int(self.layout.area_of([(cx, cy)])[0]) != GLASS:
                yield self._place(stamp, cx, cy)

    def _reds(
        self, x: float, y: float, width: float, height: float, whites: list[_Placed]
    ) -> Iterator[_Placed]:
        um = self.spec.um_per_px
        taken = np.array([(w.x, w.y, w.stamp.radius * um) for w in whites]).reshape(-1, 3)
        for u, v in _cells(x, y, width, height, BLOCK_UM):
            rng = np.random.default_rng([self.spec.seed, 3, u + 10, v + 10])
            points, flat = self._red_points(u, v, rng)
            picks = rng.integers(1 << 30, size=len(points))
            inside = (points >= [x, y]).all(axis=1) & (points < [x + width, y + height]).all(axis=1)
            if len(taken):
                gap = np.hypot(*(points[:, None] - taken[None, :, :2]).transpose(2, 0, 1))
                inside &= (gap > taken[:, 2] + 3.3).all(axis=1)
            for i in np.flatnonzero(inside).tolist():
                stock = self._stock.flat if flat[i] else self._stock.reds
                stamp = stock[int(picks[i]) % len(stock)]
                yield self._place(stamp, float(points[i, 0]), float(points[i, 1]))

    def _red_points(
        self, u: int, v: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return centres (n, 2), um, of the red cells of a block, and which of them are flat."""
        corner = np.array([u, v]) * BLOCK_UM
        piled = (
            corner + rng.random((int(rng.poisson(THICK_DENSITY * BLOCK_UM**2 / 1e3)), 2)) * BLOCK_UM
        )
        area = self.layout.area_of(piled)
        # Thick films thin out towards the monolayer.
        share = np.interp(piled[:, 0] / self.layout.width, LENGTHWISE[1:3], (1.0, 0.0))
        kept = (area == THICK) | ((area == TRANSITION) & (rng.random(len(piled)) < share))
        thin = _grid(corner) + rng.uniform(-JITTER, JITTER, (len(_grid(corner)), 2))
        area = self.layout.area_of(thin)
        place = thin[:, 0] / self.layout.width
        chance = np.interp(place, (LENGTHWISE[2], *LENGTHWISE[3:]), (0.95, 0.9, 0.15))
        chance = np.where(area == TRANSITION, 0.9, chance)
        on = (area != GLASS) & (area != THICK) & (rng.random(len(thin)) < chance)
        flat = area == FEATHERED
        points = np.concatenate([piled[kept], thin[on]])
        return points, np.concatenate([np.zeros(int(kept.sum()), bool), flat[on]])

    def _platelets(self, x: float, y: float, width: float, height: float) -> Iterator[_Placed]:
        for u, v in _cells(x, y, width, height, BLOCK_UM):
            rng = np.random.default_rng([self.spec.seed, 5, u + 10, v + 10])
            count = int(rng.poisson(PLATELET_DENSITY * BLOCK_UM**2 / 1e3))
            points = np.array([u, v]) * BLOCK_UM + rng.random((count, 2)) * BLOCK_UM
            picks = rng.integers(len(self._stock.platelets), size=count)
            for (px, py), area, pick in zip(
                points.tolist(), self.layout.area_of(points), picks, strict=True
            ):
                if area not in (GLASS, PEN) and x <= px < x + width and y <= py < y + height:
                    yield self._place(self._stock.platelets[int(pick)], px, py)

    def _mark(self, density: Floats32, left: int, top: int) -> None:
        """Add the pen marks to the optical density."""
        um = self.spec.um_per_px
        height, width = density.shape[:2]
        for x, y, w, h in self.layout.pen_marks:
            x0, x1 = (round(v / um) - left for v in (x, x + w))
            y0, y1 = (round(v / um) - top for v in (y, y + h))
            rows, columns = slice(max(y0, 0), max(y1, 0)), slice(max(x0, 0), max(x1, 0))
            if x0 < width and y0 < height:
                density[rows, columns] += np.array(PEN_DENSITY, np.float32)


def _cells(
    x: float, y: float, width: float, height: float, side: float
) -> Iterator[tuple[int, int]]:
    """Yield the cells of a square grid that a rectangle touches, or whose neighbours it touches."""
    for v in range(math.floor(y / side) - 1, math.floor((y + height) / side) + 2):
        for u in range(math.floor(x / side) - 1, math.floor((x + width) / side) + 2):
            if u >= -9 and v >= -9:
                yield u, v


def _grid(corner: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the points (n, 2) of the triangular grid in a block."""
    down = THIN_SPACING * math.sqrt(3) / 2
    rows = np.arange(math.ceil(corner[1] / down), math.ceil((corner[1] + BLOCK_UM) / down))
    points = []
    for row in rows.tolist():
        shift = THIN_SPACING / 2 * (row % 2)
        first = math.ceil((corner[0] - shift) / THIN_SPACING)
        last = math.ceil((corner[0] + BLOCK_UM - shift) / THIN_SPACING)
        points += [(n * THIN_SPACING + shift, row * down) for n in range(first, last)]
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def _grown(rect: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    x, y, w, h = rect
    return x - by, y - by, w + 2 * by, h + 2 * by


def _overlap(
    shape: tuple[int, int], placed: _Placed, corner: tuple[int, int]
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Return the pixels of the canvas and of the stamp that coincide."""
    x, y = placed.left - corner[0], placed.top - corner[1]
    h, w = placed.stamp.cover.shape
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, shape[1]), min(y + h, shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    return np.s_[y0:y1, x0:x1], np.s_[y0 - y : y1 - y, x0 - x : x1 - x]


def _lay_red(
    density: Floats32, under: Floats32, placed: _Placed, corner: tuple[int, int], pile: float
) -> None:
    shape = under.shape[0], under.shape[1]
    where = _overlap(shape, placed, corner)
    if where is None:
        return
    outer, inner = where
    cover, beneath = placed.stamp.cover[inner], under[outer]
    density[outer] += placed.stamp.density[inner] * (1 - (1 - pile) * beneath)[..., None]
    under[outer] = cv2.max(beneath, cover)


def _lay(density: Floats32, placed: _Placed, corner: tuple[int, int], covers: bool) -> None:
    where = _overlap((density.shape[0], density.shape[1]), placed, corner)
    if where is None:
        return
    outer, inner = where
    if covers:
        density[outer] *= (1 - placed.stamp.cover[inner])[..., None]
    density[outer] += placed.stamp.density[inner]
