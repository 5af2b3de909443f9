"""Fields that mislead a detector: odd red cells, dirt and artefacts, in every stain and optics.

Spherocytes and polychromatic cells are as dark and even as nuclei, target cells and crenated ones
have their texture; deposits, fibres and crystals are found on every film. A detector that learnt
from clean films takes them for white cells.
"""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from bloodfilm.core.dataset import Dataset
from bloodfilm.core.field import Field
from bloodfilm.synthetic.dataset import save_image
from bloodfilm.synthetic.profiles import (
    PROFILES,
    AcquisitionProfile,
    get_profile,
    random_profile,
    vary_profile,
)
from bloodfilm.synthetic.rasterize_small_objects import RED_FORMS
from bloodfilm.synthetic.render import render_field
from bloodfilm.synthetic.scene import SceneSpec

SIDE_UM = 75.0
"""Longest side of a field."""
SLIDE_VARIATION = 2.0
"""Factor on the variation between slides of a profile."""
MOST_RED = 40.0
"""Red cells per 1000 um2 of the densest field."""
WHITE_MIX = MappingProxyType(
    {
        **dict.fromkeys(("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil"), 1.0),
        "myeloblast": 0.7,
        "lymphoblast": 0.5,
        "promyelocyte": 0.4,
    }
)
NUCLEATED_ARTEFACTS = MappingProxyType({"smudge cell": 0.3, "squashed nucleus": 0.2})
"""What remains of nucleated cells, and the share of fields that have one."""
OTHER_ARTEFACTS = MappingProxyType(
    {
        "giant platelet": 0.3,
        "platelet clump": 0.25,
        "stain deposit": 0.5,
        "overlapping red cells": 0.4,
    }
)


def hard_profile(number: int, rng: np.random.Generator) -> AcquisitionProfile:
    """Return one of the profiles in turn, as of a very different slide, or a random one."""
    if rng.random() < 0.5:
        names = list(PROFILES)
        profile = vary_profile(get_profile(names[number % len(names)]), rng, SLIDE_VARIATION)
    else:
        profile = random_profile(rng)
    most = int(SIDE_UM / profile.um_per_px)
    return replace(profile, width=min(profile.width, most), height=min(profile.height, most))


def hard_scene(
    profile: AcquisitionProfile, rng: np.random.Generator, *, empty: bool = False
) -> SceneSpec:
    """Return a random scene of odd red cells, dirt and artefacts.

    Args:
        profile: of the acquisition.
        rng: random generator.
        empty: without white cells, erythroblasts or remains of them.
    """
    density = profile.red_density
    if rng.random() < 0.5:
        density *= float(np.exp(rng.uniform(-0.3, 1.0)))
    artefacts = dict(OTHER_ARTEFACTS if empty else {**NUCLEATED_ARTEFACTS, **OTHER_ARTEFACTS})
    white = 0 if empty or rng.random() < 0.55 else int(rng.integers(1, 4))
    return SceneSpec(
        whites=white,
        mix=WHITE_MIX,
        erythroblasts=0 if empty else int(rng.random() < 0.2),
        artefacts={name: int(rng.random() < share) for name, share in artefacts.items()},
        red_density=min(density, MOST_RED),
        red_forms=_red_forms(rng),
        red_diameter=float(rng.normal(7.5, 0.35)),
        clumping=float(rng.uniform(0.1, 0.8)),
        debris_density=None if rng.random() < 0.6 else float(rng.uniform(0.5, 4)),
        debris_forms={"fibre": int(rng.poisson(0.5)), "crystal": int(rng.poisson(0.7))},
    )


def _red_forms(rng: np.random.Generator) -> dict[str, float]:
    """Return one to three abnormal forms and their shares, 0.3 to 1 together; often none."""
    if rng.random() >= 0.75:
        return {}
    names = list(RED_FORMS)
    chosen = rng.choice(len(names), int(rng.integers(1, 4)), replace=False)
    shares = rng.dirichlet(np.ones(len(chosen))) * rng.uniform(0.3, 0.999)
    return {names[int(i)]: float(share) for i, share in zip(chosen, shares, strict=True)}


def write_hard_fields(
    folder: Path, n: int, *, empty: bool = False, small: bool = True, seed: int = 0
) -> Dataset:
    """Render `n` hard fields into `folder` (made if missing) and return them as a `Dataset`.

    Args:
        folder: for the images; labels are not written.
        n: number of fields.
        empty: without white cells, erythroblasts or remains of them.
        small: whether red cells and platelets are annotated too.
        seed: the same seed writes the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fields = tuple(_one(folder, i, empty=empty, small=small, seed=seed) for i in range(n))
    return Dataset("rendered hard fields", fields, licence="CC0-1.0", source=folder)


def _one(folder: Path, number: int, *, empty: bool, small: bool, seed: int) -> Field:
    rng = np.random.default_rng([seed, 6, number])
    profile = hard_profile(number, rng)
    spec = hard_scene(profile, rng, empty=empty)
    image, truth = render_field(profile, spec, seed=seed * 1_000_003 + number)
    path = folder / f"hard_{number + 1}.png"
    save_image(path, image)
    field = truth.field(path, small)
    return replace(field, patient=str(number + 1), split="train", meta={"look": profile.name})
