"""Turn what goes wrong inside any command into one line on stderr and an exit code.

| what | line | code |
|---|---|---|
| `BloodfilmError` | its own message, remedies as options | 2 |
| a package of an extra is missing | how to install it | 2 |
| memory is lacking | that it is, and what helps | 2 |
| the system refuses (disk full, not allowed, ...) | which file, and why | 2 |
| anything else, a fault of the program | what it was, and how to see more | 70 |
| Ctrl-C | stopped | 130 |
| SIGTERM, SIGHUP | stopped | 143 |
| the reader of a pipe went away | nothing | 141, as the shell reports SIGPIPE |

Code 1 is left to commands that did their work, but for some files. `BLOODFILM_DEBUG=1` shows the
traceback behind a line, and `--log-file` keeps it.
"""

import errno
import os
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from bloodfilm.cli import exits, terminal
from bloodfilm.cli.main import Terminated

# Top-level package -> the extra of bloodfilm that brings it.
_EXTRA_OF = {
    "onnx": "train",
    "pyarrow": "index",
    "safetensors": "train",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
}

_PLAIN = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk or the network failed",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}


class ErrorHandlingGroup(TyperGroup):
    """The root group of commands; the only place where exceptions become exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command and translate what it raises."""
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except Terminated:
            _leave("stopped: the system asked this process to end", exits.TERMINATED)
        except KeyboardInterrupt:
            _leave("stopped", exits.INTERRUPTED)
        except BrokenPipeError:
            raise typer.Exit(exits.BROKEN_PIPE) from None
        except Exception as error:
            if is_usage_error(error):
                raise
            _leave(*describe(error))


def describe(error: Exception) -> tuple[str, int]:
    """Return the line and the exit code of an error; show its traceback if that is wanted."""
    _show_traceback()
    line = explain(error)
    if line is not None:
        return f"error: {line}", exits.NOTHING_DONE
    text = " ".join(str(error).split())
    line = f"internal error: {type(error).__name__}: {text[:300]}; please report it "
    return line + "(BLOODFILM_DEBUG=1 shows where it came from)", exits.INTERNAL_ERROR


def is_usage_error(error: Exception) -> bool:
    """Return whether an exception is of the parser of commands, which words it itself."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def explain(error: Exception) -> str | None:
    """Say in one line what went wrong, or None if the exception is a fault of the program."""
    from bloodfilm.core.errors import BloodfilmError, OutputError, Remedy, is_out_of_memory

    words: dict[Remedy, str] = {
        "resume": "go on with --resume",
        "overwrite": "start anew with --overwrite",
        "other-output": "choose another --out",
        "wait": "wait until it has finished",
    }
    if isinstance(error, OutputError):
        return " ".join(error.worded(words).split())
    if isinstance(error, BloodfilmError):
        return " ".join(str(error).split())
    if is_out_of_memory(error):
        return "not enough memory; close other programs, or work on fewer fields at a time"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in _EXTRA_OF:
            return f"{package} is not installed; run: pip install 'bloodfilm[{_EXTRA_OF[package]}]'"
    if isinstance(error, OSError) and error.errno is not None:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return where + _PLAIN.get(error.errno, os.strerror(error.errno).lower())
    return None


def _show_traceback() -> None:
    terminal.log.debug("the error came from", exc_info=True)
    if os.environ.get("BLOODFILM_DEBUG", "0") not in {"", "0"} and sys.stderr is not None:
        traceback.print_exc()


def _leave(line: str, code: int) -> NoReturn:
    terminal.warn(line)
    raise typer.Exit(code) from None
