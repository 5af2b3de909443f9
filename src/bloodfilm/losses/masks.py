"""Losses of masks: binary cross entropy and soft Dice."""

import torch
from torch import Tensor
from torch.nn import functional


def mask_losses(logits: Tensor, masks: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
    """Return the terms `pixels` (binary cross entropy) and `dice` (one less the soft Dice).

    The soft Dice (Milletari et al., 3DV 2016) is taken per image and channel, so that small nuclei
    weigh as much as large ones.

    Args:
        logits: (N, C, H, W).
        masks: (N, C, H, W), the share of each pixel that is inside, in [0, 1].
        known: (N, C), which masks there are; without it all. The others have no gradient.

    >>> masks = torch.tensor([[[[1.0, 0.0]]]])
    >>> {k: round(float(v), 4) for k, v in mask_losses(masks * 40 - 20, masks).items()}
    {'pixels': 0.0, 'dice': 0.0}
    """
    share = torch.ones_like(logits[:, :, 0, 0]) if known is None else known
    share = share.float() / share.float().sum().clamp(min=1)
    inside = logits.float().sigmoid()
    both = 2 * (inside * masks).sum((2, 3)) + 1.0
    either = inside.sum((2, 3)) + masks.sum((2, 3)) + 1.0
    pixels = functional.binary_cross_entropy_with_logits(logits.float(), masks, reduction="none")
    return {
        "pixels": (pixels.mean((2, 3)) * share).sum(),
        "dice": ((1 - both / either) * share).sum(),
    }


def dice(first: Tensor, second: Tensor) -> Tensor:
    """Return the Dice coefficient (N, C) of boolean masks (N, C, H, W); 1 where both are empty.

    >>> mask = torch.tensor([[[[True, True, False]]]])
    >>> dice(mask, torch.tensor([[[[True, False, False]]]])).tolist()
    [[0.6666666865348816]]
    """
    both = 2.0 * (first & second).sum((2, 3))
    either = first.sum((2, 3)) + second.sum((2, 3))
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both))
