"""Packages that a few functions need and the base installation leaves out."""

from importlib import import_module
from types import ModuleType

from bloodfilm.core.errors import BloodfilmError


class MissingPackageError(BloodfilmError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


def optional(module: str, *, extra: str, needed_by: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: its dotted name.
        extra: the extra of bloodfilm that installs it.
        needed_by: the function that was called, for the message.

    Raises:
        MissingPackageError: if it cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError:
        raise MissingPackageError(
            f"{needed_by}: needs the package {module.partition('.')[0]}, which is not installed; "
            f"pip install 'bloodfilm[{extra}]'"
        ) from None
