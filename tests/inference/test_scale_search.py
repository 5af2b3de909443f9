"""The search for a scale: with a detector that sees red cells only at about the right size."""

import numpy as np
import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from bloodfilm.core.pixels import RED_CELL_UM
from bloodfilm.imaging.canonical import CanonicalView, view_of
from bloodfilm.imaging.corrections import Corrections
from bloodfilm.imaging.scale import Measurement
from bloodfilm.inference.scale_search import search_scale

WHITE = (230.0, 230.0, 230.0)


class Film:
    """Red cells on a lattice, drawn, and a detector that knows where they are."""

    def __init__(self, size: tuple[int, int], cell: tuple[float, float], reach: float = 2.2):
        self.cell, self.reach, self.scales = cell, reach, []
        self.image = np.full((size[1], size[0], 3), 230, np.uint8)
        self.boxes = [
            (x, y, *cell)
            for x in np.arange(3, size[0] - cell[0], 1.5 * cell[0])
            for y in np.arange(3, size[1] - cell[1], 1.5 * cell[1])
        ]
        for number, (x, y, w, h) in enumerate(self.boxes):
            # A mark of its own in each cell tells where in the image a window lies.
            self.image[int(y) : int(y + h), int(x) : int(x + w)] = 150 - number % 90

    def detect(self, part: np.ndarray, view: CanonicalView) -> np.ndarray:
        expected = RED_CELL_UM / np.array([view.um_per_px_x, view.um_per_px_y])
        self.scales.append(float(np.sqrt(expected.prod())))
        if abs(np.log(np.sqrt(np.prod(self.cell)) / self.scales[-1])) > np.log(self.reach):
            return np.zeros((0, 4))
        return np.array([b for b in self._in(part)]).reshape(-1, 4)

    def _in(self, part: np.ndarray):
        height, width = self.image.shape[:2]
        for y in range(height - part.shape[0] + 1):
            for x in range(width - part.shape[1] + 1):
                probe = self.image[y : y + part.shape[0], x : x + part.shape[1]]
                if probe[0, 0, 0] == part[0, 0, 0] and np.array_equal(probe, part):
                    for bx, by, bw, bh in self.boxes:
                        right, bottom = x + part.shape[1], y + part.shape[0]
                        if x < bx + bw and bx < right and y < by + bh and by < bottom:
                            yield bx - x, by - y, bw, bh
                    return


def silent(image: np.ndarray) -> Measurement:
    height, width = image.shape[:2]
    none = np.zeros((0, 3))
    return Measurement(
        width, height, Corrections(WHITE), 0, 0.0, 1.0, 0.0, 0.0, none, np.zeros((0, 2))
    )


@pytest.mark.parametrize("cell", [13, 30, 55, 90])
def test_the_size_of_the_cells_is_found(cell: int) -> None:
    film = Film((500, 400), (cell, cell))
    found = search_scale(film.image, silent(film.image), film.detect)
    assert found.ruler == "detector"
    assert found.is_measurable
    assert found.diameter == pytest.approx(cell, rel=0.02)
    view = view_of(found)
    assert view.scale_source == "measured"
    assert view.um_per_px_y == pytest.approx(RED_CELL_UM / cell, rel=0.02)
    assert codes(view.issues) == {issue_codes.FEW_RED_CELLS}
    assert "detector" in view.issues[0].message


def test_only_a_large_aspect_ratio_of_detected_boxes_is_kept() -> None:
    film = Film((400, 500), (26, 46))
    found = search_scale(film.image, silent(film.image), film.detect)
    assert found.pixel_aspect_ratio == pytest.approx(26 / 46, rel=0.02)
    film = Film((400, 400), (36, 40))
    found = search_scale(film.image, silent(film.image), film.detect)
    assert found.pixel_aspect_ratio == pytest.approx(1, abs=1e-6)
    assert found.diameter == pytest.approx(np.sqrt(36 * 40), rel=0.02)


def test_without_red_cells_nothing_changes_and_the_view_says_so() -> None:
    film = Film((400, 300), (30, 30))
    measurement = silent(film.image)
    found = search_scale(film.image, measurement, lambda part, view: np.zeros((0, 4)))
    assert found is measurement
    view = view_of(found)
    assert (view.scale_source, view.confidence) == ("assumed", 0)
    assert issue_codes.SCALE_ASSUMED in codes(view.issues)


def test_boxes_that_grow_with_the_scale_are_no_red_cells() -> None:
    film = Film((600, 500), (30, 30))

    def fooled(part: np.ndarray, view: CanonicalView) -> np.ndarray:
        # Something is found at any scale, always too large for a red cell: dust, texture.
        side = 1.4 * RED_CELL_UM / view.um_per_px_x
        steps = np.arange(side, min(part.shape[:2]) - 2 * side, 1.1 * side)
        return np.array([(x, y, side, side) for x in steps for y in steps]).reshape(-1, 4)

    measurement = silent(film.image)
    assert search_scale(film.image, measurement, fooled) is measurement
