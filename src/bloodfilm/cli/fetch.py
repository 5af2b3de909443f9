"""`bloodfilm data fetch`: bring public data sets here, under their own licences."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bloodfilm.datasets import DownloadSource

NAMES = "lld, pbc, wbcatt, bccd, txl"
EXIT_NOT_FETCHED = 2
SHOWN_PROBLEMS = 8


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Which set: {NAMES}.")],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the data set.")
    ] = None,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="I have read the licence and keep to it.")
    ] = False,
    zips: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Zips downloaded by hand, for a set that no program can fetch (lld).",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1.0, help="Seconds of silence before trying again.")
    ] = 30.0,
    tries: Annotated[int, typer.Option(min=1, help="Attempts without progress.")] = 5,
) -> None:
    """Fetch a public data set from its own address, check it and unpack it into DIR.

    Without --accept-licence, only says what it is, where it lies and under which licence. A
    download that was stopped goes on when the command is run again.
    """
    from bloodfilm.core import ConfigError
    from bloodfilm.datasets import CATALOGUE
    from bloodfilm.datasets import fetch as bring
    from bloodfilm.datasets.download import RetryPolicy

    source = CATALOGUE.get(name.lower())
    if source is None:
        raise ConfigError(f"no data set {name!r} is known; choose from {', '.join(CATALOGUE)}")
    print(_about(source))
    if zips is not None:
        _unpack_by_hand(source, zips, out, accept_licence)
        return
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
            patience=RetryPolicy(timeout, tries),
        )
    for part, found in came["parts"].items():
        print(f"  {part}: SHA-256 {found['sha256']}, checked against {found['checked_against']}")
    print(f"fetched {source.name} into {out}")
    if source.afterwards:
        print(f"  {source.afterwards}")


def _unpack_by_hand(source: "DownloadSource", zips: Path, out: Path | None, accepted: bool) -> None:
    """Unpack zips that a person downloaded, all or none, and count what is missing."""
    from bloodfilm.core import ConfigError
    from bloodfilm.datasets.archive import unpack_together
    from bloodfilm.formats import open_dataset

    if source.parts:
        raise ConfigError(f"{source.name}: needs no --zips; it is fetched from its own address")
    if out is None:
        raise ConfigError("--out is missing: name the folder the data set shall go to")
    if not accepted:
        raise ConfigError(
            f"{source.name}: is under {source.licence}; read {source.page}, then give "
            "--accept-licence"
        )
    archives = sorted(p for p in zips.glob("*.zip") if p.is_file()) if zips.is_dir() else []
    if not archives:
        raise ConfigError(f"{zips}: no zips there; name the folder they were downloaded to")
    with _bar() as tell:
        count = unpack_together(archives, out, tell=lambda done, n: tell("zips", done, n))
    print(f"unpacked {count} files of {len(archives)} zips into {out}")
    dataset = open_dataset(out)
    print(f"  {len(dataset)} fields, {sum(len(f.cells) for f in dataset)} cells")
    for problem in dataset.problems[:SHOWN_PROBLEMS]:
        print(f"  {problem}")
    if len(dataset.problems) > SHOWN_PROBLEMS:
        print("  and more: `bloodfilm data info` lists them")


def _about(source: "DownloadSource") -> str:
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
