"""The bars that long work shows on stderr: what is done, how far it is, how long it will take."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bloodfilm.inference.records import FieldFailure

Item = TypeVar("Item")


@contextmanager
def bar(*, elapsed: bool = False, transient: bool = True) -> Iterator[Progress]:
    """Show tasks on stderr while the block runs; `elapsed` adds the time gone."""
    clocks = (TimeElapsedColumn(), TimeRemainingColumn()) if elapsed else (TimeRemainingColumn(),)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *clocks)
    console = Console(stderr=True, soft_wrap=True)
    with Progress(*columns, console=console, transient=transient) as progress:
        yield progress


def counted(items: Iterable[Item], total: int, done: int = 0) -> Iterator[Item]:
    """Pass on what comes of each field, with a bar and one line for every file that failed."""
    with bar() as progress:
        task = progress.add_task("fields", total=total, completed=done)
        for item in items:
            if isinstance(item, FieldFailure):
                line = f"failed: {item.path}: {item.reason}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
            yield item
            progress.advance(task)
