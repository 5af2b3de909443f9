"""The Python guide: its code runs from top to bottom, and its tables are those of the code."""

import re
from pathlib import Path

import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.attributes import LLD_SCHEMA
from bloodfilm.core.results.tables import FIXED_COLUMNS, LAST_COLUMNS, describe_columns
from fixtures.made_up_results import make_failure, make_model
from golden.running import draw_discs

GUIDE = (Path(__file__).parents[1] / "docs" / "python.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE, re.S)


def test_the_code_of_the_guide_runs(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib").use("Agg")
    draw_discs(tmp_path / "fields")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), names)
    written = {p.name for p in tmp_path.iterdir()}
    assert {"results", "again", "reviewed.json"} <= written
    assert len(names["table"]) == len(names["coco"]["annotations"])


def test_every_code_is_listed():
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| (\w+) \| (.*) \|$", GUIDE, re.M)
    assert {code: (severity, meaning) for code, severity, meaning in rows} == {
        code: (issue_codes.SEVERITY[code], meaning) for code, meaning in issue_codes.MEANING.items()
    }


def test_every_key_of_a_result_is_listed(field):
    a_field = field()
    row = {r.split("|")[1].strip(): r for r in GUIDE.splitlines() if r.startswith("| `")}
    keys = {
        "`fields[]`": a_field.to_json(),
        "`fields[].view`": a_field.view.to_json(),
        "`fields[].cells[]`": a_field.cells[0].to_json(),
        "`failures[]`": make_failure("a", "b").to_json(),
        "`model`": make_model().to_json(),
    }
    for name, record in keys.items():
        missing = [key for key in record if f"`{key}`" not in row[name]]
        assert not missing, f"{name}: {missing}"


def test_every_column_is_listed():
    table = GUIDE[GUIDE.index("## cells.csv") : GUIDE.index("## result.json")]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    listed = [name for cell in cells for name in re.findall("`([a-z_]+)`", cell)]
    assert listed == [*FIXED_COLUMNS, *LAST_COLUMNS]
    texts = dict(describe_columns(LLD_SCHEMA))
    assert all(f"| {texts[name]} |" in table for name in ("image", "object_type", "class", "score"))
