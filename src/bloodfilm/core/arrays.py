"""Names for the array types that every package uses."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3), RGB."""
BoxArray = NDArray[np.float64]
"""(n, 4): x, y of the top left corner, width, height, in pixels; right and bottom are exclusive."""
Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Json = dict[str, Any]
"""A JSON object."""
