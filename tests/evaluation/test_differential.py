import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.taxonomy import Node, Taxonomy
from bloodfilm.evaluation.differential import Proportion, differential, wilson

# Worked by hand with z = 1.959963984540054 from Wilson's formula, to four decimals; 0.95 of
# the last decimal place is rounding.
BY_HAND = [
    (0, 10, 0.0, 0.2775),
    (10, 10, 0.7225, 1.0),
    (5, 10, 0.2366, 0.7634),
    (1, 100, 0.0018, 0.0545),
    (20, 100, 0.1334, 0.2888),
    (81, 263, 0.2553, 0.3662),
]


@pytest.mark.parametrize(("count", "total", "low", "high"), BY_HAND)
def test_wilson_values(count, total, low, high):
    assert wilson(count, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)
    assert Proportion.of(0, 0).share == 0


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(pair):
    count, total = pair
    low, high = wilson(count, total)
    assert 0 <= low <= count / total <= high <= 1
    mirrored = wilson(total - count, total)
    assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


def test_differential_leaves_erythroblasts_out(cell):
    labels = ["lymphocyte"] * 3 + ["monoblast"] * 4 + ["neutrophil"] * 2 + ["white cell"]
    labels += ["erythroblast"] * 2 + ["nucleated cell"]
    cells = [cell(label) for label in labels]
    cells += [cell("red cell", kind="red cell"), cell("platelet", kind="platelet")]
    counted = differential(cells)
    assert (counted.nucleated, counted.white, counted.erythroblasts) == (13, 10, 2)
    assert counted.erythroblasts_per_100 == pytest.approx(20.0)
    assert counted.unplaced == 1
    assert counted.other == {"platelet": 1, "red cell": 1}
    assert counted.blasts == Proportion.of(4, 10)
    rows = {row.name: row for row in counted.rows}
    assert rows["lymphocyte"].share.share == pytest.approx(0.3)
    assert rows["neutrophil"].stopped == 2 and not rows["neutrophil"].leaf
    assert rows["white cell"].share.count == 10 and rows["white cell"].stopped == 1
    assert "erythroblast" not in rows and "eosinophil" not in rows


def test_undecided_cells_that_leave_room_for_a_blast(cell):
    counted = differential([cell("white cell"), cell("neutrophil"), cell("lymphocyte lineage")])
    assert counted.undecided == 3
    assert counted.maybe_blasts == 2  # no neutrophil is a blast


def test_rows_come_in_tree_order_and_add_up(cell):
    labels = ["monocyte", "band neutrophil", "eosinophil", "granulocyte lineage", "myelocyte"]
    counted = differential([cell(label) for label in labels])
    names = [row.name for row in counted.rows]
    assert names == [
        "white cell",
        "granulocyte lineage",
        "immature granulocyte",
        "myelocyte",
        "neutrophil",
        "band neutrophil",
        "eosinophil",
        "monocyte lineage",
        "monocyte",
    ]
    assert sum(row.stopped for row in counted.rows) == counted.white == 5


def test_order_of_cells_does_not_matter(cell):
    cells = [cell("monocyte"), cell("lymphocyte", flags=("cut by the edge",)), cell("basophil")]
    counts = [differential(order) for order in itertools.permutations(cells)]
    assert all(c == counts[0] for c in counts)
    assert counts[0].flagged == 1


def test_no_cells():
    counted = differential([])
    assert counted.rows == () and counted.erythroblasts_per_100 is None


def test_a_tree_without_white_cells_counts_from_its_root(cell):
    tree = Taxonomy((Node("thing"), Node("a", "thing"), Node("b", "thing")))
    counted = differential(
        [cell("a", kind="thing", probabilities={"a": 1.0}), cell("b", probabilities={"b": 1.0})],
        tree,
    )
    assert [row.name for row in counted.rows] == ["thing", "a", "b"]
