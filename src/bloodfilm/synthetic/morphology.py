"""Typical morphology per white cell class, and sampling of cells to draw."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Cell
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY

SIZE_BINS = {"small": (8.6, 11.4), "medium": (11.6, 14.6), "large": (14.8, 18.5)}
"""Cell diameters in um; the meaning of `cell_size` in rendered films, for every class."""


@dataclass(frozen=True)
class Morphology:
    """The typical cell of one class.

    Attributes:
        diameter: usual range in um.
        priors: chance of (medium, large) size, then of the second value of the other six
            attributes, in LLD's order: coarse, irregular, prominent nucleolus, abundant,
            moderate, prominent vacuoles.
        regular, irregular: kinds of nucleus (see `nuclei`) drawn for each nuclear shape.
        share: nucleus / cell area for (scanty, abundant) cytoplasm.
        chromatin: amount in the nucleus.
        rna: amount in the cytoplasm for (slight, moderate) basophilia.
        ground: amount of the pale pink ground of granulocytes.
        granules: kind of granules (see `granules`), or "".
        rough: irregularity of the outline; ragged: of its finest detail, um.
        eccentric: how far off centre the nucleus lies, 0..1.
    """

    diameter: tuple[float, float]
    priors: tuple[float, ...]
    regular: tuple[str, ...] = ("round", "oval")
    irregular: tuple[str, ...] = ("lobulated",)
    share: tuple[float, float] = (0.76, 0.55)
    chromatin: float = 0.9
    rna: tuple[float, float] = (0.34, 0.8)
    ground: float = 0.15
    granules: str = ""
    rough: float = 0.04
    ragged: float = 0.05
    eccentric: float = 0.6


_POLY = ("segmented",)
_KIDNEY = ("kidney", "kidney", "folded", "lobulated")

MORPHOLOGIES = {
    "myeloblast": Morphology(
        (12, 16.5), (0.65, 0.2, 0.02, 0.55, 0.92, 0.35, 0.9, 0.05), chromatin=0.72
    ),
    "lymphoblast": Morphology(
        (10.5, 15), (0.6, 0.1, 0.3, 0.4, 0.45, 0.25, 0.4, 0.05), share=(0.82, 0.62), chromatin=0.76
    ),
    "monoblast": Morphology(
        (13, 18),
        (0.65, 0.35, 0.01, 0.8, 0.95, 0.85, 0.9, 0.35),
        irregular=("lobulated", "folded"),
        share=(0.72, 0.52),
        chromatin=0.68,
        rough=0.05,
    ),
    "promonocyte": Morphology(
        (14, 18),
        (0.5, 0.5, 0.1, 0.97, 0.5, 0.9, 0.7, 0.3),
        irregular=("folded", "kidney"),
        share=(0.70, 0.5),
        chromatin=0.68,
        granules="dusty",
        rough=0.05,
    ),
    "monocyte": Morphology(
        (13.8, 17),
        (0.45, 0.5, 0.45, 0.96, 0.03, 0.99, 0.75, 0.4),
        irregular=_KIDNEY,
        share=(0.68, 0.49),
        chromatin=0.72,
        rna=(0.24, 0.42),
        ground=0.8,
        granules="dusty",
        rough=0.1,
        ragged=0.08,
    ),
    "lymphocyte": Morphology(
        (8.8, 10.9),
        (0.1, 0.0, 0.97, 0.05, 0.02, 0.12, 0.35, 0.02),
        regular=("round", "oval", "round"),
        share=(0.82, 0.58),
        chromatin=0.88,
        rna=(0.45, 0.95),
        ground=0.0,
        rough=0.03,
        ragged=0.1,
        eccentric=0.9,
    ),
    "atypical lymphocyte": Morphology(
        (11, 15),
        (0.75, 0.05, 0.95, 0.9, 0.1, 0.6, 0.35, 0.05),
        irregular=("lobulated", "oval notch"),
        share=(0.78, 0.5),
        rna=(0.36, 0.95),
        ground=0.0,
        rough=0.06,
        eccentric=0.8,
    ),
    "promyelocyte": Morphology(
        (14, 18),
        (0.45, 0.5, 0.15, 0.2, 0.75, 0.8, 0.8, 0.05),
        share=(0.72, 0.54),
        chromatin=0.78,
        rna=(0.32, 0.62),
        granules="azurophil",
        rough=0.07,
        eccentric=0.8,
    ),
    "abnormal promyelocyte": Morphology(
        (12.5, 17),
        (0.65, 0.1, 0.02, 0.95, 0.7, 0.9, 0.8, 0.05),
        irregular=("bilobed notch", "folded", "lobulated"),
        share=(0.72, 0.52),
        chromatin=0.76,
        rna=(0.30, 0.55),
        granules="hypergranular",
        rough=0.05,
        eccentric=0.7,
    ),
    "myelocyte": Morphology(
        (13, 17),
        (0.7, 0.25, 0.9, 0.3, 0.05, 0.95, 0.45, 0.05),
        regular=("oval", "round"),
        irregular=("oval notch",),
        share=(0.66, 0.46),
        chromatin=0.84,
        rna=(0.2, 0.4),
        ground=0.8,
        granules="mixed",
        rough=0.06,
        eccentric=0.95,
    ),
    "metamyelocyte": Morphology(
        (12.5, 15.5),
        (0.85, 0.12, 0.97, 0.97, 0.01, 0.98, 0.3, 0.04),
        irregular=("kidney",),
        share=(0.62, 0.41),
        chromatin=0.88,
        rna=(0.13, 0.3),
        ground=0.95,
        granules="fine",
        eccentric=0.7,
    ),
    "band neutrophil": Morphology(
        (12, 14.4),
        (0.97, 0.01, 0.99, 1.0, 0.0, 1.0, 0.15, 0.04),
        regular=("oval",),
        irregular=("band",),
        share=(0.56, 0.36),
        chromatin=0.97,
        rna=(0.03, 0.16),
        ground=1.0,
        granules="fine",
        rough=0.045,
        eccentric=0.35,
    ),
    "segmented neutrophil": Morphology(
        (12, 14.4),
        (0.97, 0.01, 1.0, 1.0, 0.0, 1.0, 0.12, 0.04),
        regular=("oval",),
        irregular=_POLY,
        share=(0.55, 0.35),
        chromatin=0.98,
        rna=(0.02, 0.15),
        ground=1.0,
        granules="fine",
        rough=0.045,
        eccentric=0.3,
    ),
    "eosinophil": Morphology(
        (12, 14.6),
        (0.95, 0.03, 1.0, 1.0, 0.0, 1.0, 0.2, 0.06),
        regular=("oval",),
        irregular=("bilobed",),
        share=(0.58, 0.37),
        chromatin=0.93,
        rna=(0.12, 0.28),
        ground=0.35,
        granules="eosinophil",
        eccentric=0.75,
    ),
    "basophil": Morphology(
        (11, 13.2),
        (0.75, 0.0, 1.0, 0.8, 0.0, 0.6, 0.4, 0.03),
        irregular=("bilobed notch", "lobulated", "kidney"),
        share=(0.72, 0.52),
        chromatin=0.66,
        rna=(0.08, 0.25),
        ground=0.7,
        granules="basophil",
        rough=0.05,
        ragged=0.1,
        eccentric=0.4,
    ),
}
"""The drawable white cells: every leaf under "white cell"."""

NORMAL_MIX = {
    "segmented neutrophil": 0.54,
    "band neutrophil": 0.04,
    "lymphocyte": 0.28,
    "monocyte": 0.07,
    "eosinophil": 0.05,
    "basophil": 0.02,
}
EVEN_MIX = dict.fromkeys(MORPHOLOGIES, 1 / len(MORPHOLOGIES))
_SOME = {"segmented neutrophil": 0.15, "lymphocyte": 0.1, "monocyte": 0.03}

MIXES: dict[str, dict[str, float]] = {
    "normal": NORMAL_MIX,
    "even": EVEN_MIX,
    "ALL": {"lymphoblast": 0.75, **_SOME},
    "AML": {"myeloblast": 0.4, "monoblast": 0.25, "promonocyte": 0.1, **_SOME},
    "APML": {"abnormal promyelocyte": 0.65, "promyelocyte": 0.05, "myeloblast": 0.05, **_SOME},
    "CLL": {"atypical lymphocyte": 0.7, **_SOME},
    "CML": {
        "segmented neutrophil": 0.42,
        "band neutrophil": 0.12,
        "metamyelocyte": 0.13,
        "myelocyte": 0.14,
        "promyelocyte": 0.04,
        "myeloblast": 0.03,
        "basophil": 0.06,
        "eosinophil": 0.04,
        "lymphocyte": 0.02,
    },
}
"""Class mixes by diagnosis, in LLD's terminology, and two for general use."""


