"""Occlusion maps: what hides the cause of a name lowers its probability, what does not does not."""

from dataclasses import replace

import numpy as np
import pytest

from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import CellResult, FieldResult, ImageRef
from bloodfilm.inference.classifier import CellClassification
from bloodfilm.inference.occlusion import GRID, occlusion_maps

SIDE, DARK = 128, 60


class Reader:
    """Crops of the right size, as the view would cut them."""

    def crops(self, view, image, centres):
        return np.stack([image[:SIDE, :SIDE] for _ in centres])


class Analyzer:
    """Takes a crop for a lymphocyte as far as the dark spot is still to be seen."""

    def __init__(self, spot):
        self.spot, self.classifier = spot, Reader()

    def classify(self, crops):
        share = [float((crop[self.spot] <= DARK).mean()) for crop in crops]
        return [CellClassification("lymphocyte", p, {"lymphocyte": p}) for p in share]

    def probability(self, label, reading):
        return reading.probabilities[label]


@pytest.fixture
def result():
    cell = CellResult((40, 40, 48, 48), 0.9, "nucleated cell", "lymphocyte", 1.0, id="one")
    view = ViewRecord(0.175, 0.175, "measured", "measured", 1.0, (245.0,) * 3, 20, SIDE, SIDE)
    return FieldResult(ImageRef("a.png", SIDE, SIDE), view, (cell,))


def test_only_places_that_hide_the_cause_matter(result):
    image = np.full((SIDE, SIDE, 3), 230, np.uint8)
    spot = (slice(64, 80), slice(32, 48))  # place (4, 2) of the grid
    image[spot] = DARK
    grid = np.array(occlusion_maps(Analyzer(spot), image, result, list(result.cells))["one"])
    grid = grid.reshape(GRID, GRID)
    assert grid[4, 2] == 100
    rows, columns = np.nonzero(grid)
    assert rows.min() >= 3 and rows.max() <= 5 and columns.min() >= 1 and columns.max() <= 3


def test_every_cell_has_a_map_of_its_own(result):
    image = np.full((SIDE, SIDE, 3), 230, np.uint8)
    spot = (slice(0, 16), slice(0, 16))
    image[spot] = DARK
    cells = [replace(result.cells[0], id=name) for name in ("one", "two")]
    maps = occlusion_maps(Analyzer(spot), image, result, cells)
    assert list(maps) == ["one", "two"] and all(len(m) == GRID**2 for m in maps.values())
