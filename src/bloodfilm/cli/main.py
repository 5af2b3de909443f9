"""The process of the command line: its streams, its signals, its exit code.

Signals are taken before anything heavy is imported, so that Ctrl-C is quiet at any moment. The
first Ctrl-C (or SIGTERM) raises `KeyboardInterrupt`: what is under way is closed in order. The
second ends the process at once, without the libraries' clean-up, which may abort while their
threads work. Locks are the system's and go with the process; unfinished files are removed by the
next run.
"""

import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from bloodfilm.cli import exits


class Terminated(KeyboardInterrupt):
    """The process was asked to end (SIGTERM), which ends it as Ctrl-C does."""


_received: list[int] = []
COLLECT_AFTER = 20_000, 20, 50
"""Objects made before Python looks for cycles, and rounds before it looks through older ones, too.

Results are millions of small objects without a cycle; with Python's own figures, which are ten
times lower, the search takes 2 to 3 % of an analysis.
"""


def main() -> NoReturn:
    """Run the command line; ends the process with one of `exits`."""
    _open_missing_streams()
    _take_signals()
    gc.set_threshold(*COLLECT_AFTER)
    code = exits.INTERNAL_ERROR
    try:
        from bloodfilm.cli.app import app

        app(prog_name="bloodfilm")
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
    except KeyboardInterrupt as stop:  # before or after the command itself
        code = exits.TERMINATED if isinstance(stop, Terminated) else exits.INTERRUPTED
    except Exception as error:  # while options were parsed; commands have their own handling
        from bloodfilm.cli.failures import describe
        from bloodfilm.cli.terminal import warn

        line, code = describe(error)
        warn(line)
    code = _flush(code)
    if _received:
        os._exit(code)  # threads of libraries may still work
    sys.exit(code)


def _open_missing_streams() -> None:
    """Open streams that were closed on nothing: the next file must not get their number."""
    while True:
        descriptor = os.open(os.devnull, os.O_RDWR)
        if descriptor > 2:
            os.close(descriptor)
            break
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character gets its code
            stream.reconfigure(errors="backslashreplace")


def _take_signals() -> None:
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    if _received:
        os._exit(128 + _received[0])
    _received.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


def _flush(code: int) -> int:
    """Flush stdout now, and say if that fails: at interpreter exit it would be a traceback."""
    try:
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        pass
    except (OSError, ValueError) as error:
        if code == exits.OK:
            from bloodfilm.cli.terminal import warn

            reason = getattr(error, "strerror", None) or str(error)
            warn(f"error: the output cannot be written ({reason.lower()})")
            code = exits.NOTHING_DONE
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return code
