"""Selection of regions to annotate: at random, by expected cells, or by model uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Field, Region
from bloodfilm.core.errors import ConfigError

Planner = Literal["random", "cells", "uncertainty"]
PLANNERS: tuple[Planner, ...] = ("random", "cells", "uncertainty")
STEPS = 24
"""Positions tried along each axis of a field."""
NOVELTY = 1.0
"""Additional weight of a group of cells that is rare in the regions chosen so far."""


@dataclass(frozen=True)
class RegionScores:
    """Expected cells on one field and the uncertainty about them.

    Attributes:
        width, height: of the field, pixels.
        points: (n, 2) centres x, y of possible cells.
        cells: (n,) expected number of cells at each, in [0, 1].
        uncertainty: (n,) uncertainty of the model about each, in [0, 1].
        groups: (n,) index of the group of similar cells, from 0.
    """

    width: int
    height: int
    points: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    cells: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    uncertainty: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    groups: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def plan_regions(
    scores: Sequence[RegionScores], shares: Sequence[float], by: Planner, seed: int = 0
) -> list[Region]:
    """Return one rectangle per field, of the field's shape and of the given share of its area.

    `random` covers the edges of a field as often as its centre (cells cut by an edge are needed
    for training, too); `cells` maximises the expected number of cells; `uncertainty` the sum of
    uncertainties. An uncertainty is divided by the size of its group, so that all groups have the
    same total weight, and counts less the more of its group earlier regions hold.

    Fields are planned in the given order; ties are broken at random. A share of 0 selects
    nothing, of 1 the whole field.

    Raises:
        ConfigError: if a share is not in [0, 1] or the planner is unknown.
    """
    if by not in PLANNERS:
        raise ConfigError(f"--by {by}: choose from {', '.join(PLANNERS)}")
    rng = np.random.default_rng([seed, 7])
    held: dict[int, float] = {}
    common = _sizes(scores)
    regions = []
    for item, share in zip(scores, shares, strict=True):
        if not 0 <= share <= 1:
            raise ConfigError(f"a share of a field lies between 0 and 1, not {share:g}")
        values = _values(item, by, held, common)
        region, inside = _place(item, share, values, rng)
        regions.append(region)
        for group in item.groups[inside]:
            held[int(group)] = held.get(int(group), 0.0) + 1.0
    return regions


def _sizes(scores: Sequence[RegionScores]) -> dict[int, float]:
    """Return the expected number of cells per group over all fields."""
    sizes: dict[int, float] = {}
    for item in scores:
        for group, cells in zip(item.groups, item.cells, strict=True):
            sizes[int(group)] = sizes.get(int(group), 0.0) + float(cells)
    return sizes


def _values(
    item: RegionScores, by: Planner, held: dict[int, float], common: dict[int, float]
) -> NDArray[np.float64]:
    """Return the value of each point to a planner."""
    if by == "random":
        return np.zeros(len(item.points))
    if by == "cells":
        return item.cells
    total = sum(held.values()) + 1.0
    rare = [
        (1 + NOVELTY * (1 - held.get(int(group), 0.0) / total)) / max(common[int(group)], 1.0)
        for group in item.groups
    ]
    return np.asarray(item.uncertainty * np.array(rare).reshape(-1))


def _place(
    item: RegionScores, share: float, values: NDArray[np.float64], rng: np.random.Generator
) -> tuple[Region, NDArray[np.bool_]]:
    """Return the rectangle of highest value and a mask of the points inside."""
    if share in (0, 1):
        region = Region.nothing() if share == 0 else Region.everything()
        return region, region.contains(item.points)
    extent = np.array([item.width, item.height], dtype=np.float64)
    size = extent * share**0.5
    room = extent - size
    # Sampled anywhere that touches the field, then clipped to it: sampled inside only, hardly any
    # rectangle would reach the edges.
    free = np.clip(rng.uniform(-size, extent), 0, room)
    if not values.any():
        corners = free[None]
    else:
        axes = [np.linspace(0, room[i], STEPS) for i in (0, 1)]
        corners = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
        corners = corners[rng.permutation(len(corners))]
    # Points near the centre of a rectangle count slightly more: prefer whole cells.
    away = np.abs(item.points[None] - corners[:, None] - size / 2) / (size / 2)
    worth = ((away < 1).all(axis=2) * (1.05 - 0.1 * away.max(axis=2, initial=0)) * values).sum(1)
    x, y = corners[int(worth.argmax())]
    region = Region.rect(float(x), float(y), float(size[0]), float(size[1]))
    return region, region.contains(item.points)


def keep_marked(item: Field, region: Region) -> Field:
    """Restrict the annotation of a field to a region.

    A cell is kept if and only if the centre of its box lies in the region. A cell without a box
    is taken to be at the centre of the image.
    """
    middle = ((item.width or 0) / 2, (item.height or 0) / 2)
    at = [
        middle if c.box is None else (c.box[0] + c.box[2] / 2, c.box[1] + c.box[3] / 2)
        for c in item.cells
    ]
    inside = region.contains(np.array(at).reshape(-1, 2))
    cells = tuple(c for c, keep in zip(item.cells, inside, strict=True) if keep)
    return replace(item, cells=cells, region=region)
