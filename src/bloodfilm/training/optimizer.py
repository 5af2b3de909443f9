"""The optimiser of a run: AdamW in parameter groups, and the schedule of its learning rate.

The schedulers and parameter groups of timm were considered: they count in epochs or in updates,
keep state of their own and have no backbone factor, where here the learning rate follows from the
step alone, so that a resumed run needs no scheduler state.
"""

import math

import torch
from torch import Tensor, nn

from bloodfilm.training.config import OptimSection


def build_optimizer(model: nn.Module, optim: OptimSection) -> torch.optim.Optimizer:
    """Return AdamW of what is trained; no decay on biases and norms, another rate for the backbone.

    Each parameter group has the key `scale`, the factor on the learning rate.
    """
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "scale": optim.backbone_lr if backbone else 1.0,
                "weight_decay": optim.weight_decay if decay else 0.0,
            }
            for (backbone, decay), parameters in sorted(groups.items())
        ],
        lr=optim.lr,
    )


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Return the factor on the peak rate: linear warm-up, then a cosine down to 1 %.

    >>> [round(learning_rate_factor(step, 10, 0.2), 3) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.505, 0.048]

    Args:
        step: from 0.
        total: steps of the whole run.
        warmup: share of the steps in which the rate rises.
    """
    warm = max(1, round(total * warmup))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group, times the group's `scale`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
