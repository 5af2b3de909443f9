"""Packages that a few functions need and the base installation leaves out."""

from importlib import import_module
from types import ModuleType

from bloodfilm.core.errors import BloodfilmError


class MissingPackageError(BloodfilmError, ImportError):
    """An optional package is not installed; the message names what to install."""


def optional(module: str, *, install: str, needed_by: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: its dotted name.
        install: what pip installs to bring it.
        needed_by: the function that was called, for the message.

    Raises:
        MissingPackageError: if it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingPackageError(
            f"{needed_by}: needs the package {module.partition('.')[0]}, which is not installed; "
            f"pip install '{install}'"
        ) from None
