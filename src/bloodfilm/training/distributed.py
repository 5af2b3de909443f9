"""The process's rank in distributed training. One process today; all code gets it from here.

A run on several GPUs needs four things of the loop: each process draws other samples, gradients are
averaged, one process writes files, and all wait for one another. The first, third and fourth go
through `DistributedContext`; the second is `wrap`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bloodfilm.core.errors import ConfigError


@dataclass(frozen=True)
class DistributedContext:
    """This process among those of a run.

    Attributes:
        rank: number of this process, from 0.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"distributed: rank {self.rank} of {self.world_size} processes")

    @classmethod
    def from_environment(cls) -> "DistributedContext":
        """Return the context of `torchrun`'s variables RANK and WORLD_SIZE; else one process.

        Raises:
            ConfigError: for several processes without an initialised process group.
        """
        context = cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
        if context.world_size > 1 and not _is_initialized():
            raise ConfigError(
                "distributed: WORLD_SIZE is set, but there is no process group; start one process, "
                "or initialise torch.distributed first"
            )
        return context

    @property
    def is_main(self) -> bool:
        """Whether this process validates, logs and writes files."""
        return self.rank == 0

    def shard(self, keys: Sequence[Any]) -> Sequence[Any]:
        """Return this process's part of an epoch's keys; all parts are of one length.

        Keys are distributed round-robin, so that n processes with batches of b together get the
        samples of one process with batches of n * b. Left-over keys are dropped.

        >>> [DistributedContext(rank, 2).shard([0, 1, 2, 3, 4]) for rank in (0, 1)]
        [[0, 2], [1, 3]]
        """
        if self.world_size == 1:
            return keys
        each = len(keys) // self.world_size
        return keys[self.rank : each * self.world_size : self.world_size]

    def barrier(self) -> None:
        """Wait for every process (barrier)."""
        if self.world_size > 1:
            torch.distributed.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model whose gradients are averaged over all processes."""
        if self.world_size == 1:
            return model
        return nn.parallel.DistributedDataParallel(model)


def _is_initialized() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
