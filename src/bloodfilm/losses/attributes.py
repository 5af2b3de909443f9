"""Losses of attribute values from annotations or a teacher, by attribute."""

import torch
from torch import Tensor
from torch.nn import functional


def attribute_loss(
    logits: Tensor, goal: Tensor, weights: Tensor, slices: dict[str, slice], asymmetric: bool
) -> Tensor:
    """Return the mean over attributes of the loss between logits and targets.

    A cell contributes to every attribute that is known of it, and to no other.

    Args:
        logits: (n, sum of values).
        goal: same shape; each attribute's part adds up to 1 (one value, or a teacher's shares), or
            is all zero where it is not known.
        weights: (n,) how much each cell counts.
        slices: where each attribute lies.
        asymmetric: judge every value on its own by the asymmetric loss, instead of one cross
            entropy per attribute.
    """
    terms = []
    for where in slices.values():
        part, aim = logits[:, where].float(), goal[:, where]
        known = aim.sum(1) > 0
        if not known.any():
            continue
        part, aim, weight = part[known], aim[known], weights[known]
        each = (
            asymmetric_loss(part, aim).sum(1)
            if asymmetric
            else -(aim * functional.log_softmax(part, dim=1)).sum(1)
        )
        terms.append((each * weight).sum() / weight.sum().clamp_min(1.0))
    return torch.stack(terms).mean() if terms else logits.sum() * 0.0


def asymmetric_loss(
    logits: Tensor, goal: Tensor, focus: float = 4.0, own: float = 1.0, margin: float = 0.05
) -> Tensor:
    """Return the asymmetric loss of every value (Ridnik et al., ICCV 2021, eq. 4 and 7).

    Absent values (`goal` 0) count less the easier they are, by the power `focus`, and not at all
    below a probability of `margin`; present ones by the power `own`.
    """
    p = logits.sigmoid()
    shifted = (p - margin).clamp_min(0)
    present = (1 - p).pow(own) * functional.logsigmoid(logits)
    absent = shifted.pow(focus) * torch.log((1 - shifted).clamp_min(1e-8))
    return -(goal * present + (1 - goal) * absent)
