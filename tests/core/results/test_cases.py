"""Cases: plain data and back, in result.json, their cells in the sharpest view."""

import json
from dataclasses import replace

import pytest

from bloodfilm import differential
from bloodfilm.core import issue_codes
from bloodfilm.core.errors import DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.results import (
    AnalysisRun,
    AttributeResult,
    CaseCell,
    CaseResult,
    CellResult,
    CellView,
    FieldPlacement,
    FieldResult,
    ImageRef,
    StoredFields,
    json_line,
    with_ids,
)
from fixtures.made_up_results import make_model, make_run, make_view

CUT = issue(issue_codes.CUT_BY_EDGE, "cut")
COPY = issue(issue_codes.DUPLICATE_IMAGE, "a copy", path="a.png")


def a_field(name, labels):
    cells = [
        CellResult(
            (40.0 * i, 9.0, 30.0, 30.0),
            0.9,
            "nucleated cell",
            label,
            0.8,
            attributes={"cell_size": AttributeResult("large", 0.7, {"large": 0.7, "small": 0.3})},
        )
        for i, label in enumerate(labels)
    ]
    image = ImageRef(name, 640, 480, name[0] * 64)
    return FieldResult(image, make_view(640, 480), with_ids(cells, image.sha256))


@pytest.fixture
def run():
    """Field 1 shows the lymphocyte of field 0 again, more sharply; field 2 is a copy."""
    fields = (
        a_field("a.png", ["lymphocyte", "monocyte"]),
        a_field("b.png", ["monocyte", "basophil"]),
        a_field("c.png", ["eosinophil"]),
    )
    ids = [[c.id for c in f.cells] for f in fields]
    matrix = ((0.1, 0.0, 12.5), (0.0, 0.1, -3.25))
    placements = (
        FieldPlacement(0, part=0, matrix=((0.1, 0.0, 0.0), (0.0, 0.1, 0.0))),
        FieldPlacement(1, part=0, matrix=matrix),
        FieldPlacement(2, counted=False, issues=(COPY,)),
    )
    cells = (
        CaseCell((CellView(1, ids[1][0]), CellView(0, ids[0][0]))),
        CaseCell((CellView(0, ids[0][1]),), counted=False, issues=(CUT,)),
        CaseCell((CellView(1, ids[1][1]),)),
    )
    made = make_run(fields)
    case = CaseResult(
        "patient 7",
        fields,
        placements,
        cells,
        {"red cell": 40},
        ("d.png",),
        (issue(issue_codes.UNCODED, "look"),),
        made.model,
    )
    return replace(made, cases=(case,))


def test_a_case_becomes_plain_data_and_comes_back(run):
    (case,) = run.cases
    data = json.loads(json_line(case.to_json()))
    again = CaseResult.from_json(data, run.fields, run.model)
    assert again == case and again.to_json() == data


def test_a_case_comes_back_with_its_run_and_its_fields_stay_on_disk(run, tmp_path):
    path = run.write(tmp_path)
    again = AnalysisRun.read(path)
    (case,) = again.cases
    assert isinstance(case.fields, StoredFields) and len(case.fields) == 3
    assert case.to_json() == run.cases[0].to_json()
    assert [c.label for c in case.counted_cells()] == ["monocyte", "basophil"]
    before = path.read_bytes()
    again.write(path)
    assert path.read_bytes() == before
    path.write_text(json.dumps(json.loads(before), indent=1), "utf-8")
    assert AnalysisRun.read(path).cases[0].to_json() == case.to_json()


def test_a_case_tells_what_counts(run):
    (case,) = run.cases
    assert [p.number for p in case.set_aside] == [2]
    assert case.uncounted == {"cut-by-edge": 1}
    count = differential(case)
    assert (count.white, count.other) == (2, {"red cell": 40})
    assert (count.fields_left_out, count.cells_left_out) == (1, 1)
    assert [(f.path, c.label) for f, _, c in case.views()] == [
        ("b.png", "monocyte"),
        ("a.png", "monocyte"),
        ("b.png", "basophil"),
    ]


def test_a_data_frame_has_the_counted_cells(run):
    pytest.importorskip("pandas")
    frame = run.cases[0].to_dataframe()
    assert list(frame["image"]) == ["b.png", "b.png"] and list(frame["class"]) == [
        "monocyte",
        "basophil",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fields": [{"field": 0}]}, "KeyError"),
        ({"fields": []}, "a cell is of no field"),
        ({"cells": [{"views": [], "counted": True, "issues": []}]}, "without a view"),
        (
            {"cells": [{"views": [[9, "ab"]], "counted": True, "issues": []}]},
            "no field of the case",
        ),
        ({"other": {"red cell": "many"}}, "other: 'many', expected a finite number"),
        ({"other": {"wombat": 2}}, "other: the model has no object type 'wombat'"),
    ],
)
def test_a_damaged_case_is_refused(run, tmp_path, change, says):
    data = {**run.cases[0].to_json(), **change}
    with pytest.raises(DataError, match=says):
        CaseResult.from_json(data, run.fields, run.model)


def test_a_case_with_a_field_that_is_not_there_is_refused(run, tmp_path):
    path = run.write(tmp_path)
    text = path.read_text("utf-8").replace('"fields": [{"field": 0,', '"fields": [{"field": 5,')
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"result\.json: .*names a field that is not there"):
        AnalysisRun.read(path)


def test_a_cell_that_its_field_does_not_hold_is_named(run):
    (case,) = run.cases
    lost = replace(case, cells=(CaseCell((CellView(0, "0123"),)),))
    with pytest.raises(DataError, match=r"patient 7: a\.png has no cell 0123"):
        list(lost.counted_cells())


def test_a_run_of_version_2_has_no_cases(run, tmp_path):
    path = replace(run, cases=()).write(tmp_path)
    lines = path.read_text("utf-8").replace('"version": 3', '"version": 2').splitlines()
    assert lines[-3:] == ['"failures": [],', '"cases": []', "}"]
    path.write_text("\n".join([*lines[:-3], '"failures": []', "}", ""]), "utf-8")
    again = AnalysisRun.read(path)
    assert again.cases == () and isinstance(again.fields, StoredFields)
    assert make_model() == again.model
