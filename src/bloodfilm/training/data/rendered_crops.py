"""Rendered training crops of objects that no data set labels: what may pass for a white cell.

Smudge cells, squashed nuclei, giant platelets, clumps of platelets, stain deposits and overlapping
red cells are drawn by `synthetic`, in the stains and optics of random acquisitions, and beside them
white cells of every class. Some of both are drawn over photographs of red cells, platelets and
background, so that nothing but the object itself is drawn. Of the white cells only the class that
all of them share is learnt: how a monocyte differs from a lymphocyte is learnt from real ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import Progress, track
from bloodfilm.synthetic.morphology import MORPHOLOGIES
from bloodfilm.synthetic.profiles import random_profile
from bloodfilm.synthetic.rasterize_artefacts import ARTEFACTS
from bloodfilm.synthetic.render import render_cell, render_cell_over
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
    vocabulary: Vocabulary,
    section: RenderedSection,
    seed: int,
    progress: Progress,
    grounds: NDArray[np.uint8] | None = None,
) -> CellCrops | None:
    """Render the crops that training draws; `None` where the vocabulary has no other objects.

    `grounds` are stored crops, (n, 224, 224, 3), of what is no nucleated cell: a share
    `section.over_real` of the crops is drawn over one of them.
    """
    if vocabulary.other is None:
        return None
    labels = _labels(vocabulary, section.objects, section.cells)
    shown = Grounds(grounds, section.over_real)
    return _render(vocabulary, labels, shown, [seed, RENDERED], progress)


def render_validation_crops(
    vocabulary: Vocabulary, section: RenderedSection, seed: int, progress: Progress
) -> CellCrops | None:
    """Render crops to judge by, as many cells as objects."""
    if vocabulary.other is None:
        return None
    count = section.validation
    cells = count * len(vocabulary.taxonomy.leaves_under(vocabulary.other))
    labels = _labels(vocabulary, count, cells)
    return _render(vocabulary, labels, Grounds(), [seed, RENDERED_VALIDATION], progress)


def render_exemplar_crops(
    vocabulary: Vocabulary, count: int, seed: int, progress: Progress
) -> tuple[NDArray[np.uint8], list[str]]:
    """Render objects that a bundle describes; return their crops (n, S, S, 3) and classes."""
    labels = _labels(vocabulary, count, 0)
    crops = _render(vocabulary, labels, Grounds(), [seed, RENDERED_EXEMPLARS], progress)
    assert isinstance(crops.images, np.ndarray)
    return crops.images, [vocabulary.leaves[int(row.argmax())] for row in crops.allowed]


@dataclass(frozen=True)
class Grounds:
    """Photographs to draw over, and the share of the crops drawn over one."""

    images: NDArray[np.uint8] | None = None
    share: float = 0.0

    def draw(self, rng: np.random.Generator) -> NDArray[np.uint8] | None:
        """Return one of them, turned and mirrored at random, or `None` for a drawn ground."""
        if self.images is None or not len(self.images) or rng.random() >= self.share:
            return None
        image = np.rot90(self.images[rng.integers(len(self.images))], int(rng.integers(4)))
        return np.ascontiguousarray(image[:, ::-1] if rng.random() < 0.5 else image)


def _labels(vocabulary: Vocabulary, objects: int, cells: int) -> list[str]:
    """List what to render: each class of other objects, then white cells of all classes in turn."""
    assert vocabulary.other is not None
    tree = vocabulary.taxonomy
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
    return labels + [white[i % len(white)] for i in range(cells)]


def _render(
    vocabulary: Vocabulary,
    labels: list[str],
    grounds: Grounds,
    seed: list[int],
    progress: Progress,
) -> CellCrops:
    tree, leaves = vocabulary.taxonomy, vocabulary.leaves
    images = np.empty((len(labels), STORE_SIZE, STORE_SIZE, 3), np.uint8)
    for i in track(range(len(labels)), progress, "rendered crops", len(labels)):
        rng = np.random.default_rng([*seed, i])
        profile = random_profile(rng, STORE_SIZE, STORE_SIZE)
        drawn, ground = int(rng.integers(2**31)), grounds.draw(rng)
        if ground is None:
            images[i] = render_cell(
                labels[i], seed=drawn, profile=profile, size=STORE_SIZE, um_per_px=STORE_UM
            )[0]
        else:
            images[i] = render_cell_over(
                ground, labels[i], seed=drawn, profile=profile, um_per_px=STORE_UM
            )
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
