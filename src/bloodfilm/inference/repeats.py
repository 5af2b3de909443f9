"""Images that occur more than once in a run: marked, with distinct cell identifiers."""

from collections import Counter
from dataclasses import replace

import numpy as np

from bloodfilm.core import issue_codes
from bloodfilm.core.arrays import Floats
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.results import FieldFailure, FieldOutcome, FieldResult, with_ids
from bloodfilm.imaging.picture_key import KnownAppearances, Symmetry

SAME_CELLS = 0.75
"""Share of cells that must lie in the same places for pictures that look alike to be one."""
_HOW = {
    "file": "identical to {first}",
    "pixels": "holds the same pixels as {first}",
    "appearance": "shows the same picture as {first}, compressed or resized anew",
    "symmetry": "shows the same picture as {first}, turned or mirrored",
}
"""By what a repeat is recognised: equal bytes, equal pixels, or how it looks."""
COPY_SHARPNESS = 1.3
"""A copy is as sharp as its original, within this factor; what is not is another focal plane."""


class RepeatedImages:
    """Finds results of images that were analysed before in the same run.

    An image is a repeat if a former one has the same bytes, the same decoded pixels (another file
    format), or the same appearance (compressed or resized anew; see `imaging.picture_key`) with the
    same cells in the same places, also turned by a right angle or mirrored, and the same sharpness.

    Args:
        classified: the object type whose cells are compared.
    """

    def __init__(self, classified: str) -> None:
        self._classified = classified
        self._paths: list[str] = []
        self._cells: list[Floats] = []
        self._sharpness: list[float | None] = []
        self._by_file: dict[str, int] = {}
        self._by_pixels: dict[str, int] = {}
        self._looks = KnownAppearances()
        self._met: Counter[str] = Counter()

    def add(self, result: FieldResult) -> tuple[str, str, Symmetry] | None:
        """Take note of a result; return what it repeats.

        Returns:
            path of the first of its kind, how it was recognised, how it is turned; `None` if the
            image is met for the first time.
        """
        image = result.image
        cells = self._places(result)
        number, how = self._by_file.get(image.sha256), "file"
        if number is None:
            number, how = self._by_pixels.get(image.pixels), "pixels"
        symmetry = Symmetry()
        if number is None:
            for other, turned in self._looks.find(image.appearance, image.width, image.height):
                if same_sharpness(self._sharpness[other], result.view.sharpness) and same_places(
                    turned.boxes(self._cells[other]), cells
                ):
                    number, symmetry = other, turned
                    break
            how = "appearance" if symmetry.is_identity else "symmetry"
        own = len(self._paths)
        self._paths.append(result.path)
        self._cells.append(cells)
        self._sharpness.append(result.view.sharpness)
        if image.sha256:
            self._by_file.setdefault(image.sha256, own)
            self._met[image.sha256] += 1
        if image.pixels:
            self._by_pixels.setdefault(image.pixels, own)
        self._looks.add(image.appearance, image.width, image.height)
        return None if number is None else (self._paths[number], how, symmetry)

    def _places(self, result: FieldResult) -> Floats:
        return relative_boxes(result, self._classified)

    def check(self, result: FieldOutcome) -> FieldOutcome:
        """Take note of a result; return it with an issue and ids of its own if it is a repeat."""
        if isinstance(result, FieldFailure):
            return result
        known = self.add(result)
        if known is None:
            return result
        first, how, symmetry = known
        message = f"{_HOW[how].format(first=first)}: its cells do not count again"
        facts: dict[str, object] = {"path": first, "same": how}
        if not symmetry.is_identity:
            facts["symmetry"] = list(symmetry)
        repeat = issue(issue_codes.DUPLICATE_IMAGE, message, **facts)
        times, cells = self._met[result.image.sha256], result.cells
        if times > 1:  # ids are made of the file's bytes
            cells = with_ids(cells, f"{result.image.sha256} {times}")
        return replace(result, cells=cells, issues=(*result.issues, repeat))


def relative_boxes(result: FieldResult, classified: str) -> Floats:
    """Return the boxes (n, 4) of cells of a type, in widths and heights of the image."""
    boxes = [cell.box for cell in result.cells if cell.object_type == classified]
    width, height = result.image.width, result.image.height
    return np.array(boxes, dtype=np.float64).reshape(-1, 4) / (width, height, width, height)


def same_sharpness(one: float | None, two: float | None) -> bool:
    """Whether two pictures can be one, by their sharpness, as far as it is known."""
    if one is None or two is None:
        return True
    return max(one, two) <= COPY_SHARPNESS * max(min(one, two), 1e-6)


def same_places(one: Floats, two: Floats) -> bool:
    """Whether most boxes (n, 4) of each list have their centre in a box of the other."""
    return cells_in_place(one, two) >= SAME_CELLS * max(len(one), len(two))


def cells_in_place(one: Floats, two: Floats) -> int:
    """Return how many boxes (n, 4) of each list have their centre in a box of the other."""
    return min(_found(one, two), _found(two, one))


def _found(boxes: Floats, among: Floats) -> int:
    """Return how many boxes have their centre in a box of another list."""
    centres = boxes[:, None, :2] + boxes[:, None, 2:] / 2
    inside = (centres >= among[:, :2]) & (centres <= among[:, :2] + among[:, 2:])
    return int(np.count_nonzero(np.any(np.all(inside, axis=2), axis=1)))
