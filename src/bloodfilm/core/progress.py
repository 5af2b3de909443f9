"""One way to tell how far long work is and to stop it: for the command line, the web and batch."""

from typing import Protocol

from bloodfilm.core.errors import BloodfilmError


class CancelledError(BloodfilmError):
    """The work was stopped on request; what was finished before is kept."""


class Progress(Protocol):
    """Told how far work is; asked whether to go on."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Report that `done` of `total` items of a stage are finished (`None`: unknown total)."""

    def check_cancelled(self) -> None:
        """Raise `CancelledError` if the work should stop; called between items."""


class NoProgress:
    """Reports to nobody and never cancels."""

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Do nothing."""

    def check_cancelled(self) -> None:
        """Do nothing."""
