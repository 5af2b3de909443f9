"""Fit how cells are named by their film: the film's offset is taken from what describes a cell.

All cells of a film share its stain and its camera. How they differ from training cells of the
classes that they seem to be, in the mean, is the film's offset (`CellClassifierNet.film_residual`).
A correction fitted to cells without their offsets cannot tell a class by the film that it came
from, where each class is of few films.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.corrections import nearest_learnt
from bloodfilm.training.data.cell_crops import CellCrops

NO_FILM = -1


def set_of(domain: str) -> str:
    """Return the data set of a domain, "set: acquisition".

    >>> set_of("LLD: H/40X/C2")
    'LLD'
    """
    return domain.split(":", maxsplit=1)[0]


def of_sets(crops: CellCrops, domains: Sequence[str], sets: Collection[str]) -> NDArray[np.bool_]:
    """Return which cells (n,) are of some data sets; `crops.domains` are places in `domains`."""
    chosen = np.array([set_of(name) in sets for name in domains] + [False])
    return np.asarray(chosen[crops.domains])


def film_numbers(crops: CellCrops) -> NDArray[np.int64]:
    """Return a number per cell (n,): of its film, or `NO_FILM` where its domain is unknown.

    A film is one domain and patient.
    """
    keys = np.column_stack([crops.domains, crops.patients])
    number = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    return np.where(crops.domains >= 0, number, NO_FILM)


def leaf_groups(
    groups: Sequence[Sequence[str]], leaves: Sequence[str], tree: Taxonomy
) -> NDArray[np.int64]:
    """Return the number of the group of each leaf: the first that holds it, or one more.

    >>> from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
    >>> leaves = ["myeloblast", "eosinophil", "basophil", "monocyte"]
    >>> leaf_groups([["blast"], ["eosinophil", "basophil"]], leaves, DEFAULT_TAXONOMY).tolist()
    [0, 1, 1, 2]
    """
    numbers = np.full(len(leaves), len(groups))
    for number in reversed(range(len(groups))):
        for node in groups[number]:
            numbers[np.array(tree.leaf_mask(node, leaves), dtype=bool)] = number
    return numbers


def means_of_leaves(
    prototypes: Tensor,
    learnt: Sequence[bool],
    named: Sequence[bool],
    leaves: Sequence[str],
    tree: Taxonomy,
) -> tuple[Tensor, Tensor]:
    """Return the mean description (leaves, size) of every leaf, and for which leaves there is one.

    A leaf that training names and the start had not learnt is described as its nearest relatives.

    Args:
        prototypes: (leaves, size) of the leaves that the start has learnt.
        learnt: per leaf, whether the start had learnt it.
        named: per leaf, whether training names it.
        leaves: all of them.
        tree: that they are of.
    """
    means, known = prototypes.clone(), torch.tensor(list(learnt))
    for i, leaf in enumerate(leaves):
        relatives = [] if learnt[i] or not named[i] else nearest_learnt(leaf, leaves, learnt, tree)
        if relatives:
            means[i], known[i] = prototypes[relatives].mean(0), True
    return means, known


@torch.no_grad()
def film_offset(model: CellClassifierNet, description: Tensor) -> Tensor:
    """Return the offset (size,) of the film whose cells have these descriptions (n, size)."""
    return model.film_residual(description).mean(0)


@torch.no_grad()
def film_answers(model: CellClassifierNet, description: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the class logits (n, leaves) of all cells of a film, given as descriptions."""
    cells = torch.from_numpy(description)
    return np.asarray(model.film_classes(cells, film_offset(model, cells)))
