"""`bloodfilm data fetch`: bring public data sets here, under their own licences."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bloodfilm.fetch import Source

NAMES = "lld, pbc, wbcatt, bccd, txl"
EXIT_NOT_FETCHED = 2


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Which set: {NAMES}.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the data set.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="I have read the licence and keep to it.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds of silence before trying again.")
    ] = 30.0,
    tries: Annotated[int, typer.Option(min=1, help="Attempts without progress.")] = 5,
) -> None:
    """Fetch a public data set from its own address, check it and unpack it into DIR.

    Without --accept-licence, only says what it is, where it lies and under which licence. A
    download that was stopped goes on when the command is run again.

    For example:

      bloodfilm data fetch bccd

      bloodfilm data fetch bccd --out data/bccd --accept-licence
    """
    from bloodfilm.core import ConfigError
    from bloodfilm.fetch import CATALOGUE
    from bloodfilm.fetch import fetch as bring
    from bloodfilm.fetch.download import Patience

    source = CATALOGUE.get(name.lower())
    if source is None:
        raise ConfigError(f"no data set {name!r} is known; choose from {', '.join(CATALOGUE)}")
    print(_about(source))
    if not source.parts:
        print()
        print(source.instructions.rstrip())
        raise typer.Exit(EXIT_NOT_FETCHED)
    if out is None:
        raise ConfigError("--out is missing: name the folder the data set shall go to")
    with _bar() as tell:
        came = bring(
            source,
            out,
            accept_licence=accept_licence,
            tell=tell,
            patience=Patience(timeout, tries),
        )
    for part, found in came["parts"].items():
        print(f"  {part}: SHA-256 {found['sha256']}, checked against {found['checked_against']}")
    print(f"fetched {source.name} into {out}")
    if source.afterwards:
        print(f"  {source.afterwards}")


def _about(source: "Source") -> str:
    return "\n".join(
        (
            source.title,
            f"  page     {source.page}",
            f"  licence  {source.licence}",
            f"  cite     {source.cite}",
        )
    )


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int | None], None]]:
    """A progress bar on stderr, one line a file."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield tell
