"""Where a classification comes from: the cell is hidden place by place and classified again.

Occlusion (Zeiler and Fergus, ECCV 2014) needs no gradients, so any ONNX graph can be asked. A map
shows what the probability of a cell's name depends on, not why, and nothing of places that matter
only together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image
from bloodfilm.core.boxes import centres
from bloodfilm.core.results import CellResult, FieldResult
from bloodfilm.imaging.canonical import CanonicalView
from bloodfilm.inference.analyzer import Analyzer

GRID = 8
"""Places along each side of the classifier's window."""
HIDDEN = 2
"""Side of the square that is hidden, in places: single ones would change little."""


def occlusion_maps(
    analyzer: Analyzer, image: Image, result: FieldResult, cells: Sequence[CellResult]
) -> dict[str, list[int]]:
    """Return, by cell id, how much the probability of its name falls where it is hidden.

    Args:
        analyzer: of the bundle that named the cells.
        image: the field's pixels (H, W, 3).
        result: of the field.
        cells: of it, that the classifier has named.

    Returns:
        Per cell `GRID` x `GRID` percentage points, row by row; negative where the probability
        rises.
    """
    view = CanonicalView.from_record(result.view)
    crops = analyzer.classifier.crops(view, image, centres([cell.box for cell in cells]))
    return {
        cell.id: _map(analyzer, crop, cell.label) for cell, crop in zip(cells, crops, strict=True)
    }


def _map(analyzer: Analyzer, crop: Image, label: str) -> list[int]:
    # What is brightest in the window is the glass: a patch of it looks like nothing.
    glass = np.percentile(crop.reshape(-1, 3), 95, axis=0).astype(np.uint8)
    variants = np.stack([crop, *(_hidden(crop, place, glass) for place in range(GRID * GRID))])
    found = [analyzer.probability(label, reading) for reading in analyzer.classify(variants)]
    return [round(100 * (found[0] - p)) for p in found[1:]]


def _hidden(crop: Image, place: int, glass: NDArray[np.uint8]) -> Image:
    """Return the crop with a square around one place of the grid painted as glass."""
    side = len(crop)
    step = side / GRID
    middle_y, middle_x = ((n + 0.5) * step for n in divmod(place, GRID))
    half = HIDDEN * step / 2
    top, left = (max(0, round(m - half)) for m in (middle_y, middle_x))
    bottom, right = (min(side, round(m + half)) for m in (middle_y, middle_x))
    out = crop.copy()
    out[top:bottom, left:right] = glass
    return out
