"""One way to follow long work and to stop it: for the command line, the web, batch and training.

Long work takes a `Progress`. It calls `update` as a stage advances, `report` when there is
something to know at once (a file that failed), and `check_cancelled` between items.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.issues import Issue

Item = TypeVar("Item")


class CancelledError(BloodfilmError):
    """The work was stopped on request; what was finished before is kept."""


class Progress(Protocol):
    """Follows long work, and is asked whether to go on."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Take note that `done` of `total` items of a stage are finished (`None`: unknown)."""

    def report(self, issue: Issue) -> None:
        """Take note of something that a person should know while the work goes on."""

    def check_cancelled(self) -> None:
        """Raise `CancelledError` if the work should stop; called between items."""


class NoProgress:
    """Reports to nobody and never cancels."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def report(self, issue: Issue) -> None:
        """Do nothing."""

    def check_cancelled(self) -> None:
        """Do nothing."""


class Cancellation(NoProgress):
    """Lets another thread stop the work: call `cancel`.

    >>> stop = Cancellation()
    >>> for number in track(range(9), stop, "numbers", 9):
    ...     if number == 3:
    ...         stop.cancel()
    Traceback (most recent call last):
    ...
    bloodfilm.core.progress.CancelledError: stopped on request
    """

    def __init__(self) -> None:
        self._wanted = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop before its next item."""
        self._wanted.set()

    def check_cancelled(self) -> None:
        """Raise `CancelledError` after `cancel`."""
        if self._wanted.is_set():
            raise CancelledError("stopped on request")


class OneStage:
    """Passes on one stage of the work, and whether to go on: other stages are told by the caller.

    Args:
        progress: who follows the work.
        stage: that is passed on.
    """

    def __init__(self, progress: Progress, stage: str) -> None:
        self._progress, self._stage = progress, stage

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Pass the stage on."""
        if stage == self._stage:
            self._progress.update(stage, done, total)

    def report(self, issue: Issue) -> None:
        """Pass it on."""
        self._progress.report(issue)

    def check_cancelled(self) -> None:
        """Ask who follows the work."""
        self._progress.check_cancelled()


def track(
    items: Iterable[Item], progress: Progress, stage: str, total: int | None, done: int = 0
) -> Iterator[Item]:
    """Pass items on; after each, update the stage and stop the work if that is wanted.

    Args:
        items: of the stage.
        progress: who follows the work.
        stage: what is done, e.g. `fields`.
        total: how many items there are with those done before.
        done: how many were done before.
    """
    progress.update(stage, done, total)
    for number, item in enumerate(items, done + 1):
        progress.check_cancelled()
        yield item
        progress.update(stage, number, total)


def counter(progress: Progress, stage: str, total: int | None) -> Callable[[int], None]:
    """Return a function that updates one stage and stops the work if that is wanted."""

    def count(done: int) -> None:
        progress.update(stage, done, total)
        progress.check_cancelled()

    return count
