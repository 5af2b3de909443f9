"""What a command prints: results on stdout, everything else on stderr, harmless and when wanted.

Every line passes `printable` once: names of files, patients and classes come from elsewhere.
Where stderr cannot be written to (a full disk), the command works on in silence.
"""

import contextlib
import logging
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger("bloodfilm")
log.addHandler(logging.NullHandler())  # what is logged is shown by --log-file alone


@dataclass
class Verbosity:
    """How much a command says on stderr and stdout.

    Attributes:
        quiet: only errors and failures, and on stdout only what `--json` asks for.
        verbose: also what is done, step by step.
    """

    quiet: bool = False
    verbose: bool = False


verbosity = Verbosity()
"""Of this process; set by the options that every command has."""


def printable(text: object) -> str:
    """Return text that shows nothing but itself; see `core.text`."""
    from bloodfilm.core import text as texts  # not at the top: it brings NumPy, `--help` needs none

    return texts.printable(text)


def show(line: str = "") -> None:
    """Print a line of a result for people on stdout; nothing if the command is quiet.

    A line break in it is shown by its number: what a name holds must not look like a line.
    """
    log.debug("%s", printable(line))
    if not verbosity.quiet:
        print(printable(line))


def show_lines(lines: Iterable[str]) -> None:
    """Print lines of a result for people, each as `show` does."""
    for line in lines:
        show(line)


def show_data(text: str) -> None:
    """Print a result for programs (JSON) on stdout, always."""
    print(text)


def show_report(
    report: object, lines: Iterable[str], as_json: bool, indent: int | None = None
) -> None:
    """Print a report on stdout: as JSON for programs, or as these lines for people."""
    if as_json:
        import json

        show_data(json.dumps(report, indent=indent))
    else:
        show_lines(lines)


def show_table(renderable: Any) -> None:
    """Print a table of rich on stdout, unless the command is quiet."""
    from rich.console import Console
    from rich.segment import Segment, Segments

    if verbosity.quiet:
        return
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160)
    for line in console.render_lines(renderable, pad=False):
        clean = (Segment(printable(s.text), s.style) for s in line if not s.control)
        console.print(Segments([*clean, Segment.line()]), end="")


def note(line: str) -> None:
    """Print a line on stderr, unless the command is quiet."""
    log.info("%s", printable(line))
    if not verbosity.quiet:
        _to_stderr(line)


def detail(line: str) -> None:
    """Print a line on stderr if the command is verbose."""
    log.debug("%s", printable(line))
    if verbosity.verbose:
        _to_stderr(line)


def warn(line: str) -> None:
    """Print a line on stderr that must be seen: a failure, an error."""
    log.error("%s", printable(line))
    _to_stderr(line)


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(printable(line), file=sys.stderr, flush=True)
