"""The results log: what was written comes back, and damage of any kind is found and named."""

import json
from dataclasses import replace

import pytest

from bloodfilm.core.errors import OutputError
from bloodfilm.core.pixels import ViewRecord
from bloodfilm.core.results import (
    CellResult,
    FieldFailure,
    FieldResult,
    ImageRef,
    ParsedFields,
    StoredFields,
    json_line,
)
from bloodfilm.inference.results_log import ResultsLog

RUN = {"bundle": {"sha256": "ab"}, "settings": {"paths": ["x"]}}


def field(name):
    view = ViewRecord(0.25, 0.25, "measured", "measured", 1.0, (240.0, 238.0, 236.0), 40, 640, 480)
    cell = CellResult((1.0, 2.0, 30.1, 31.0), 0.9, "nucleated cell", "lymphocyte", 0.8, id="c1")
    return FieldResult(ImageRef(name, 640, 480, f"{'0' * 63}{len(name)}"), view, (cell,))


def failure(name):
    return FieldFailure.from_error(name, OSError("broken"))


@pytest.fixture
def path(tmp_path):
    """A log with five files, of which number 1 failed; some bear on others."""
    with ResultsLog(tmp_path / "log", RUN) as log:
        log.add_inputs({0: "aa", 4: "ee"})
        for number, name in enumerate("abcde"):
            outcome = failure(name) if number == 1 else field(name)
            log.append(number, outcome)
    return tmp_path / "log"


def resumed(path):
    return ResultsLog(path, RUN, resume=True)


def test_outcomes_come_back_by_number(path):
    with resumed(path) as log:
        assert log.run == RUN
        assert [f.path for f in log.fields] == ["a", "c", "d", "e"]
        assert log.fields[0].to_json() == field("a").to_json()
        assert list(log.failures) == [1]
        assert log.failures[1] == failure("b")
        assert log.done == 5
        assert log.field(3).path == "d"
        assert (log.has(0), log.has(1)) == (True, False)


def test_a_result_is_the_same_in_the_run_that_wrote_it_and_in_a_resumed_one(tmp_path):
    """As it was written: rounded, whether it was kept parsed or is read from the file."""
    cell = CellResult((1.04, 2.0, 5.0, 6.0), 0.123456, "red cell", "red cell", 0.987654, id="c")
    given = replace(field("a"), cells=(cell,))
    with ResultsLog(tmp_path / "log", RUN) as log:
        log.append(0, given)
        kept = log.field(0)
    with ResultsLog(tmp_path / "log", RUN, resume=True) as log:
        assert log.field(0) == kept
    assert kept.cells[0].box == (1.0, 2.0, 5.0, 6.0) and kept.cells[0].confidence == 0.1235


def test_a_file_that_failed_may_get_a_result_later_and_keeps_its_place(path):
    with resumed(path) as log:
        log.append(1, field("b"))
        assert log.failures == {}
    with resumed(path) as log:
        assert [f.path for f in log.fields] == list("abcde")
        assert log.failures == {}


def test_inputs_are_known_by_content(path):
    with resumed(path) as log:
        assert log.inputs == {n: field("x").image.sha256 for n in (0, 2, 3, 4)}
    with ResultsLog(path.with_name("new"), RUN) as log:
        log.add_inputs({7: "ff"})
        assert log.inputs == {7: "ff"}


def test_what_samples_tell_is_kept_to_the_last_digit(path):
    told = {"offset": {"cells": 7, "values": [0.10000000149011612, 1 / 3]}}
    with resumed(path) as log:
        assert log.samples == {}
        log.add_sample("film of 0", told)
    with resumed(path) as log:
        assert log.samples == {"film of 0": told} and log.done == 5


@pytest.mark.parametrize("torn", [b"", b'{"check": "00', b"\0" * 4096, b"{}"])
def test_a_torn_last_line_is_dropped_and_the_run_goes_on(path, torn):
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    with resumed(path) as log:
        log.append(5, field("f"))
    assert path.read_bytes().startswith(whole)
    with resumed(path) as log:
        assert [f.path for f in log.fields] == list("acdef")


def test_a_cut_line_is_done_again(path):
    path.write_bytes(path.read_bytes()[:-3])
    with resumed(path) as log:
        assert log.done == 4


