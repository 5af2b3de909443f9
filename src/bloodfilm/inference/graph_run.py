"""Run a graph and validate its outputs against the bundle's format."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.errors import BundleError, is_out_of_memory

ROUNDING = 1e-3
"""Tolerance of probabilities beyond 0 and 1, for eight-bit arithmetic."""

Outputs = list[NDArray[np.float32]]


Values = TypeVar("Values", bound=np.generic)


def batches(values: NDArray[Values], most: int) -> list[NDArray[Values]]:
    """Split an array along its first axis into parts of nearly equal size, `most` at the most.

    >>> [part.tolist() for part in batches(np.arange(5), 2)]
    [[0, 1], [2, 3], [4]]
    """
    return np.array_split(values, -(-len(values) // most)) if len(values) else []


def run_graph(
    session: Any,
    file: str,
    inputs: Mapping[str, NDArray[Any]],
    shapes: Mapping[str, tuple[int, ...]],
) -> Outputs:
    """Return the outputs of a graph, in the order of `shapes`.

    Args:
        session: of ONNX Runtime.
        file: the graph's, for messages.
        inputs: by name.
        shapes: what each output must have for these inputs, by name.

    Raises:
        BundleError: if it cannot be run, for another shape, and for a non-finite value, which
            would silently drop cells or produce results that JSON cannot represent.
    """
    try:
        outputs: Outputs = session.run(list(shapes), dict(inputs))
    except Exception as error:  # ONNX Runtime's own types, which have no common one
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[-160:]
        raise BundleError(
            f"the bundle's {file} cannot be run (... {reason}); use another bundle"
        ) from None
    for (name, shape), values in zip(shapes.items(), outputs, strict=True):
        if values.shape != shape:
            raise BundleError(
                f"the bundle's {file} returned {name!r} of shape {values.shape} where {shape} is "
                "wanted; use another bundle"
            )
        if not np.isfinite(values).all():
            raise BundleError(
                f"the bundle's {file} returned NaN or infinity in {name!r}; use another bundle"
            )
    return outputs


def check_probabilities(values: NDArray[np.float32], file: str, name: str) -> None:
    """Raise `BundleError` if a value lies outside 0 and 1 by more than rounding."""
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if low < -ROUNDING or high > 1 + ROUNDING:
        worst = low if low < -ROUNDING else high
        raise BundleError(
            f"the bundle's {file} returned {worst:.4g} in {name!r}, which is no probability; "
            "use another bundle"
        )
