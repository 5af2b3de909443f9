"""Checkpoints: written whole or not at all, read as data only."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch

from bloodfilm.core.errors import ConfigError


def save_checkpoint(path: Path, data: dict[str, Any]) -> None:
    """Write tensors and plain values; a crash leaves the file that was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    torch.save(data, partial)
    partial.replace(path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU; it never runs code.

    Raises:
        ConfigError: if it cannot be read.
    """
    try:
        data: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such checkpoint; train first") from None
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{path}: damaged checkpoint ({first}); delete it") from None
    return data


def write_json(path: Path, data: Any) -> None:
    """Write plain data as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
