"""Progress of long work on stderr: bars on a terminal, a line now and then where it is piped."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bloodfilm.cli import terminal
from bloodfilm.core import issue_codes

if TYPE_CHECKING:
    from rich.progress import TaskID

    from bloodfilm.core.issues import Issue

FIRST_LINE, NEXT_LINES = 5.0, 30.0
"""Seconds from the start of a stage to its first line, and between lines, where piped."""
HINTS = {issue_codes.RUN_STOPPED: "go on with --resume"}


class TerminalProgress:
    """Shows what a workflow reports. Use it as a context manager.

    Args:
        unit: what is counted, `items` or `bytes`.
        elapsed: also show the time gone.
        clock: seconds.
    """

    def __init__(
        self,
        *,
        unit: str = "items",
        elapsed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bars = None
        if not terminal.verbosity.quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bars = _Bars(unit, elapsed)
        self._lines = _Lines(unit, clock)

    def update(self, stage: str, done: int, total: int | None) -> None:
        """Show how far a stage is."""
        if self._bars is not None:
            self._bars.update(stage, done, total)
        else:
            self._lines.update(stage, done, total)

    def report(self, issue: "Issue") -> None:
        """Print an issue: always if it is an error, else unless the command is quiet."""
        hint = HINTS.get(issue.code)
        text = issue.message + (f"; {hint}" if hint else "")
        if issue.severity == "error":
            self._print(f"failed: {text}", terminal.warn)
        elif issue.severity == "warning":
            self._print(f"warning: {text}", terminal.note)
        else:
            self._print(text, terminal.note)

    def check_cancelled(self) -> None:
        """Do nothing: Ctrl-C interrupts a command wherever it is."""

    def _print(self, line: str, how: Callable[[str], None]) -> None:
        if self._bars is not None:
            terminal.log.info("%s", terminal.printable(line))
            self._bars.print(line)
        else:
            how(line)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()


class _Lines:
    """A line on stderr for what takes long."""

    def __init__(self, unit: str, clock: Callable[[], float]) -> None:
        self._unit = unit
        self._clock = clock
        self._stage = ""
        self._next = 0.0

    def update(self, stage: str, done: int, total: int | None) -> None:
        now = self._clock()
        if stage != self._stage:
            self._stage, self._next = stage, now + FIRST_LINE
            terminal.log.debug("%s begins", terminal.printable(stage))
        if now < self._next:
            return
        self._next = now + NEXT_LINES
        terminal.note(
            f"{stage}: {self._count(done)}{'' if total is None else f' of {self._count(total)}'}"
        )

    def _count(self, number: int) -> str:
        return f"{number / 1e6:.1f} MB" if self._unit == "bytes" else str(number)


class _Bars:
    """Bars of rich; one for each stage."""

    def __init__(self, unit: str, elapsed: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        count: list[Any] = [MofNCompleteColumn(), TimeRemainingColumn()]
        if unit == "bytes":
            count = [DownloadColumn(), TransferSpeedColumn()]
        if elapsed:
            count.append(TimeElapsedColumn())
        name = TextColumn("{task.description}", markup=False)
        console = Console(stderr=True, soft_wrap=True)
        self._progress = Progress(name, BarColumn(), *count, console=console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def start(self) -> None:
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def update(self, stage: str, done: int, total: int | None) -> None:
        name = terminal.printable(stage)
        key = "loss" if name.startswith("loss ") else name  # one bar whose text changes
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[key], description=name, completed=done, total=total)

    def print(self, line: str) -> None:
        self._progress.console.print(
            terminal.printable(line), markup=False, highlight=False, soft_wrap=True
        )
