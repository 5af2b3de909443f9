"""A stock of drawn objects: each is painted once, and placed many times on a slide."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bloodfilm.core.arrays import Floats32
from bloodfilm.synthetic.morphology import MIXES, CellObject, draw_seed, white_cell
from bloodfilm.synthetic.optics import CameraPose, paint, placed_layers, visible_extent
from bloodfilm.synthetic.profiles import AcquisitionProfile

WHITES, REDS, FLAT, PLATELETS = 48, 128, 64, 24
"""How many of each are painted; each is placed in four orientations."""
RED_UM, FLAT_UM = 7.5, 8.3
"""Mean diameters: at the feathered edge red cells are flat, wide and without pallor."""


@dataclass(frozen=True, eq=False)
class Stamp:
    """One drawn object.

    Attributes:
        item: the object; its position is that of the camera's origin.
        density: optical density (h, w, 3).
        cover: (h, w), how much it covers what lies beneath.
        centre: of the object in the stamp, px, x and y.
        box: x, y, w, h in px of the stamp, tight at half coverage.
        radius: px.
    """

    item: CellObject
    density: Floats32
    cover: Floats32
    centre: tuple[float, float]
    box: tuple[float, float, float, float]
    radius: float


@dataclass(frozen=True, eq=False)
class Stock:
    """Stamps by kind."""

    whites: Sequence[Stamp]
    reds: Sequence[Stamp]
    flat: Sequence[Stamp]
    platelets: Sequence[Stamp]


def make_stock(profile: AcquisitionProfile, mix: str, seed: int) -> Stock:
    """Paint the objects of a slide at the scale of a profile; the same arguments paint the same."""
    rng = np.random.default_rng([seed, 11])
    names, weights = list(MIXES[mix]), np.array(list(MIXES[mix].values()))
    drawn = rng.choice(len(names), WHITES, p=weights / weights.sum())
    whites = [white_cell(names[int(i)], draw_seed(rng)) for i in drawn]
    return Stock(
        _stamps(whites, profile),
        _stamps([_red(rng, RED_UM, "") for _ in range(REDS)], profile),
        _stamps([_red(rng, FLAT_UM, "spherocyte") for _ in range(FLAT)], profile),
        _stamps([_platelet(rng) for _ in range(PLATELETS)], profile),
    )


def _red(rng: np.random.Generator, mean: float, form: str) -> CellObject:
    size = mean * float(np.clip(1 + rng.normal(0, 0.06), 0.85, 1.15))
    return CellObject("red", 0, 0, size, draw_seed(rng), "", "red cell", form)


def _platelet(rng: np.random.Generator) -> CellObject:
    size = float(rng.uniform(1.8, 3.1))
    return CellObject("platelet", 0, 0, size, draw_seed(rng), "", "platelet")


def _stamps(items: Sequence[CellObject], profile: AcquisitionProfile) -> list[Stamp]:
    return [stamp for item in items for stamp in _turned(_stamp(item, profile))]


def _stamp(item: CellObject, profile: AcquisitionProfile) -> Stamp:
    scale = 1 / profile.um_per_px
    pose = CameraPose(0, 0, np.array([[scale, 0.0, 0.0], [0.0, scale, 0.0]]))
    layers, (left, top) = placed_layers(paint(item), profile.stain.matrix, item, pose)
    cover = np.ascontiguousarray(layers[..., 3])
    box, _ = visible_extent(cover, 0, 0)
    return Stamp(
        item,
        np.ascontiguousarray(layers[..., :3]),
        cover,
        (-float(left), -float(top)),
        box or (0.0, 0.0, 1.0, 1.0),
        item.diameter / 2 * scale,
    )


def _turned(stamp: Stamp) -> list[Stamp]:
    """Return a stamp as it is, mirrored along each axis, and along both."""
    height, width = stamp.cover.shape
    turned = []
    for across, down in ((False, False), (True, False), (False, True), (True, True)):
        step = (slice(None, None, -1 if down else 1), slice(None, None, -1 if across else 1))
        x, y, w, h = stamp.box
        cx, cy = stamp.centre
        turned.append(
            replace(
                stamp,
                density=np.ascontiguousarray(stamp.density[step]),
                cover=np.ascontiguousarray(stamp.cover[step]),
                centre=(width - cx if across else cx, height - cy if down else cy),
                box=(width - x - w if across else x, height - y - h if down else y, w, h),
            )
        )
    return turned
