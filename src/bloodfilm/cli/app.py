"""The `bloodfilm` command: which commands there are, and what a person sees when one fails."""

import os
import sys
from typing import Annotated

import typer

from bloodfilm import __version__
from bloodfilm.cli import (
    analyze,
    annotate,
    auditing,
    data,
    demo,
    evaluate,
    export,
    fetch,
    films,
    overlaps,
    train,
    transfer,
)
from bloodfilm.cli.examples import epilog
from bloodfilm.cli.failures import ErrorHandlingGroup

# Plain help and plain tracebacks: rich would more than double the time `--help` takes.
app = typer.Typer(
    cls=ErrorHandlingGroup,
    name="bloodfilm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

# One line a command, in the order `--help` shows them:
#   app.command(epilog=epilog("analyze"))(analyze.analyze)   for src/bloodfilm/cli/analyze.py
#   app.add_typer(data.app, name="data")                     for a group of commands
# A command module imports only the standard library and typer at its top.


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"bloodfilm {__version__}")
        raise typer.Exit


app.command(epilog=epilog("analyze"))(analyze.analyze)
app.add_typer(annotate.app, name="annotate")
auditing.register(data.app)
app.add_typer(data.app, name="data")
data.app.command(epilog=epilog("data overlaps"))(overlaps.overlaps)
data.app.command(epilog=epilog("data transfer"))(transfer.transfer)
data.app.command(epilog=epilog("data fetch"))(fetch.fetch)
app.command(epilog=epilog("demo"))(demo.demo)
app.command(epilog=epilog("evaluate"))(evaluate.evaluate)
app.command(epilog=epilog("train"))(train.train)
app.command(epilog=epilog("export"))(export.export)
app.command(epilog=epilog("films"))(films.films)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            help="Print the version and stop.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Find white cells on blood-film micrographs, name them and describe them. Research use only.

    BLOODFILM_DEBUG=1 shows the traceback behind a one-line error.
    """


def main() -> None:
    """Run the command line; every way out is a `SystemExit`."""
    try:
        app(prog_name="bloodfilm")
    finally:
        _flush_quietly()


def _flush_quietly() -> None:
    """Flush stdout now: a reader that went away must not cause a message at interpreter exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
