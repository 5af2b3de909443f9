"""Protocols of a task, as the training loop uses them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from bloodfilm.training.data.keys import Key


class SampleSource(Protocol):
    """Makes training samples. It holds no network and can be pickled, for loading processes."""

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the samples of an epoch, in the order they are drawn."""
        ...

    def sample(self, key: Key) -> Any:
        """Make one sample; the same key gives the same sample."""
        ...

    def collate(self, samples: Sequence[Any]) -> Any:
        """Join samples into a batch of tensors."""
        ...


Network = TypeVar("Network", bound=nn.Module)
Teacher_contra = TypeVar("Teacher_contra", bound=nn.Module, contravariant=True)


class Task(Protocol[Network]):
    """Model, data and losses of one kind of training, for one kind of network.

    Attributes:
        score_name: the validation metric, larger is better, that chooses the best epoch.
    """

    score_name: str

    @property
    def model(self) -> Network:
        """The network to train."""
        ...

    @property
    def samples(self) -> SampleSource:
        """The training data."""
        ...

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of every loss term that can occur; the weighted sum is minimised."""
        ...

    def losses(self, model: Network, batch: Any, device: torch.device) -> dict[str, Tensor]:
        """Return the unweighted loss terms of a batch, by name."""
        ...

    def validate(self, model: Network, device: torch.device) -> dict[str, float]:
        """Return metrics on the validation data, `score_name` among them."""
        ...

    def finish(self, model: Network, device: torch.device) -> None:
        """Set what is fixed after training (e.g. class prototypes) on the model to be kept."""
        ...

    def record(self) -> dict[str, Any]:
        """Return what an exported bundle must know: vocabulary, data, licences, sizes."""
        ...


@runtime_checkable
class UsesEmaTeacher(Protocol[Teacher_contra]):
    """A task that learns from the averaged weights too; the loop looks for these methods."""

    def set_teacher(self, average: Teacher_contra) -> None:
        """Take the averaged model, once, before the first step; it changes in place."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what the task itself has learnt, for checkpoints."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned, before a stopped run goes on."""
        ...
