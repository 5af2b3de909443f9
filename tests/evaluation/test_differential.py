import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bloodfilm.core.issue_codes import CUT_BY_EDGE, NOT_A_FILM, SCALE_ASSUMED, issue
from bloodfilm.core.results import ModelInfo
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Node, Taxonomy
from bloodfilm.evaluation.differential import Proportion, differential
from bloodfilm.evaluation.intervals import wilson_interval as wilson

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
    cells += [cell("red cell", object_type="red cell"), cell("platelet", object_type="platelet")]
    counted = differential(cells)
    assert (counted.nucleated, counted.white, counted.erythroblasts) == (13, 10, 2)
    assert counted.erythroblasts_per_100 == pytest.approx(20.0)
    assert counted.unplaced == 1
    assert counted.other == {"platelet": 1, "red cell": 1}
    assert counted.blasts == Proportion.of(4, 10)
    rows = {row.name: row for row in counted.rows}
    assert rows["lymphocyte"].proportion.share == pytest.approx(0.3)
    assert rows["neutrophil"].undecided == 2 and not rows["neutrophil"].leaf
    assert rows["white cell"].proportion.count == 10 and rows["white cell"].undecided == 1
    assert "erythroblast" not in rows and "eosinophil" not in rows


def test_undecided_cells_that_leave_room_for_a_blast(cell):
    counted = differential([cell("white cell"), cell("neutrophil"), cell("lymphocyte lineage")])
    assert counted.undecided == 3
    assert counted.possible_blasts == 2  # no neutrophil is a blast


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
    assert sum(row.undecided for row in counted.rows) == counted.white == 5


def test_order_of_cells_does_not_matter(cell):
    cells = [
        cell("monocyte"),
        cell("lymphocyte", issues=(issue(CUT_BY_EDGE, "cut"),)),
        cell("basophil"),
    ]
    counts = [differential(order) for order in itertools.permutations(cells)]
    assert all(c == counts[0] for c in counts)
    assert counts[0].with_issues == 1


def test_no_cells():
    counted = differential([])
    assert counted.rows == () and counted.erythroblasts_per_100 is None


def test_a_tree_without_white_cells_counts_from_its_root(cell):
    tree = Taxonomy((Node("thing"), Node("a", "thing"), Node("b", "thing")))
    cells = [cell("a", object_type="thing"), cell("b", object_type="thing")]
    counted = differential(cells, ModelInfo({}, taxonomy=tree, classified="thing"))
    assert [row.name for row in counted.rows] == ["thing", "a", "b"]


def test_what_the_model_cannot_name_is_not_counted(cell):
    cells = [cell("monocyte"), cell("lymphocyte")]
    counted = differential(cells, ModelInfo({}, untrained_classes=("monoblast", "lymphoblast")))
    rows = {row.name: row for row in counted.rows}
    assert rows["monoblast"].proportion is None and rows["monoblast"].depth == 2
    assert rows["monocyte lineage"].proportion == Proportion.of(1, 2)
    assert rows["monocyte lineage"].untrained == ("monoblast",)
    assert rows["monocyte"].untrained == () and "myeloblast" not in rows
    # Other blasts can be named: none was met, but some could not have been.
    assert counted.blasts == Proportion.of(0, 2)
    assert counted.untrained_blasts == ("monoblast", "lymphoblast")


def test_without_any_trained_blast_there_is_no_count_of_blasts(cell):
    leaves = tuple(n for n in DEFAULT_TAXONOMY.leaves if n in DEFAULT_TAXONOMY.blasts)
    counted = differential(
        [cell("lymphocyte")], ModelInfo({}, untrained_classes=(*leaves, "erythroblast"))
    )
    assert counted.blasts is None and counted.erythroblasts is None
    assert counted.erythroblasts_per_100 is None
    assert counted.to_json()["blasts"] is None
    # A cell that carries such a name all the same (by an override, another model) is counted.
    named = differential([cell("monoblast")], ModelInfo({}, untrained_classes=leaves))
    assert named.blasts == Proportion.of(1, 1)


def test_a_run_brings_its_own_vocabulary(run, field):
    made = run([field("a.png", 1), field("b.png", 2)])
    counted = differential(made)
    assert counted.nucleated == sum(
        c.object_type == "nucleated cell" for f in made for c in f.cells
    )
    missing = {row.name for row in counted.rows if row.proportion is None}
    assert missing == set(made.model.untrained_classes)
    assert differential(made.fields[0]).nucleated < counted.nucleated


def test_differential_excludes_and_reports_fields_without_scale_or_film(field, run):
    plain = field("a.png", seed=1)
    issues = (issue(SCALE_ASSUMED, "no scale"), issue(NOT_A_FILM, "no film"))
    others = [replace(field(f"{n}.png", seed=2), issues=(found,)) for n, found in enumerate(issues)]
    whole, alone = run([plain, *others]), run([plain])
    counted = differential(whole)
    assert counted.rows == differential(alone).rows
    assert counted.nucleated == differential(alone).nucleated
    assert counted.fields_left_out == 2
    nucleated = [c for o in others for c in o.cells if c.object_type == "nucleated cell"]
    assert counted.cells_left_out == len(nucleated) > 0
    assert differential(alone).fields_left_out == 0


def test_blasts_are_one_group_with_its_parts(cell):
    labels = ["blast"] * 2 + ["monoblast"] * 3 + ["myeloblast"] + ["lymphocyte"] * 4
    counted = differential([cell(label) for label in labels])
    assert counted.white == 10 and counted.blasts == Proportion.of(6, 10)
    assert counted.blasts_by_kind == {"myeloblast": 1, "monoblast": 3, "blast": 2}
    assert list(counted.blasts_by_kind) == ["myeloblast", "monoblast", "blast"]
    rows = {row.name: row for row in counted.rows}
    assert rows["blast"].depth == 1 and rows["blast"].blast
    assert rows["blast"].proportion == Proportion.of(2, 10)
    assert sum(r.proportion.count for r in counted.rows if r.leaf) == 10
    assert counted.undecided == 0 and counted.possible_blasts == 0
    assert counted.to_json()["blasts_by_kind"]["blast"] == 2


def test_what_is_no_white_cell_is_counted_beside_the_differential(cell):
    labels = ["lymphocyte"] * 4 + ["smudge cell"] * 2 + ["other object", "giant platelet"]
    counted = differential([cell(label) for label in labels])
    assert (counted.nucleated, counted.white, counted.unplaced, counted.undecided) == (4, 4, 0, 0)
    assert counted.artefacts == {"other object": 1, "smudge cell": 2, "giant platelet": 1}
    assert counted.smudge_cells_per_100 == pytest.approx(50.0)
    assert not {"smudge cell", "other object"} & {row.name for row in counted.rows}
    assert differential([cell("smudge cell")]).smudge_cells_per_100 is None
