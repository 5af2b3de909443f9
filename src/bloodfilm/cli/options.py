"""The options that every command has, and those that several share."""

import functools
import inspect
import logging
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bloodfilm import __version__
from bloodfilm.cli import terminal

QUIET_HELP = "Say nothing but errors, failures and what --json asks for."
VERBOSE_HELP = "Say what is done, step by step."
LOG_HELP = "Also keep a log in FILE, with times and the traceback of errors."

_LOG_LINE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help=QUIET_HELP)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help=VERBOSE_HELP)]
LogFile = Annotated[Path | None, typer.Option("--log-file", metavar="FILE", help=LOG_HELP)]

ModelBundle = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help="Model bundle: a folder, or a shipped one by name (default, leukaemia-research).",
    ),
]
SourceBundle = Annotated[
    Path,
    typer.Argument(
        metavar="BUNDLE", help="Model bundle: a folder, or a shipped one by name (default)."
    ),
]
NewBundle = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the new bundle.")
]
TrainingData = Annotated[
    Path | None,
    typer.Option(help="Folder the training data's paths start from [BLOODFILM_DATA]."),
]
CleanSplits = Annotated[
    bool, typer.Option("--clean-splits", help="Take leaking images of txl or pbc out of a split.")
]
CheckSets = Annotated[
    list[Path] | None,
    typer.Option(metavar="DATASET", help="A labelled set that must not become worse; repeatable."),
]
UmPerPx = Annotated[
    float | None, typer.Option(help="Micrometres per pixel, along y, if you know them.")
]
PixelAspectRatio = Annotated[
    float | None,
    typer.Option(
        "--squeeze",
        help="Width / height of a round cell in pixels (pixel aspect ratio), if you know it.",
    ),
]
ReportAsJson = Annotated[bool, typer.Option("--json", help="Print the report as JSON.")]
RandomSeed = Annotated[int, typer.Option(min=0, help="Random seed.")]

_COMMON = {"quiet": (Quiet, False), "verbose": (Verbose, False), "log_file": (LogFile, None)}


def with_common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Return a command that also takes the options that every command has."""

    @functools.wraps(command)
    def run(**options: Any) -> Any:
        set_quiet(options.pop("quiet"))
        set_verbose(options.pop("verbose"))
        set_log_file(options.pop("log_file"))
        return command(**options)

    signature = inspect.signature(command)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value, annotation=kind)
        for name, (kind, value) in _COMMON.items()
    ]
    parameters = [*signature.parameters.values(), *more]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {
        **command.__annotations__,
        **{name: kind for name, (kind, _) in _COMMON.items()},
    }
    return run


def reset() -> None:
    """Begin a command line anew: normal verbosity, no log."""
    terminal.verbosity.quiet = terminal.verbosity.verbose = False
    for handler in list(terminal.log.handlers):
        if isinstance(handler, logging.FileHandler):
            terminal.log.removeHandler(handler)
            handler.close()


def set_quiet(wanted: bool) -> None:
    """Let this process say less."""
    terminal.verbosity.quiet = wanted or terminal.verbosity.quiet


def set_verbose(wanted: bool) -> None:
    """Let this process say more."""
    terminal.verbosity.verbose = wanted or terminal.verbosity.verbose


def set_log_file(path: str | Path | None) -> None:
    """Keep a log of this process; lines are added to a log that is there.

    Raises:
        typer.BadParameter: if the file cannot be written, or is something else than a log.
    """
    if path is None:
        return
    place = Path(path)
    try:
        if place.exists():
            if not place.is_file():
                raise typer.BadParameter(f"{path}: is no regular file")
            with place.open("rb") as file:
                start = file.read(19)
            if start and not _LOG_LINE.fullmatch(start):
                raise typer.BadParameter(f"{path}: is there, and is no log of this program")
        handler = logging.FileHandler(place, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise typer.BadParameter(f"{path}: cannot be written ({reason})") from None
    form = "%(asctime)s %(levelname)s %(process)d %(message)s"
    handler.setFormatter(logging.Formatter(form, "%Y-%m-%d %H:%M:%S"))
    logging.raiseExceptions = False  # a full disk ends the log, not the work
    terminal.log.addHandler(handler)
    terminal.log.setLevel(logging.DEBUG)
    about = f"bloodfilm {__version__}, Python {platform.python_version()}, {platform.platform()}"
    terminal.log.info("%s", about)
    terminal.log.info("%s", " ".join(map(terminal.printable, map(repr, sys.argv[1:]))))
