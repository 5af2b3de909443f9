"""Rendered training crops of objects that no data set labels: what may pass for a white cell.

Smudge cells, squashed nuclei, giant platelets, clumps of platelets, stain deposits and overlapping
red cells are drawn by `synthetic`, in the stains and optics of random acquisitions, and beside them
white cells of every class. Of the white cells only the class that all of them share is learnt: how
a monocyte differs from a lymphocyte is learnt from real ones.
"""

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import Progress, track
from bloodfilm.synthetic.morphology import MORPHOLOGIES
from bloodfilm.synthetic.profiles import random_profile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.render import render_cell
from bloodfilm.training.config import RenderedSection
from bloodfilm.training.data.cell_crops import STORE_SIZE, STORE_UM, CellCrops
from bloodfilm.training.data.domains import UNKNOWN_DOMAIN
from bloodfilm.training.vocabulary import Vocabulary

RENDERED = 37
"""Random-stream id of the rendered crops for training."""
RENDERED_VALIDATION = 41
"""Random-stream id of those for validation."""
RENDERED_EXEMPLARS = 67
"""Random-stream id of those that a bundle describes."""


def render_training_crops(
    vocabulary: Vocabulary, section: RenderedSection, seed: int, progress: Progress
) -> CellCrops | None:
    """Render the crops that training draws; `None` where the vocabulary has no other objects."""
    if vocabulary.other is None:
        return None
    objects, cells = section.objects, section.cells
    return _render(vocabulary, objects, cells, [seed, RENDERED], progress)


def render_validation_crops(
    vocabulary: Vocabulary, section: RenderedSection, seed: int, progress: Progress
) -> CellCrops | None:
    """Render crops to judge by, as many cells as objects."""
    if vocabulary.other is None:
        return None
    count = section.validation
    cells = count * len(vocabulary.taxonomy.leaves_under(vocabulary.other))
    return _render(vocabulary, count, cells, [seed, RENDERED_VALIDATION], progress)


def render_exemplar_crops(
    vocabulary: Vocabulary, count: int, seed: int, progress: Progress
) -> tuple[NDArray[np.uint8], list[str]]:
    """Render objects that a bundle describes; return their crops (n, S, S, 3) and classes."""
    crops = _render(vocabulary, count, 0, [seed, RENDERED_EXEMPLARS], progress)
    assert isinstance(crops.images, np.ndarray)
    return crops.images, [vocabulary.leaves[int(row.argmax())] for row in crops.allowed]


def _render(
    vocabulary: Vocabulary, objects: int, cells: int, seed: list[int], progress: Progress
) -> CellCrops:
    assert vocabulary.other is not None
    tree, leaves = vocabulary.taxonomy, vocabulary.leaves
    classes = tree.leaves_under(vocabulary.other)
    unknown = [name for name in classes if name not in ARTEFACTS]
    if unknown:
        raise ConfigError(
            f"data.other: {unknown[0]!r} cannot be rendered; {', '.join(ARTEFACTS)} can"
        )
    white = [name for name in MORPHOLOGIES if name in tree]
    if not white:
        raise ConfigError("data.other: the taxonomy has no white cell that can be rendered")
    labels = [name for name in classes for _ in range(objects)]
    labels += [white[i % len(white)] for i in range(cells)]
    images = np.empty((len(labels), STORE_SIZE, STORE_SIZE, 3), np.uint8)
    for i in track(range(len(labels)), progress, "rendered crops", len(labels)):
        rng = np.random.default_rng([*seed, i])
        profile = random_profile(rng, STORE_SIZE, STORE_SIZE)
        images[i] = render_cell(
            labels[i],
            seed=int(rng.integers(2**31)),
            profile=profile,
            size=STORE_SIZE,
            um_per_px=STORE_UM,
        )[0]
    of_cell = tree.leaf_mask(vocabulary.roles.classified, leaves)
    allowed = [tree.leaf_mask(name, leaves) if name in ARTEFACTS else of_cell for name in labels]
    n = len(labels)
    return CellCrops(
        images,
        np.array(allowed, dtype=bool),
        np.full((n, len(vocabulary.schema.attributes)), -1, dtype=np.int64),
        np.ones(n),
        np.zeros((n, 2)),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.full(n, UNKNOWN_DOMAIN, dtype=np.int64),
    )


def rendered_weights(crops: CellCrops) -> NDArray[np.float64]:
    """Return how likely each rendered crop is drawn, in sum 1: cells one half, classes evenly."""
    is_object = crops.allowed.sum(1) == 1
    weights = np.full(len(crops), 0.5 / max(int((~is_object).sum()), 1))
    classes = np.unique(crops.allowed[is_object], axis=0)
    for label in classes:
        of_class = (crops.allowed == label).all(1)
        weights[of_class] = 0.5 / len(classes) / of_class.sum()
    return np.asarray(weights, dtype=np.float64)
