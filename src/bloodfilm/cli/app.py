"""The `bloodfilm` command: which commands there are, and what a person sees when one fails."""

from typing import Annotated

import typer

from bloodfilm import __version__
from bloodfilm.cli import (
    adapt,
    analyze,
    annotate,
    attributes,
    auditing,
    compare,
    data,
    demo,
    evaluate,
    exemplars,
    export,
    fetch,
    films,
    learn,
    overlaps,
    report,
    train,
    transfer,
)
from bloodfilm.cli.examples import epilog
from bloodfilm.cli.failures import ErrorHandlingGroup
from bloodfilm.cli.main import main
from bloodfilm.cli.options import (
    LogFile,
    Quiet,
    Verbose,
    reset,
    set_log_file,
    set_quiet,
    set_verbose,
    with_common_options,
)

__all__ = ["app", "main"]

# Plain help and plain tracebacks: rich would more than double the time `--help` takes.
app = typer.Typer(
    cls=ErrorHandlingGroup,
    name="bloodfilm",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
app.command(epilog=epilog("report"))(report.report)
app.add_typer(annotate.app, name="annotate")
auditing.register(data.app)
app.add_typer(data.app, name="data")
data.app.command(epilog=epilog("data overlaps"))(overlaps.overlaps)
data.app.command(epilog=epilog("data transfer"))(transfer.transfer)
data.app.command(epilog=epilog("data fetch"))(fetch.fetch)
app.command(epilog=epilog("demo"))(demo.demo)
app.command(epilog=epilog("compare"))(compare.compare)
app.command(epilog=epilog("evaluate"))(evaluate.evaluate)
app.command(epilog=epilog("train"))(train.train)
app.command(epilog=epilog("export"))(export.export)
app.command(epilog=epilog("adapt"))(adapt.adapt)
app.command(epilog=epilog("learn"))(learn.learn)
app.command(epilog=epilog("exemplars"))(exemplars.exemplars)
app.command(epilog=epilog("attributes"))(attributes.attributes)
app.command(epilog=epilog("films"))(films.films)


for group in (app, annotate.app, data.app):
    for registered in group.registered_commands:
        if registered.callback is not None:
            registered.callback = with_common_options(registered.callback)


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
    quiet: Quiet = False,
    verbose: Verbose = False,
    log_file: LogFile = None,
) -> None:
    """Find white cells on blood-film micrographs, name them and describe them. Research use only.

    Exit codes: 0 done; 1 some files failed, each is named, or an audit found errors; 2 nothing was
    done, and a line says why; 70 a fault of the program; 130 Ctrl-C; 141 the reader of the output
    went away; 143 ended by the system.

    BLOODFILM_DEBUG=1 shows the traceback behind a one-line error.
    """
    reset()
    set_quiet(quiet)
    set_verbose(verbose)
    set_log_file(log_file)
