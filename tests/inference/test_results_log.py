"""The journal: what was written comes back, and a run that stopped can go on."""

import json

import pytest

from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.results import AttributeResult, CellResult, FieldResult
from bloodfilm.inference.records import FieldFailure, field_from_json, to_json_line
from bloodfilm.inference.results_log import ResultsLog

HEAD = {"bundle": {"sha256": "ab"}, "settings": {"paths": ["x"]}}


def field(name):
    cell = CellResult(
        (1.04, 2.0, 30.06, 31.0),
        0.91234567,
        "nucleated cell",
        "lymphocyte",
        0.8,
        {"lymphocyte": 0.8, "monocyte": 0.2},
        {"cell_size": AttributeResult(None, 0.4, {"small": 0.4, "medium": 0.3, "large": 0.3})},
        ("cut by the edge",),
        11.987,
    )
    return FieldResult(name, 640, 480, {"um_per_px_x": 0.25}, (cell,), ("blurred",))


def test_a_field_comes_back_as_it_was_written():
    record = field("a.png").to_json()
    assert field_from_json(json.loads(to_json_line(record))).to_json() == record
    with pytest.raises(DataError, match="not the record of a field"):
        field_from_json({"image": "a"})


def test_outcomes_come_back_in_order(tmp_path):
    with ResultsLog(tmp_path / "j", HEAD) as journal:
        journal.append(field("a.png"))
        journal.append(FieldFailure("b.png", "broken"))
        journal.append(field("ü.png"))
        fields = journal.fields
        assert (len(fields), journal.done) == (2, 3)
        assert [f.path for f in fields] == [fields[0].path, fields[-1].path] == ["a.png", "ü.png"]
        assert [f.path for f in fields[1:]] == ["ü.png"]
        assert journal.failures == [FieldFailure("b.png", "broken")]


@pytest.mark.parametrize("torn", [b"", b'{"field": {"ima', b'{"failure": {"image": "x"}}'])
def test_a_torn_last_line_is_dropped_and_the_run_goes_on(tmp_path, torn):
    path = tmp_path / "j"
    with ResultsLog(path, HEAD) as journal:
        journal.append(field("a.png"))
        journal.append(FieldFailure("b.png", "broken"))
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with ResultsLog(path, HEAD, resume=True) as journal:
        assert (journal.done, len(journal.fields), len(journal.failures)) == (2, 1, 1)
        journal.append(field("c.png"))
        assert [f.path for f in journal.fields] == ["a.png", "c.png"]
    assert path.read_bytes().startswith(whole)


def test_another_run_is_not_taken_up(tmp_path):
    ResultsLog(tmp_path / "j", HEAD).close()
    with pytest.raises(ConfigError, match="differs in settings"):
        ResultsLog(tmp_path / "j", {**HEAD, "settings": {"paths": ["y"]}}, resume=True)


def test_damage_in_the_middle_and_an_empty_journal_are_refused(tmp_path):
    path = tmp_path / "j"
    ResultsLog(path, HEAD).close()
    path.write_bytes(path.read_bytes() + b"rubbish\n")
    with pytest.raises(DataError, match="line 2 is damaged"):
        ResultsLog(path, HEAD, resume=True)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="nothing to go on from"):
        ResultsLog(path, HEAD, resume=True)


def test_a_name_that_is_no_utf8_is_kept_as_valid_json():
    line = to_json_line({"image": "a\udcff.png"})
    assert json.loads(line.encode())["image"] == "a\udcff.png"
