"""Which of several pictures of one place is read."""

import numpy as np
import pytest

from bloodfilm.cases.setting_aside import same_pictures
from bloodfilm.core import issue_codes
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import CellResult, FieldResult, ImageRef

LOOK = np.random.default_rng(1).bytes(32).hex()
CELLS = [(0.1, 0.2), (0.5, 0.6), (0.8, 0.3), (0.3, 0.8)]


def picture(name, sharpness, cells=CELLS, width=640, look=LOOK):
    """Return a result with cells at places in widths and heights of the picture."""
    height = width * 3 // 4
    view = ViewRecord(
        0.1, 0.1, "user", "user", 0.9, (240.0, 238.0, 235.0), 20, width, height, sharpness=sharpness
    )
    found = tuple(
        CellResult(
            (x * width, y * height, 0.1 * width, 0.1 * height), 0.9, "nucleated cell", "x", 1
        )
        for x, y in cells
    )
    return FieldResult(ImageRef(name, width, height, name, appearance=look), view, found)


def aside(*pictures):
    return {k: r.original for k, r in same_pictures(pictures, (), "nucleated cell").items()}


def test_a_blurred_plane_in_which_fewer_cells_are_found_is_set_aside_whatever_the_order():
    blurred, sharp = picture("a", 20.0, CELLS[:2]), picture("b", 90.0)
    assert aside(blurred, sharp) == {0: 1}
    assert aside(sharp, blurred) == {1: 0}
    found = same_pictures([blurred, sharp], (), "nucleated cell")[0]
    assert found.issue.code == issue_codes.SAME_PLACE
    assert found.issue.data["path"] == "b"
    assert found.matrix == pytest.approx(np.eye(2, 3))


def test_a_small_copy_is_not_read_for_its_sharp_edges():
    assert aside(picture("small", 110.0, CELLS[:3], width=448), picture("whole", 90.0)) == {0: 1}


def test_pictures_that_look_alike_and_show_other_cells_are_two():
    elsewhere = [(x + 0.15, y) for x, y in CELLS[:3]]
    assert aside(picture("a", 50.0), picture("b", 50.0, elsewhere)) == {}
    assert aside(picture("a", 50.0, []), picture("b", 50.0)) == {}
    other = np.random.default_rng(2).bytes(32).hex()
    assert aside(picture("a", 50.0), picture("b", 50.0, look=other)) == {}


@pytest.mark.parametrize(("signs", "same"), [(24, True), (40, False)])
def test_planes_may_differ_a_little_in_their_looks(signs, same):
    changed = f"{int(LOOK, 16) ^ ((1 << signs) - 1):064x}"
    assert aside(picture("a", 50.0), picture("b", 20.0, look=changed)) == ({1: 0} if same else {})


def test_what_is_set_aside_already_is_no_original():
    assert same_pictures([picture("a", 90.0), picture("b", 50.0)], {0}, "nucleated cell") == {}
