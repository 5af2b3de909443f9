"""Callbacks that follow a training run, independent of the loop."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StepInfo:
    """One optimiser step.

    Attributes:
        epoch: number of the epoch, from 1.
        step: number within the epoch, from 1; of `steps`.
        losses: mean of each weighted term over the epoch so far, and of their sum, `total`.
    """

    epoch: int
    step: int
    steps: int
    losses: Mapping[str, float]


@dataclass(frozen=True)
class EpochInfo:
    """One epoch.

    Attributes:
        epoch: its number, from 1; of `epochs`.
        losses: mean of each weighted term, and of their sum, `total`.
        metrics: of the averaged weights on validation data; `None` where they were not validated.
        improved: whether these weights are the best so far.
    """

    epoch: int
    epochs: int
    losses: Mapping[str, float]
    metrics: Mapping[str, float] | None
    improved: bool


class Callback(Protocol):
    """Follows a run. Whatever a method raises stops the run; it can be resumed."""

    def on_step(self, info: StepInfo) -> None:
        """Called after an optimiser step."""

    def on_epoch_end(self, info: EpochInfo) -> None:
        """Called after an epoch, before its checkpoint is written."""

    def on_train_end(self, out: Path) -> None:
        """Called when the run is complete; its files are in `out`."""


class BaseCallback:
    """Does nothing: a base for callbacks that need some of the methods."""

    def on_step(self, info: StepInfo) -> None:
        """Do nothing."""

    def on_epoch_end(self, info: EpochInfo) -> None:
        """Do nothing."""

    def on_train_end(self, out: Path) -> None:
        """Do nothing."""


class Callbacks(BaseCallback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Iterable[Callback]) -> None:
        self._all = tuple(callbacks)

    def on_step(self, info: StepInfo) -> None:
        """Pass the step on."""
        for callback in self._all:
            callback.on_step(info)

    def on_epoch_end(self, info: EpochInfo) -> None:
        """Pass the epoch on."""
        for callback in self._all:
            callback.on_epoch_end(info)

    def on_train_end(self, out: Path) -> None:
        """Pass the end on."""
        for callback in self._all:
            callback.on_train_end(out)
