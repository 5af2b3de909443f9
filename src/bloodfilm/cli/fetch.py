"""`bloodfilm data fetch`: bring public data sets here, under their own licences."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bloodfilm.cli import exits

if TYPE_CHECKING:
    from bloodfilm.datasets import DownloadSource

NAMES = "lld, pbc, wbcatt, bccd, txl"
SHOWN_ISSUES = 8


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"Which set: {NAMES}.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for the data set.")
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
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show, show_lines
    from bloodfilm.datasets.download import RetryPolicy
    from bloodfilm.workflows.download import download, find_source

    source = find_source(name)
    show_lines(_about(source).splitlines())
    if zips is not None:
        _unpack(source, zips, out, accept_licence)
        return
    if not source.parts:
        show()
        show_lines(source.instructions.rstrip().splitlines())
        raise typer.Exit(exits.NOTHING_DONE)
    with TerminalProgress(unit="bytes") as progress:
        came = download(
            source,
            out,
            accept_licence=accept_licence,
            retries=RetryPolicy(timeout, tries),
            progress=progress,
        )
    for part, found in came["parts"].items():
        show(f"  {part}: SHA-256 {found['sha256']}, checked against {found['checked_against']}")
    show(f"fetched {source.name} into {out}")
    if source.afterwards:
        show_lines(f"  {source.afterwards}".splitlines())


def _unpack(source: "DownloadSource", zips: Path, out: Path | None, accepted: bool) -> None:
    from bloodfilm.cli.progress import TerminalProgress
    from bloodfilm.cli.terminal import show
    from bloodfilm.core.text import plural
    from bloodfilm.workflows.download import unpack_downloads

    with TerminalProgress(unit="bytes") as progress:
        came = unpack_downloads(source, zips, out, accept_licence=accepted, progress=progress)
    show(f"unpacked {plural(came.files, 'file')} of {plural(came.archives, 'zip')} into {out}")
    show(f"  {plural(came.fields, 'field')}, {plural(came.cells, 'cell')}")
    for found in came.issues[:SHOWN_ISSUES]:
        show(f"  {found}")
    if len(came.issues) > SHOWN_ISSUES:
        show("  and more: `bloodfilm data info` lists them")


def _about(source: "DownloadSource") -> str:
    return "\n".join(
        (
            source.title,
            f"  page     {source.page}",
            f"  licence  {source.licence}",
            f"  cite     {source.cite}",
        )
    )
