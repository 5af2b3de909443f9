"""Planning what to mark: the budget is kept, and the planners look where they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.active_learning import RegionScores, keep_marked, plan_regions
from bloodfilm.active_learning.planning import PLANNERS
from bloodfilm.active_learning.region_scores import dark_blobs, from_detections
from bloodfilm.core import Cell, Field, Region
from bloodfilm.core.errors import ConfigError


@given(st.integers(20, 900), st.integers(20, 900), st.floats(0.01, 0.99), st.sampled_from(PLANNERS))
def test_every_plan_keeps_its_budget_inside_the_field(
    width: int, height: int, share: float, by: str
) -> None:
    points = np.random.default_rng(0).random((5, 2)) * [width, height]
    item = from_detections(width, height, np.c_[points, points * 0], [0.5] * 5, [0] * 5)
    (region,) = plan_regions([item], [share], by)  # type: ignore[arg-type]
    corners = np.array(region.polygons).reshape(-1, 2)
    assert corners.min() >= 0
    assert (corners.max(axis=0) <= np.array([width, height]) + 1e-6).all()
    assert np.prod(np.ptp(corners, axis=0)) == pytest.approx(share * width * height)


def test_planners_choose_cells_or_uncertain_cells() -> None:
    boxes = [[80, 80, 10, 10], [84, 84, 10, 10], [10, 10, 10, 10]]
    item = from_detections(100, 100, boxes, [1.0, 0.98, 0.5], [0, 0, 1])
    (cells,) = plan_regions([item], [0.1], "cells")
    assert cells.contains([[85, 85], [89, 89]]).all()
    (uncertain,) = plan_regions([item], [0.1], "uncertainty")
    assert uncertain.contains([[15, 15]]).all()


def test_uncertainty_of_a_frequent_group_counts_less() -> None:
    common = from_detections(100, 100, [[10, 10, 4, 4]], [0.5], [0])
    both = from_detections(100, 100, [[10, 10, 4, 4], [80, 80, 4, 4]], [0.5, 0.52], [0, 1])
    *_, last = plan_regions([common] * 5 + [both], [0.1] * 6, "uncertainty")
    assert last.contains([[82, 82]]).all()


def test_many_uncertain_red_cells_do_not_outweigh_a_rare_uncertain_cell() -> None:
    crowd = [[5.0 + 3 * i, 5, 4, 4] for i in range(8)]
    sure = [[2.0 * i, 60, 4, 4] for i in range(40)]
    boxes = [*crowd, *sure, [80, 80, 10, 10]]
    item = from_detections(100, 100, boxes, [0.5] * 8 + [1.0] * 40 + [0.5], [0] * 48 + [1])
    (region,) = plan_regions([item], [0.1], "uncertainty")
    assert region.contains([[85, 85]]).all()


def test_plans_depend_on_the_seed_alone() -> None:
    items = [RegionScores(100, 80)] * 3
    one, again = (plan_regions(items, [0.1] * 3, "random", 1) for _ in range(2))
    assert one == again
    assert one != plan_regions(items, [0.1] * 3, "random", 2)
    assert one[0] != one[1]


def test_bad_budgets_and_planners_are_named() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        plan_regions([RegionScores(9, 9)], [1.5], "random")


def test_chance_marks_the_edges_of_a_field_as_often_as_its_middle():
    regions = plan_regions([RegionScores(100, 80)] * 4000, [0.1] * 4000, "random", 3)
    points = np.array([(1, 40), (99, 40), (50, 1), (50, 79), (50, 40)], dtype=float)
    often = np.mean([r.contains(points) for r in regions], axis=0)
    # The middle of an edge, across it, against the middle of the field.
    assert often[:4] / often[4] == pytest.approx(np.ones(4), abs=0.15)
    areas = [r.area(100, 80) for r in regions]
    assert areas == pytest.approx([800] * len(areas), rel=0.06)
    with pytest.raises(ConfigError, match="guess"):
        plan_regions([RegionScores(9, 9)], [0.5], "guess")  # type: ignore[arg-type]


def test_a_cell_is_marked_by_its_centre() -> None:
    cells = (Cell((0, 0, 30, 30), "white cell"), Cell((5, 5, 8, 8), "red cell"), Cell(None, "cell"))
    item = Field("a.png", 100, 100, cells)  # type: ignore[arg-type]
    kept = keep_marked(item, Region.rect(0, 0, 10, 10))
    assert kept.cells == cells[1:2]
    assert keep_marked(item, Region.rect(40, 40, 20, 20)).cells == cells[2:]
    assert kept.region == Region.rect(0, 0, 10, 10)


@pytest.mark.parametrize("look", ["pbc-like", "bccd-like", "raabin-like", "lld40x-like"])
def test_dark_blobs_are_the_nuclei(look: str) -> None:
    from bloodfilm.synthetic import render_field

    image, truth = render_field(look, seed=3)
    found = dark_blobs(image)
    boxes = np.array([s.box for s in truth.white])
    assert len(found.points)
    inside = (found.points[:, None] >= boxes[:, :2]) & (
        found.points[:, None] <= boxes[:, :2] + boxes[:, 2:]
    )
    assert inside.all(axis=2).any(axis=1).mean() > 0.7
    assert inside.all(axis=2).any(axis=0).mean() > 0.7


def test_an_empty_field_has_no_nuclei() -> None:
    assert not len(dark_blobs(np.full((50, 60, 3), 240, np.uint8)).points)
