"""The exponential moving average of a network's weights: what is validated and exported."""

from copy import deepcopy

import torch
from torch import nn


class ModelEma:
    """Averaged weights of a network; early in training they follow faster.

    The decay is min(decay, (1 + step) / (10 + step)), as in TensorFlow's
    `ExponentialMovingAverage`: with a constant decay the random initial weights would dominate the
    first epochs. Batch statistics are averaged like weights, counters are copied.

    Args:
        model: the network in training; it is copied.
        decay: of the average, in [0, 1].

    Attributes:
        module: the averaged network. It changes in place, so that it can be shared.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model after optimiser step number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        source = model.state_dict()
        for name, value in self.module.state_dict().items():
            if value.dtype.is_floating_point:
                value.lerp_(source[name], 1 - decay)
            else:
                value.copy_(source[name])
