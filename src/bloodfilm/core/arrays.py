"""Names for the array types that every package uses."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(H, W, 3), RGB."""
Pixels = NDArray[np.uint8]
"""Bytes of pictures in other shapes: grey, or crops (n, H, W, 3)."""
BoxArray = NDArray[np.float64]
"""(n, 4): x, y of the top left corner, width, height, in pixels; right and bottom are exclusive."""
Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Json = dict[str, Any]
"""A JSON object."""
JsonView = Mapping[str, Any]
"""A JSON object that is only read."""
Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
FloatColour = tuple[float, float, float]
