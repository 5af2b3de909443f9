"""Comparing differentials of analyses, cases and tables."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.results import (
    CaseCell,
    CaseResult,
    CellResult,
    CellView,
    FieldPlacement,
    FieldResult,
    ImageRef,
    with_ids,
)
from bloodfilm.workflows.cases import write_cases
from bloodfilm.workflows.compare import CompareJob, compare, read_counts
from fixtures.made_up_results import make_run, make_view


def a_run(**cases):
    fields, made = [], []
    for name, counts in cases.items():
        labels = [label.replace("_", " ") for label, n in counts.items() for _ in range(n)]
        cells = [
            CellResult((9.0 * k, 9.0, 8.0, 8.0), 0.9, "nucleated cell", label, 0.8)
            for k, label in enumerate(labels)
        ]
        image = ImageRef(f"{name}.png", 9999, 480, name[0] * 64)
        fields.append(FieldResult(image, make_view(9999, 480), with_ids(cells, name)))
    run = make_run(fields)
    for number, (name, item) in enumerate(zip(cases, fields, strict=True)):
        listed = tuple(CaseCell((CellView(number, c.id),)) for c in item.cells)
        made.append(CaseResult(name, (item,), (FieldPlacement(number),), listed, model=run.model))
    return replace(run, cases=tuple(made))


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, cases in {
        "one": {"a": {"lymphocyte": 30, "neutrophil": 65, "white_cell": 5}},
        "two": {
            "a": {"lymphocyte": 55, "neutrophil": 140},
            "b": {"myeloblast": 90, "monocyte": 10},
        },
    }.items():
        Path(name).mkdir()
        run = a_run(**cases)
        run.write(Path(name))
        write_cases(run, Path(name))
    Path("manual.csv").write_text(
        "class,count\nLY,28\nband neutrophil,4\nSegmented,63\n\nneutrophil,5\n", "utf-8"
    )
    return tmp_path


def test_cells_count_under_the_name_they_were_given(place):
    assert read_counts(Path("one")).counts == {"white cell": 5, "lymphocyte": 30, "neutrophil": 65}


def test_a_case_is_compared_with_a_table_at_names_that_both_have(place):
    found = compare(CompareJob(first=Path("one"), second=Path("manual.csv"), json=Path("c.json")))
    rows = {r.name: r.counts for r in found.classes}
    assert rows == {"neutrophil": (65, 72), "lymphocyte": (30, 28)}
    assert found.left_open == (5, 0) and found.totals == (95, 100)
    assert found.agrees and json.loads(Path("c.json").read_text())["agrees"] is True


def test_a_case_of_several_must_be_named(place):
    with pytest.raises(ConfigError, match=r"two: has 2 cases \(a, b\); name one with --case"):
        compare(CompareJob(first=Path("two"), second=Path("two")))
    with pytest.raises(ConfigError, match="one: has no case 'b'; it has a"):
        compare(CompareJob(first=Path("one"), second=Path("two"), case="b"))
    assert compare(CompareJob(first=Path("one"), second=Path("two"), case="a")).agrees


def test_files_of_cases_are_compared_and_a_difference_is_the_exit_code(place):
    done = CliRunner().invoke(app, ["compare", "two/cases/a.json", "two/cases/b.json"])
    assert done.exit_code == 1 and "they differ" in done.output
    line = next(row for row in done.output.splitlines() if row.startswith("myeloblast"))
    assert line.endswith("differs") and "90.0" in line
    same = CliRunner().invoke(app, ["compare", "one", "one/result.json"])
    assert same.exit_code == 0 and "agree within counting error" in same.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,count\nLY,3\n", "needs a header"),
        ("class,count\nLY,three\n", "line 2: the count 'three'"),
        ("class,count\nLY,-3\n", "line 2: the count '-3'"),
        ("class,count\nunicorn,3\n", "line 2: no class 'unicorn'"),
        ("class,count\nLY,0\n", "no white cell is counted"),
        ("class,count\nLY,3\nMO,1\nLY,4\n", "line 4: class 'LY' is listed in line 2, too"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(place, text, says):
    Path("t.csv").write_text(text, "utf-8")
    with pytest.raises(DataError, match=rf"t\.csv: .*{says}"):
        compare(CompareJob(first=Path("one"), second=Path("t.csv")))


@pytest.mark.parametrize("count", [-7, 2.5, "9", True, 10**400])
def test_a_count_of_a_case_that_cannot_be_is_refused(place, count):
    (file, *_) = sorted(Path("two/cases").glob("*.json"))
    content = json.loads(file.read_text("utf-8"))
    part = content["differential"]
    part.get("count", part)["rows"][0]["undecided"] = count
    Path("odd.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"odd\.json: no differential of a case \(undecided: "):
        compare(CompareJob(first=Path("one"), second=Path("odd.json")))


def test_no_input_is_overwritten(place):
    with pytest.raises(DataError, match=r"manual\.csv"):
        compare(CompareJob(first=Path("one"), second=Path("manual.csv"), json=Path("manual.csv")))


def test_a_count_of_mostly_open_cells_is_said_to_be_a_choice(tmp_path):
    a_run(one={"white_cell": 90, "lymphocyte": 20}).write(tmp_path / "a")
    table = tmp_path / "manual.csv"
    table.write_text("class,count\nlymphocyte,100\nneutrophil,400\n")
    shown = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(table)])
    assert "20 white cells, 90 left open" in shown.output
    assert "note: A left more cells open than it named" in shown.output
    assert "note: B" not in shown.output
    assert "< 0.001  differs" in shown.output and " 0.000 " not in shown.output
