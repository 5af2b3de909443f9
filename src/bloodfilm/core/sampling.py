"""Which of many are taken where some are enough."""

import numpy as np

from bloodfilm.core.arrays import Ints


def evenly_spread(count: int, most: int) -> Ints:
    """Return at most `most` of the places 0 to `count` - 1, evenly spread, first and last included.

    >>> evenly_spread(9, 3).tolist(), evenly_spread(2, 3).tolist(), evenly_spread(0, 3).tolist()
    ([0, 4, 8], [0, 1], [])
    """
    return np.linspace(0, count - 1, min(most, count)).round().astype(np.intp)
