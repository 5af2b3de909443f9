"""A scene: physical objects laid out on the glass, in um; no camera, no pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Cell
from bloodfilm.synthetic.morphology import MIXES, CellObject, draw_seed, white_cell
from bloodfilm.synthetic.profiles import AcquisitionProfile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.rasterize_small_objects import DEBRIS_FORMS, RED_FORMS

Rect = tuple[float, float, float, float]


@dataclass(frozen=True)
class Scene:
    """The objects on a piece of glass.

    Attributes:
        width, height: um.
        objects: bottom to top.
        seed: for every random choice that belongs to no single object.
    """

    width: float
    height: float
    objects: tuple[CellObject, ...]
    seed: int


@dataclass(frozen=True)
class SceneSpec:
    """What to place on the glass.

    Attributes:
        whites: number of white cells, or a list of them: labels, or `Cell`s with label and
            attributes.
        mix: class weights where `whites` is a number: a name in `MIXES`, or label -> weight.
        erythroblasts: number of erythroblasts.
        artefacts: number of objects per class in `ARTEFACTS`.
        red_density, platelet_density, debris_density: per 1000 um2; `None` uses the profile's.
        clumping: share of red cells that overlap another; `None` uses the profile's.
        red_diameter: mean diameter of the red cells, um; the standard deviation is 7 %.
        red_forms: share of the red cells per abnormal form in `RED_FORMS`.
        debris_forms: number of fibres and crystals, see `DEBRIS_FORMS`.
        cut: probability that a nucleated cell may cross the edge of the image.
    """

    whites: int | Sequence[str | Cell] = 5
    mix: str | Mapping[str, float] = "normal"
    erythroblasts: int = 0
    artefacts: Mapping[str, int] = field(default_factory=dict)
    red_density: float | None = None
    platelet_density: float | None = None
    debris_density: float | None = None
    clumping: float | None = None
    red_diameter: float = 7.5
    red_forms: Mapping[str, float] = field(default_factory=dict)
    debris_forms: Mapping[str, int] = field(default_factory=dict)
    cut: float = 0.12

    def filled(self, profile: AcquisitionProfile) -> "SceneSpec":
        """Return the specification with unset densities taken from a profile."""
        names = ("red_density", "platelet_density", "debris_density", "clumping")
        return replace(
            self,
            **{
                n: getattr(profile, n) if getattr(self, n) is None else getattr(self, n)
                for n in names
            },
        )


MARGIN_UM = 9.0
"""Margin of a scene beyond the field of view, so that cells can cross the image edge."""


def build_scene(
    width: float, height: float, spec: SceneSpec, seed: int, inside: Rect | None = None
) -> Scene:
    """Lay out a scene of `width` by `height` um.

    Centres of white cells and artefacts fall inside `inside` (x, y, w, h), by default the whole
    scene; a single cell is placed exactly at (x, y) if `inside` has no area. Unset densities of
    the specification must be filled from a profile first.
    """
    rng = np.random.default_rng([seed, 1])
    area = inside or (0.0, 0.0, width, height)
    nucleated = _nucleated(spec, rng, area)
    count = _number(spec.red_density) * width * height / 1000
    reds = _reds(rng, (width, height), nucleated, count, spec)
    small: list[CellObject] = []
    for kind, density, low, high in (
        ("debris", _number(spec.debris_density), 0.4, 1.8),
        ("platelet", _number(spec.platelet_density), 1.8, 3.1),
    ):
        spots = [(t.x, t.y, t.diameter / 2) for t in (*nucleated, *reds)]
        for index in range(int(rng.poisson(density * width * height / 1000))):
            size = float(rng.uniform(low, high))
            x, y = _free_spot(rng, (0, 0, width, height), size / 2, spots, 12)
            label = "platelet" if kind == "platelet" else None
            small.append(CellObject(kind, x, y, size, draw_seed(rng), f"{kind}-{index + 1}", label))
    small.extend(_large_debris(spec, rng, (width, height)))
    debris = [t for t in small if t.kind == "debris"]
    platelets = [t for t in small if t.kind == "platelet"]
    return Scene(width, height, (*debris, *reds, *platelets, *nucleated), seed)


def _number(value: float | None) -> float:
    if value is None:
        raise ConfigError("films: the scene specification has unset densities; call `filled` first")
    return value


def _labels(spec: SceneSpec, rng: np.random.Generator) -> list[str | Cell]:
    if not isinstance(spec.whites, int):
        return list(spec.whites)
    if isinstance(spec.mix, str) and spec.mix not in MIXES:
        raise ConfigError(f"films: no mix {spec.mix!r}; known mixes: {', '.join(MIXES)}")
    mix = MIXES[spec.mix] if isinstance(spec.mix, str) else dict(spec.mix)
    weights = np.array(list(mix.values()), dtype=float)
    drawn = rng.choice(len(mix), spec.whites, p=weights / weights.sum())
    return [list(mix)[int(i)] for i in drawn]


def _nucleated(spec: SceneSpec, rng: np.random.Generator, area: Rect) -> list[CellObject]:
    """Place white cells, erythroblasts and artefacts without overlap."""
    placed: list[CellObject] = []
    objects = [white_cell(cell, draw_seed(rng)) for cell in _labels(spec, rng)]
    for _ in range(spec.erythroblasts):
        size = float(rng.uniform(8.5, 11.5))
        objects.append(CellObject("erythroblast", 0, 0, size, draw_seed(rng), label="erythroblast"))
    for name, number in spec.artefacts.items():
        objects.extend(_artefact(name, rng) for _ in range(number))
    for index, item in enumerate(objects):
        spots = [(t.x, t.y, t.diameter / 2 * 1.06) for t in placed]
        where = area if rng.random() < spec.cut else _inset(area, item.diameter * 0.54)
        x, y = _free_spot(rng, where, item.diameter / 2, spots, 80)
        prefix = "cell" if item.kind == "white" else item.kind
        placed.append(replace(item, x=x, y=y, id=f"{prefix}-{index + 1}"))
    return placed


def _large_debris(
    spec: SceneSpec, rng: np.random.Generator, size: tuple[float, float]
) -> list[CellObject]:
    """Fibres and crystals at random positions."""
    found = []
    for form, number in spec.debris_forms.items():
        if form not in DEBRIS_FORMS:
            raise ConfigError(f"films: no debris {form!r}; known: {', '.join(DEBRIS_FORMS)}")
        for index in range(number):
            x, y = rng.random(2) * size
            length = float(rng.uniform(*DEBRIS_FORMS[form]))
            name = f"{form}-{index + 1}"
            found.append(
                CellObject("debris", float(x), float(y), length, draw_seed(rng), name, form=form)
            )
    return found


def _red_forms(spec: SceneSpec, rng: np.random.Generator, count: int) -> list[str]:
    """The form of each red cell, drawn with the given shares."""
    unknown = sorted(set(spec.red_forms) - set(RED_FORMS))
    if unknown or sum(spec.red_forms.values()) > 1:
        raise ConfigError(
            f"films: red forms {dict(spec.red_forms)}; known: {', '.join(RED_FORMS)}, "
            "their shares add up to 1 at most"
        )
    if not spec.red_forms:
        return [""] * count
    names = [*spec.red_forms, ""]
    shares = [*spec.red_forms.values(), 1 - sum(spec.red_forms.values())]
    return [names[int(i)] for i in rng.choice(len(names), count, p=shares)]


def _artefact(name: str, rng: np.random.Generator) -> CellObject:
    if name not in ARTEFACTS:
        raise ConfigError(f"films: no artefact {name!r}; known: {', '.join(ARTEFACTS)}")
    low, high = ARTEFACTS[name][1]
    diameter = float(low + (high - low) * rng.beta(1.6, 2.2))
    return CellObject("artefact", 0, 0, diameter, draw_seed(rng), label=name, form=name)


def _inset(area: Rect, by: float) -> Rect:
    """Shrink a rectangle on every side, to its centre at most."""
    x, y, w, h = area
    dx, dy = min(by, w / 2), min(by, h / 2)
    return x + dx, y + dy, w - 2 * dx, h - 2 * dy


def _free_spot(
    rng: np.random.Generator,
    area: Rect,
    radius: float,
    spots: Sequence[tuple[float, float, float]],
    tries: int,
) -> tuple[float, float]:
    """Return a random position at which a disc touches none of `spots`, or the best one tried."""
    x0, y0, w, h = area
    points = np.array([x0, y0]) + rng.random((tries, 2)) * [w, h]
    if not spots:
        return float(points[0, 0]), float(points[0, 1])
    taken = np.array(spots)
    gap = np.hypot(points[:, :1] - taken[:, 0], points[:, 1:] - taken[:, 1]) - taken[:, 2]
    room = gap.min(axis=1) - radius
    free = np.flatnonzero(room > 0.1)
    best = int(free[0]) if free.size else int(room.argmax())
    return float(points[best, 0]), float(points[best, 1])


def _reds(
    rng: np.random.Generator,
    size: tuple[float, float],
    nucleated: Sequence[CellObject],
    count: float,
    spec: SceneSpec,
) -> list[CellObject]:
    """Scatter red cells between the nucleated ones, some in clumps and rouleaux."""
    width, height = size
    goal = int(rng.poisson(count))
    solid = [t for t in nucleated if t.form != "smudge cell"]
    white = np.array([(t.x, t.y, t.diameter / 2) for t in solid]).reshape(-1, 3)
    done = np.zeros((goal, 3))
    stuck = np.arange(goal) >= goal * (1 - _number(spec.clumping))
    n = 0
    for index in range(goal):
        radius = spec.red_diameter / 2 * float(np.clip(1 + rng.normal(0, 0.07), 0.78, 1.25))
        for _ in range(14):
            if stuck[index] and n:
                host = done[int(rng.integers(n))]
                turn = rng.uniform(0, 2 * np.pi)
                step = (host[2] + radius) * rng.uniform(0.5, 0.85)
                x, y = host[0] + step * np.cos(turn), host[1] + step * np.sin(turn)
            else:
                x, y = rng.random() * width, rng.random() * height
            near = 0.45 if stuck[index] else (0.72 if rng.random() < 0.06 else 0.99)
            if _fits(done[:n], (x, y, radius), near) and _fits(white, (x, y, radius * 0.86), 1.0):
                done[n] = x, y, radius
                n += 1
                break
    forms = _red_forms(spec, rng, n)
    return [
        CellObject(
            "red",
            float(x),
            float(y),
            float(2 * r * RED_FORMS.get(form, 1.0)),
            draw_seed(rng),
            f"red-{i + 1}",
            "red cell",
            form,
            walls=_walls(white, (x, y, r)),
        )
        for i, (form, (x, y, r)) in enumerate(zip(forms, done[:n], strict=True))
    ]


def _fits(placed: NDArray[np.float64], disc: tuple[float, float, float], near: float) -> bool:
    """Whether a disc keeps `near` times the touching distance from all placed ones."""
    if not len(placed):
        return True
    x, y, radius = disc
    gap = (placed[:, 0] - x) ** 2 + (placed[:, 1] - y) ** 2
    return bool((gap >= (near * (placed[:, 2] + radius)) ** 2).all())


def _walls(
    white: NDArray[np.float64], red: tuple[float, float, float]
) -> tuple[tuple[float, float], ...]:
    """The white cells a red cell is flattened against."""
    x, y, radius = red
    walls = []
    for wx, wy, wr in white:
        distance = float(np.hypot(wx - x, wy - y))
        if distance < wr * 1.12 + radius:
            walls.append((float(np.arctan2(wy - y, wx - x)), distance - wr * 1.02 - 0.15))
    return tuple(walls)