@dataclass(frozen=True)
class CellObject:
    """One physical object on the glass.

    Attributes:
        kind: white, erythroblast, artefact, red, platelet or debris.
        x, y: centre on the glass, um.
        diameter: um.
        seed: determines all other details of its appearance.
        id: physical identity, the same in every image.
        label: the annotated class (may be an inner node such as "neutrophil").
        form: the leaf of the taxonomy that is drawn; of red cells and debris the abnormal form, or
            empty.
        attributes: LLD attributes of a white cell.
        walls: neighbours it is pressed against, (direction, distance um).
    """

    kind: str
    x: float
    y: float
    diameter: float
    seed: int
    id: str = ""
    label: str | None = None
    form: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    walls: tuple[tuple[float, float], ...] = ()

    @property
    def values(self) -> dict[str, str]:
        """The attributes as a dictionary."""
        return dict(self.attributes)


def draw_seed(rng: np.random.Generator) -> int:
    """Draw a seed for one object."""
    return int(rng.integers(2**62))


def form_of(label: str, rng: np.random.Generator) -> str:
    """Choose the leaf to draw for a label at any depth; `ConfigError` if it is no white cell."""
    name = DEFAULT_TAXONOMY.find(label)
    if name is None or not DEFAULT_TAXONOMY.is_under(name, "white cell"):
        raise ConfigError(f"films: {label!r} is no white cell that can be drawn")
    leaves = [leaf for leaf in DEFAULT_TAXONOMY.leaves_under(name) if leaf in MORPHOLOGIES]
    weights = np.array([NORMAL_MIX.get(leaf, 0.02) for leaf in leaves])
    return str(leaves[int(rng.choice(len(leaves), p=weights / weights.sum()))])


