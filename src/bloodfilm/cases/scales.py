"""Fields of a film whose scale contradicts that of nearly all others of the same camera.

Few red cells, or cells that were taken for such, can give a single field a scale of its own. Its
glass would then not be recognised in other fields.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.core.results import FieldResult

ALIKE = 1.06
"""Scales within this factor are one."""
DEVIATES = 1.1, 1.7
"""By what factor the scale of a field may be wrong; objectives differ by more."""
DOMINANT = 0.7
"""Share of the fields of one size that must have one scale."""
FEW, FEW_SHARE = 3, 0.1
"""A scale is doubtful that fewer fields have than these, or than this share of all."""
_MEASURED = frozenset({"measured", "pooled"})


def scale_factors(results: Sequence[FieldResult]) -> list[float]:
    """Return by what the micrometres per pixel of each field are multiplied to compare it.

    1, but for single fields whose measured scale contradicts that of nearly all fields of the same
    size: these are compared at the scale of the others. What was measured in them stays.
    """
    factors = [1.0] * len(results)
    cameras = defaultdict(list)
    for place, result in enumerate(results):
        if result.view.scale_source in _MEASURED:
            cameras[result.image.width, result.image.height].append(place)
    for places in cameras.values():
        scales = np.array([results[k].view.um_per_px_y for k in places])
        usual = float(np.median(scales))
        if np.mean(_alike(scales, usual)) < DOMINANT:
            continue
        for place, scale in zip(places, scales.tolist(), strict=True):
            alike = int(_alike(scales, scale).sum())
            apart = max(scale / usual, usual / scale)
            doubtful = alike < FEW or alike < FEW_SHARE * len(places)
            if doubtful and DEVIATES[0] <= apart <= DEVIATES[1]:
                factors[place] = usual / scale
    return factors


def _alike(scales: Floats, one: float) -> NDArray[np.bool_]:
    return np.maximum(scales / one, one / scales) <= ALIKE
