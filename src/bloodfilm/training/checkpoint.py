"""Checkpoints: written whole or not at all, read as data only."""

import pickle
from pathlib import Path
from typing import Any

import torch

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import atomic_write_bytes, regular_file


def save_checkpoint(path: Path, data: dict[str, Any]) -> None:
    """Write tensors and plain values; a crash leaves the file that was there before."""
    with atomic_write_bytes(path) as file:
        torch.save(data, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; it never runs code.

    Raises:
        ConfigError: if it cannot be read.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such checkpoint; train first")
    try:
        data: dict[str, Any] = torch.load(regular_file(path), map_location="cpu", weights_only=True)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ConfigError(f"{path}: damaged checkpoint ({first}); delete it") from None
    return data