DAMAGES = {
    "doubled": (lambda lines: [*lines[:4], lines[3], *lines[4:]], 5),
    "lost": (lambda lines: [*lines[:4], *lines[5:]], 5),
    "swapped": (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], 4),
    "number": (lambda lines: [*lines[:3], b"5\n", *lines[4:]], 4),
    "null": (lambda lines: [*lines[:3], b"null\n", *lines[4:]], 4),
    "empty": (lambda lines: [*lines[:3], b"\n", *lines[4:]], 4),
    "zeros": (lambda lines: [*lines[:3], b"\0" * 500 + b"\n", *lines[4:]], 4),
    "windows": (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], 1),
    "rubbish at the end": (lambda lines: [*lines, b"rubbish\n"], 8),
    "deep": (lambda lines: [*lines[:3], b"[" * 100_000 + b"\n", *lines[4:]], 4),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_lines_that_are_not_as_they_were_written_are_named(path, name):
    damage, line = DAMAGES[name]
    changed = b"".join(damage(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(changed)
    with pytest.raises(OutputError, match=rf"log: line {line} "):
        resumed(path)
    assert path.read_bytes() == changed


def test_any_changed_byte_is_noticed(path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    start = len(lines[0])
    for place in range(start, len(whole) - len(lines[-1]), 37):
        if whole[place : place + 1] == b"\n":
            continue
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(OutputError):
            resumed(path)


@pytest.mark.parametrize(
    "content", [b"", b"[]\n", b"7\n", b"hello\n", b'{"field": {}}\n', b"[" * 200_000 + b"\n"]
)
def test_what_is_no_log_is_refused_in_one_line(path, content):
    path.write_bytes(content)
    with pytest.raises(OutputError) as caught:
        resumed(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("version", [1, 2])
def test_logs_of_old_versions_are_refused_by_version(path, version):
    path.write_text(json.dumps({"journal": version, **RUN}) + "\n")
    with pytest.raises(OutputError, match=f"log version {version}"):
        resumed(path)


def test_a_record_without_its_parts_is_named(path):
    with resumed(path) as log:
        log._write({"file": 9, "failure": {"image": "x"}})
    with pytest.raises(OutputError, match="line 8 is no record"):
        resumed(path)


def test_a_name_that_is_no_utf8_is_kept_as_valid_json(tmp_path):
    name = "a\udcff.png"
    assert json.loads(json_line({"image": name}).encode())["image"] == name
    with ResultsLog(tmp_path / "log", {**RUN, "images": [name]}) as log:
        log.append(0, field(name))
    (tmp_path / "log").read_bytes().decode("utf-8")
    with resumed(tmp_path / "log") as log:
        assert log.run["images"] == [name]
        assert log.fields[0].path == name


def test_results_are_parsed_once_for_all_passes(path, monkeypatch):
    parsed = []
    read = FieldResult.from_json
    monkeypatch.setattr(FieldResult, "from_json", lambda data: parsed.append(data) or read(data))
    with resumed(path) as log:
        first = list(log.fields)
        assert [f.path for f in log.fields] == [f.path for f in first]
        assert log.fields[2] is log.fields[1:].pick([1])[0] is log.field(3)
        assert len(parsed) == 4


def test_results_without_room_in_memory_are_read_again(path):
    with resumed(path) as log:
        stored = log.fields
        one_line = len(path.read_bytes().splitlines(keepends=True)[2])
        few = StoredFields(path, stored._offsets, stored._unwrap, ParsedFields(one_line))
        assert few[0] is few[0]
        assert few[1] is not few[1]
        assert few[1] == few[1] == stored[1]
        assert [f.path for f in few] == ["a", "c", "d", "e"]


@pytest.mark.parametrize("name", ["a", 'x"field": {"y\\.png', "б\udcff.png"])
def test_the_record_of_a_field_is_copied_as_it_was_written(tmp_path, name):
    with ResultsLog(tmp_path / "log", RUN) as log:
        log.append(7, field(name))
        assert list(log.fields.json_lines()) == [json_line(field(name).to_json())]
        assert log.fields[0].to_json() == field(name).to_json()
