"""Turn what goes wrong inside any command into one line on stderr and an exit code.

| what | line | code |
|---|---|---|
| `BloodfilmError` | its own message | 2 |
| a package of an extra is missing | how to install it | 2 |
| disk full, not allowed | which file | 2 |
| Ctrl-C | stopped | 130 |
| the reader of a pipe went away | nothing | 141, as the shell reports SIGPIPE |

Anything else is a bug and keeps its traceback; `BLOODFILM_DEBUG=1` shows it for all but the last
two.
"""

import errno
import os
import sys
import traceback
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

# Top-level package -> the extra of bloodfilm that brings it.
_EXTRA_OF = {
    "onnx": "train",
    "pyarrow": "index",
    "safetensors": "train",
    "timm": "train",
    "torch": "train",
    "torchvision": "train",
}

_FILE_TROUBLE = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
    errno.EROFS: "the file system is read-only",
}


class ErrorHandlingGroup(TyperGroup):
    """The root group of commands; the only place where exceptions become exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command and translate what it raises."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _leave("stopped", EXIT_INTERRUPTED)
        except BrokenPipeError:
            raise typer.Exit(EXIT_BROKEN_PIPE) from None
        except Exception as error:
            line = explain(error)
            if line is None:
                raise
            if os.environ.get("BLOODFILM_DEBUG", "0") not in {"", "0"}:
                traceback.print_exc()
            _leave(f"error: {line}", EXIT_ERROR)


def explain(error: Exception) -> str | None:
    """Say in one line what went wrong, or None if the exception is a bug."""
    from bloodfilm.core.errors import BloodfilmError

    if isinstance(error, BloodfilmError):
        return " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if package in _EXTRA_OF:
            return f"{package} is not installed; run: pip install 'bloodfilm[{_EXTRA_OF[package]}]'"
    if isinstance(error, OSError) and error.errno in _FILE_TROUBLE:
        where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        return where + _FILE_TROUBLE[error.errno]
    return None


def _leave(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr)
    raise typer.Exit(code) from None
