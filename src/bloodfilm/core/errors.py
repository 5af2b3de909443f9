"""Errors that a user can correct: one line that names the file, the place and the remedy."""

import errno
from collections.abc import Sequence
from typing import Literal

from bloodfilm.core.text import shortened

Remedy = Literal["resume", "overwrite", "other-output", "wait"]
REMEDIES: dict[Remedy, str] = {
    "resume": "resume the run",
    "overwrite": "start anew and overwrite it",
    "other-output": "choose another output folder",
    "wait": "wait until it has finished",
}


MAX_MESSAGE = 1000
"""Characters; what is beyond is left out of the middle."""


class BloodfilmError(Exception):
    """An error that the user can correct.

    Its message is one line with the problem, the place and the remedy. Whatever it quotes from a
    file, it is no longer than `MAX_MESSAGE`.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message, MAX_MESSAGE))


class DataError(BloodfilmError):
    """An image, a label file or a folder cannot be used as it is."""


class ConfigError(BloodfilmError):
    """A configuration file or an option is wrong."""


class BundleError(BloodfilmError):
    """A model bundle is missing, damaged, or of a version this program does not read."""


class OutputError(ConfigError):
    """The output folder cannot be used as asked; what is there is left as it is.

    Attributes:
        problem: what is in the way.
        remedies: what would help, as codes; an interface words them its own way.

    >>> str(OutputError("out: holds result.json", ["other-output", "overwrite"]))
    'out: holds result.json; choose another output folder or start anew and overwrite it'
    """

    def __init__(self, problem: str, remedies: Sequence[Remedy] = ()) -> None:
        self.problem = problem
        self.remedies = tuple(remedies)
        super().__init__(problem + _listed([REMEDIES[r] for r in self.remedies]))

    def worded(self, words: dict[Remedy, str]) -> str:
        """Return the message with an interface's own words for the remedies."""
        return self.problem + _listed([words[r] for r in self.remedies])


def _listed(remedies: Sequence[str]) -> str:
    return f"; {' or '.join(remedies)}" if remedies else ""


_OUT_OF_MEMORY = (
    "bad allocation",
    "bad_alloc",
    "can't start new thread",
    "cannot allocate memory",
    "failed to allocate memory",
    "failed to map segment",  # of a library that is loaded
    "insufficient memory",
    "out of memory",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error, of whatever library, says that memory is lacking.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("bad value"))
    (True, False)
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)
