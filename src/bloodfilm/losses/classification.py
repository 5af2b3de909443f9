"""The classifier's losses: a class known to any depth of the tree, attributes known or not."""

import torch
from torch import Tensor
from torch.nn import functional


def tree_loss(logits: Tensor, allowed: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return minus the log of the probability that falls on the leaves a label stands for.

    Args:
        logits: (N, leaves).
        allowed: (N, leaves) boolean: the leaves below the label; a row without any is unknown and
            ignored.
        smoothing: label smoothing, the share of the loss with a uniform target over all
            leaves, 0 for none.

    Returns:
        the mean over the rows that are known, shape ().
    """
    known = allowed.any(1)
    if not known.any():
        return logits[known].sum()  # zero, with a gradient of zero whatever the logits
    logp = functional.log_softmax(logits[known].float(), dim=1)
    inside = torch.logsumexp(logp.masked_fill(~allowed[known], -torch.inf), dim=1)
    loss = -inside.mean()
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * logp.mean()
    return loss


def attribute_losses(
    logits: Tensor, codes: Tensor, slices: dict[str, slice], weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Return one cross entropy per attribute, each over the cells whose value is known.

    Args:
        logits: (N, sum of values); codes: (N, attributes), -1 where unknown.
        slices: where each attribute's logits lie, in the order of the columns of `codes`.
        weights: per attribute, a weight per value (rare values count more), may be empty.
    """
    terms: dict[str, Tensor] = {}
    for column, (name, where) in enumerate(slices.items()):
        known = codes[:, column] >= 0
        part = logits[:, where]
        if not known.any():
            terms[name] = part[known].sum()
            continue
        terms[name] = functional.cross_entropy(
            part[known].float(), codes[known, column], weight=weights.get(name)
        )
    return terms
