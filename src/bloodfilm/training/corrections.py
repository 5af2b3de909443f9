"""Linear corrections of a classifier's answers, fitted on descriptions of cells.

A head's logits get a linear function of the description added: multinomial logistic regression with
the head's own logits as offset. The penalty on the weights says how far the answers may move away
from the head's: with a large one they stay, with none the regression forgets the head. The fit is
convex, so it has one solution, and needs no learning rate and no number of epochs.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bloodfilm.core.taxonomy import BLAST, Taxonomy

ITERATIONS = 60
BIAS_PENALTY = 1e-4
NOT_LEARNT = -1e4
"""Logit of an answer that no cell has, while others are fitted."""


def fit_correction(
    description: Tensor,
    offset: Tensor,
    allowed: Tensor,
    weights: Tensor,
    penalty: float,
) -> tuple[Tensor, Tensor]:
    """Return weight (answers, size) and bias (answers,) that are added to logits.

    Minimised is the weighted mean of minus the log of the probability that falls on the answers a
    label stands for, plus half the penalty times the squared weights, those of a description whose
    dimensions have unit variance. Answers that no label stands for get zero weights.

    Args:
        description: (n, size).
        offset: (n, answers) logits of the head.
        allowed: (n, answers) boolean, each row with at least one.
        weights: (n,) of the rows.
        penalty: above 0.
    """
    learnt = allowed.any(0)
    mean, spread = description.mean(0), description.std(0, correction=0) + 1e-3
    x = (description - mean) / spread
    offset = offset.masked_fill(~learnt, NOT_LEARNT)
    share = weights / weights.sum()
    matrix = torch.zeros(x.shape[1], offset.shape[1], dtype=x.dtype, requires_grad=True)
    bias = torch.zeros(offset.shape[1], dtype=x.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [matrix, bias],
        max_iter=ITERATIONS,
        tolerance_grad=1e-6,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        logp = functional.log_softmax(offset + x @ matrix + bias, 1)
        inside = torch.logsumexp(logp.masked_fill(~allowed, -torch.inf), 1)
        size = penalty * matrix.square().sum() + BIAS_PENALTY * bias.square().sum()
        loss: Tensor = size / 2 - (share * inside).sum()
        loss.backward()
        return loss

    optimizer.step(objective)
    with torch.no_grad():
        weight = (matrix / spread[:, None]).T.contiguous()
        return weight * learnt[:, None], (bias - weight @ mean) * learnt


def value_balance(codes: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return a weight (n,) per cell with which every value of an attribute counts the same.

    Within a value the groups of cells (patients) count as the root of their number.

    >>> value_balance(np.array([0, 0, 0, 0, 1]), np.zeros(5, int)).tolist()
    [0.25, 0.25, 0.25, 0.25, 1.0]
    """
    pairs = np.column_stack([codes, groups])
    number, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)[1:]
    weight = count[number.ravel()] ** -0.5
    total = np.bincount(codes, weights=weight)
    return np.asarray(weight / total[codes], dtype=np.float64)


def nearest_learnt(
    leaf: str, leaves: Sequence[str], learnt: Sequence[bool], tree: Taxonomy
) -> list[int]:
    """Return the indices of the learnt leaves that are nearest to another leaf in the tree.

    A blast is nearest to blasts, whichever their lineage; else the leaves below the closest common
    ancestor are.
    """
    above = [*reversed(tree.path(leaf)[:-1])]
    if BLAST in tree and tree.is_under(leaf, BLAST):
        above.insert(0, BLAST)
    for node in above:
        mask = np.array(tree.leaf_mask(node, leaves)) & np.asarray(learnt, dtype=bool)
        if mask.any():
            return np.flatnonzero(mask).tolist()
    return []


@torch.no_grad()
def begin_like_relatives(
    weight: Tensor,
    bias: Tensor,
    new: Sequence[str],
    leaves: Sequence[str],
    learnt: Sequence[bool],
    tree: Taxonomy,
) -> None:
    """Let the outputs of new leaves begin as those of their nearest learnt relatives.

    The relatives share their odds with the new leaves, so that what all of them have in common,
    such as being a blast, stays as probable as before.

    Args:
        weight, bias: (leaves, width) and (leaves,) of the class head's last layer; changed.
        new: leaves to be learnt that the head has not learnt.
        leaves: all of them; learnt: which ones the head has learnt.
        tree: that they are of.
    """
    families: dict[tuple[int, ...], list[int]] = {}
    for leaf in new:
        relatives = tuple(nearest_learnt(leaf, leaves, learnt, tree))
        if relatives:
            families.setdefault(relatives, []).append(leaves.index(leaf))
    for relatives, children in families.items():
        old = list(relatives)
        shift = float(np.log1p(len(children) / len(old)))
        weight[children] = weight[old].mean(0)
        bias[children] = bias[old].mean() - shift
    for relatives, children in families.items():
        bias[list(relatives)] -= float(np.log1p(len(children) / len(relatives)))
