"""Fields that share a strip too narrow for keypoints are found by their edges."""

from collections import Counter

import cv2
import numpy as np
import pytest

from bloodfilm.cases.edges import edge_candidates, field_edges
from bloodfilm.cases.landmarks import FieldDetail
from bloodfilm.cases.pairs import EDGE_DEVIATIONS, verify_pair
from fixtures.drawn_case import SIZE, UM, Shot, assembled, photograph, physical, whole_cells

UM_PER_PX = 0.4
SIDES = 200, 180
"""Width and height of a field, px."""


def glass(seed, height=700, width=700):
    """Return the detail of much glass, with blobs as large as cells."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def field_at(picture, x, y):
    part = picture[y : y + SIDES[1], x : x + SIDES[0]].copy()
    return FieldDetail(part, np.full_like(part, 255))


@pytest.mark.parametrize(
    ("x", "y"),
    [(188, 0), (190, 25), (188, -40), (0, 168), (30, 170), (-35, 168), (-188, 12), (20, -169)],
)
def test_a_strip_of_four_to_five_micrometres_is_found_on_any_side(x, y):
    picture = glass(1)
    places = [(250, 250), (250 + x, 250 + y)]
    details = [field_at(picture, *place) for place in places]
    edges = [field_edges(d, UM_PER_PX) for d in details]
    found = edge_candidates(edges, [0, 1])
    assert found
    best = max(found, key=lambda c: c.votes)
    assert (best.first, best.second) == (0, 1)
    true = np.array([[1, 0, -x], [0, 1, -y]]) * [1, 1, UM_PER_PX]
    assert best.matrix == pytest.approx(true, abs=1.0)
    pair = verify_pair(best, *details, UM_PER_PX, EDGE_DEVIATIONS)
    assert pair is not None
    assert pair.matrix == pytest.approx(true, abs=0.4)


def test_other_glass_is_no_candidate_that_is_verified():
    details = [field_at(glass(seed), 0, 0) for seed in range(10, 30)]
    edges = [field_edges(d, UM_PER_PX) for d in details]
    for found in edge_candidates(edges, range(len(edges))):
        one, two = details[found.first], details[found.second]
        assert verify_pair(found, one, two, UM_PER_PX, EDGE_DEVIATIONS) is None


def test_one_cell_on_empty_glass_is_no_evidence():
    """It looks like any other cell on empty glass."""
    empty = np.full((SIDES[1], SIDES[0]), 128, np.uint8)
    one, two = empty.copy(), empty.copy()
    cv2.circle(one, (194, 90), 12, 230, -1)
    cv2.circle(two, (4, 70), 12, 230, -1)
    details = [FieldDetail(p, np.full_like(p, 255)) for p in (one, two)]
    edges = [field_edges(d, UM_PER_PX) for d in details]
    assert edge_candidates(edges, [0, 1]) == []


def test_fields_of_one_part_and_round_fields_are_not_compared():
    picture = glass(1)
    details = [field_at(picture, 250, 250), field_at(picture, 438, 250)]
    edges = [field_edges(d, UM_PER_PX) for d in details]
    assert edge_candidates(edges, [3, 3]) == []
    assert edge_candidates([edges[0], None], [0, 1]) == []
    details[0].mask[:40, :40] = 0
    assert field_edges(details[0], UM_PER_PX) is None


def test_cells_of_fields_with_four_micrometres_in_common_count_once():
    """Cells that are whole in one field and cut by the left edge of the next would count twice."""
    width, strip = SIZE[0] * UM, 4.0
    shots = [Shot(60 + (width - strip) * k, 60 + 2 * (k % 2)) for k in range(4)]
    fields = photograph(shots, glass=(60 + 4 * width, 120), whites=150, seed=9)
    case = assembled(fields)
    assert {p.part for p in case.placements} == {0}
    found = Counter(physical(fields, case))
    assert max(found.values()) == 1
    assert whole_cells(fields) <= set(found)


def test_of_many_fields_each_is_compared_with_the_next_ones():
    """What is compared is bounded; few fields are all compared with each other."""
    picture = glass(2, 300, 500)
    pair = [field_at(picture, 0, 60), field_at(picture, 189, 60)]
    flat = FieldDetail(np.full_like(pair[0].detail, 128), pair[0].mask)

    def found(count, one, two):
        details = [flat] * count
        details[one], details[two] = pair
        edges = [field_edges(d, UM_PER_PX) for d in details]
        return {(c.first, c.second) for c in edge_candidates(edges, range(count))}

    assert found(20, 0, 19) == {(0, 19)}
    assert found(700, 400, 402) == {(400, 402)}
    assert found(700, 0, 600) == set()