def typical_attributes(
    form: str, rng: np.random.Generator, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Draw the seven LLD attributes of a cell; those given stay. `DataError` on a bad value."""
    given = dict(given or {})
    LLD_SCHEMA.codes(given)
    priors = MORPHOLOGIES[form].priors
    chance = rng.random(len(LLD_SCHEMA.attributes))
    medium, large = priors[0], priors[1]
    size = "medium" if chance[0] < medium else "large" if chance[0] < medium + large else "small"
    drawn = {"cell_size": size}
    for index, attribute in enumerate(LLD_SCHEMA.attributes[1:], start=1):
        drawn[attribute.name] = attribute.values[int(chance[index] < priors[index + 1])]
    return drawn | given


def draw_diameter(form: str, size: str, rng: np.random.Generator) -> float:
    """Draw a diameter in um that is of the given size and, within it, typical of the class."""
    low, high = SIZE_BINS[size]
    usual_low, usual_high = MORPHOLOGIES[form].diameter
    a, b = max(low, usual_low), min(high, usual_high)
    if b - a < 0.4:  # the class has no such size: the nearest end of the bin
        a, b = (low, low + 0.8) if usual_high < low + 0.4 else (high - 0.8, high)
    return float(rng.uniform(a, b))


def white_cell(cell: str | Cell, seed: int, x: float = 0.0, y: float = 0.0) -> CellObject:
    """Return a white cell to draw from a label, or from a `Cell` with label and attributes."""
    rng = np.random.default_rng(seed)
    label = cell if isinstance(cell, str) else cell.label
    if label is None:
        raise ConfigError("films: a white cell to draw needs a label")
    form = form_of(label, rng)
    values = typical_attributes(form, rng, {} if isinstance(cell, str) else cell.attributes)
    diameter = draw_diameter(form, values["cell_size"], rng)
    name = DEFAULT_TAXONOMY.find(label)
    return CellObject(
        "white", x, y, diameter, seed, "", name, form, tuple((n, values[n]) for n in values)
    )
