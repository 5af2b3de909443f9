"""What the loop asks of a task."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

Key = tuple[int, int]


class Task(Protocol):
    """Model, data and losses of one kind of training.

    Attributes:
        score_name: the validation metric, larger is better, that chooses the best epoch.
    """

    score_name: str

    @property
    def model(self) -> nn.Module:
        """The network to train."""
        ...

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the samples of an epoch, in the order they are drawn."""
        ...

    def sample(self, key: Key) -> Any:
        """Make one sample; the same key gives the same sample."""
        ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """Join samples into a batch of tensors."""
        ...

    def losses(self, model: nn.Module, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Return the weighted loss terms of a batch; their sum is minimised."""
        ...

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return metrics on the validation data, `score_name` among them."""
        ...

    def finish(self, model: nn.Module, device: torch.device) -> None:
        """Set what is fixed after training (e.g. class prototypes) on the model to be kept."""
        ...

    def record(self) -> dict[str, Any]:
        """Return what an exported bundle must know: vocabulary, data, licences, sizes."""
        ...


@runtime_checkable
class UsesEmaTeacher(Protocol):
    """A task that learns from the averaged weights too; the loop looks for these three methods."""

    def observe(self, average: nn.Module) -> None:
        """Take the averaged model, once, before the first step; it goes on changing in place."""
        ...

    def memory(self) -> dict[str, Tensor]:
        """Return what the task itself has learnt, to be kept in checkpoints."""
        ...

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take back what `memory` returned, before a stopped run goes on."""
        ...
