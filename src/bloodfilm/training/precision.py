"""Which devices there are, and where bfloat16 is computed in hardware."""

import logging
from typing import Literal

import torch

from bloodfilm.core.errors import ConfigError

_log = logging.getLogger(__name__)


def pick_device(name: str) -> torch.device:
    """Return the selected device: `cpu`, `cuda`, `mps` or `auto`.

    Raises:
        ConfigError: if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"--device {name}: not on this machine; use cpu or auto") from None
    return device


def limit_threads(count: int | None) -> None:
    """Let torch use so many CPU threads; `None` leaves it to torch."""
    if count is not None:
        torch.set_num_threads(count)


def has_native_bf16(device: torch.device) -> bool:
    """Whether the device computes bfloat16 in hardware: emulated it is slower than float32.

    GPUs do from NVIDIA's Ampere on; CPUs with AVX512-BF16, AMX or the ARM equivalent.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # The check is no part of torch's public interface: without it, float32 is always right.
    check = getattr(getattr(torch.ops, "mkldnn", None), "_is_mkldnn_bf16_supported", None)
    return bool(check()) if callable(check) else False


def uses_bf16(precision: Literal["auto", "fp32", "bf16"], device: torch.device) -> bool:
    """Whether a run computes in bfloat16; asking for it where it is emulated is warned of."""
    native = has_native_bf16(device)
    if precision == "bf16" and not native:
        _log.warning(
            "optim.precision: %s emulates bf16, which is slow; fp32 or auto is faster there",
            device.type,
        )
    return precision == "bf16" or (precision == "auto" and native)
