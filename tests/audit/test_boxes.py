"""Box checks on tables made by hand, against brute force, and at scale."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from audit.tables import codes, row, table
from bloodfilm.audit import boxes
from bloodfilm.core.boxes import iou
from bloodfilm.core.cell_table import IGNORE
from bloodfilm.duplicates.box_pairs import overlapping

CELL = (100.0, 100.0, 50.0, 80.0)


def one(*cells):
    return table((row(), list(cells)))


def test_sound_boxes_are_left_alone():
    t = one((CELL, "monoblast"), ((300, 300, 60, 90), "neutrophil"))
    for check in (boxes.zero_size, boxes.outside, boxes.slivers, boxes.repeats_and_conflicts):
        assert list(check(t)) == []


def test_zero_negative_and_infinite_sizes():
    bad = [(10, 10, 0, 5), (10, 10, -4, 5), (10, float("inf"), 4, 5)]
    t = one(*((b, "monoblast") for b in bad))
    assert codes(boxes.zero_size(t)) == [("zero-size", "error")] * 3


def test_outside_and_over_the_edge():
    t = one(((630, 10, 40, 40), "monoblast"), ((610, 10, 40, 40), "monoblast"))
    assert codes(boxes.outside(t)) == [("outside", "error"), ("outside", "warning")]


def test_a_field_of_unknown_size_is_not_judged():
    from dataclasses import replace

    t = table((replace(row(), width=None, height=None), [((630, 10, 400, 40), "monoblast")]))
    assert list(boxes.outside(t)) == []
    assert list(boxes.cut_by_the_edge(t)) == []


def test_slivers_are_of_nucleated_cells_only():
    t = one(((10, 10, 7, 60), "monoblast"), ((10, 10, 5, 5), "platelet"))
    found = list(boxes.slivers(t))
    assert codes(found) == [("sliver", "error")]
    assert found[0].annotations == ("1",)


def test_the_edge_is_three_pixels_wide():
    t = one(((2.9, 100, 50, 50), "monoblast"), ((3.1, 200, 50, 50), "monoblast"))
    assert [f.annotations for f in boxes.cut_by_the_edge(t)] == [("1",)]


def test_exact_repeat_and_same_cell_twice():
    moved = (105.0, 100.0, 50.0, 80.0)
    t = one((CELL, "monoblast"), (CELL, "monoblast"), (moved, "monoblast"))
    found = list(boxes.repeats_and_conflicts(t))
    assert [(f.code, f.annotations) for f in found] == [
        ("exact-repeat", ("1", "2")),
        ("same-cell-twice", ("1", "3")),
        ("same-cell-twice", ("2", "3")),
    ]


def test_a_repeat_with_other_attributes_says_so():
    t = one((CELL, "monoblast", {"cytoplasm": "scanty"}), (CELL, "monoblast"))
    assert "attributes differ" in next(iter(boxes.repeats_and_conflicts(t))).message


def test_one_box_with_two_classes():
    t = one((CELL, "monoblast"), (CELL, "neutrophil"))
    assert codes(boxes.repeats_and_conflicts(t)) == [("two-classes", "error")]


def test_a_class_and_its_parent_or_none_is_only_a_warning():
    for other in ("white cell", IGNORE):
        t = one((CELL, "monoblast"), (CELL, other))
        assert codes(boxes.repeats_and_conflicts(t)) == [("two-classes", "warning")]


def test_equal_boxes_in_different_fields_are_no_repeat():
    t = table((row("a.png"), [(CELL, "monoblast")]), (row("b.png"), [(CELL, "monoblast")]))
    assert list(boxes.repeats_and_conflicts(t)) == []


@given(
    st.lists(
        st.tuples(st.integers(0, 2), *[st.integers(0, 40)] * 2, *[st.integers(1, 30)] * 2),
        max_size=25,
    )
)
def test_pairs_are_those_of_brute_force(cells):
    fields = {k: [] for k in range(3)}
    for field, *box in cells:
        fields[field].append((tuple(map(float, box)), "monoblast"))
    t = table(*((row(f"{k}.png"), listed) for k, listed in fields.items()))
    first, second, values = overlapping(t.cells, 0.3)
    expected = []
    for k in range(3):
        here = t.cells_of(k)
        matrix = iou(t.box[here], t.box[here])
        for i in range(len(matrix)):
            for j in range(i + 1, len(matrix)):
                if matrix[i, j] > 0.3:
                    expected.append((here.start + i, here.start + j, matrix[i, j]))
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [e[:2] for e in expected]
    assert np.allclose(values, [e[2] for e in expected])
