"""A user's cells beside the exemplars of a bundle, described by its classifier.

What is fitted on descriptions, a new class or a correction, needs both: the cells that are to be
learnt, and those of what was known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.workflows.learn_cells import TrainingCells

if TYPE_CHECKING:
    from bloodfilm.export.class_graph import Describer
    from bloodfilm.export.exemplars import Exemplars
    from bloodfilm.training.class_rows import DescribedCells

VIEWS = 4
"""Varied views of each of the user's cells, in other stains and optics."""


def varied_descriptions(
    bundle: Bundle,
    cells: TrainingCells,
    describer: "Describer",
    seed: int,
    progress: Progress,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Describe the cells in other stains and optics; also return the number of each one's cell."""
    from bloodfilm.export.adaptation import bundle_view

    view = bundle_view(bundle)
    crops, numbers, found = [], [], []
    for number in track(range(len(cells)), progress, "views", len(cells)):
        rng = np.random.default_rng([seed, number])
        crops += [view.varied(cells.stored[number], rng) for _ in range(VIEWS)]
        numbers += [number] * VIEWS
        if len(crops) >= 64 or number == len(cells) - 1:
            found.append(describer.describe(np.stack(crops)).description)
            crops = []
    return np.concatenate(found), np.array(numbers, dtype=np.int64)


def known_log(
    bundle: Bundle,
    describer: "Describer",
    description: NDArray[np.float32],
    leaves: Sequence[str],
) -> Floats:
    """Return log probabilities (n, leaves) by a bundle; minus infinity for new classes."""
    m = bundle.manifest
    learnt = [leaf in m.trained_leaves for leaf in m.leaves]
    logits = describer.classify(description)
    old = leaf_probabilities(logits, learnt, m.classifier.temperatures.get("class", 1.0))
    found = np.full((len(description), len(leaves)), -np.inf)
    with np.errstate(divide="ignore"):
        found[:, [leaves.index(leaf) for leaf in m.leaves]] = np.log(old)
    return found


@dataclass(frozen=True)
class OwnCells:
    """The user's cells, described.

    Attributes:
        labels, groups: (n,) as in `TrainingCells`.
        plain: (n, size) descriptions.
        varied: (m, size) of the varied views; of_cell: (m,) the cell of each.
    """

    labels: tuple[str, ...]
    groups: tuple[str, ...]
    plain: NDArray[np.float32]
    varied: NDArray[np.float32]
    of_cell: NDArray[np.int64]


def join_described(
    known: tuple[Bundle, "Describer", "Exemplars"],
    cells: OwnCells,
    tree: Taxonomy,
    leaves: Sequence[str],
) -> "DescribedCells":
    """Return exemplars, the user's cells and their varied views, in this order."""
    from bloodfilm.training.class_rows import DescribedCells

    bundle, describer, exemplars = known
    description = np.concatenate([exemplars.description, cells.plain, cells.varied])
    count, n = len(exemplars), len(cells.labels)
    names = exemplars.names
    # An exemplar is of what was known: where a new class lies below its label, it is none of it.
    before = {
        name: set(bundle.taxonomy.leaves_under(name)) & set(bundle.manifest.trained_leaves)
        for name in exemplars.labels
    }
    masks = [[leaf in before[name] for leaf in leaves] for name in names]
    masks += [list(tree.leaf_mask(name, leaves)) for name in cells.labels]
    allowed = np.array(masks, dtype=bool)
    # The user's cells of a known class count beside its exemplars, as a label of their own.
    keys = [("known", name) for name in names] + [("own", name) for name in cells.labels]
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    label = np.array([order[key] for key in keys], dtype=np.int64)
    group = np.arange(count + n)
    places = {g: count + i for i, g in reversed(list(enumerate(cells.groups))) if g}
    for i, name in enumerate(cells.groups):
        if name:
            group[count + i] = places[name]
    whole = np.concatenate([np.arange(count + n), count + cells.of_cell])
    share = np.where(whole < count, 1.0, 1 / (VIEWS + 1))
    view = (np.arange(len(whole)) >= count + n).astype(np.int64)
    return DescribedCells(
        description.astype(np.float64),
        known_log(bundle, describer, description, leaves),
        allowed[whole],
        label[whole],
        whole,
        group[whole],
        whole < count,
        share,
        view,
    )
