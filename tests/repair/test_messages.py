"""Repairs act on the codes and data of findings: no wording of a message changes any of them."""

import json
from dataclasses import replace

import pytest

from bloodfilm.audit.lld_labels import line_findings
from bloodfilm.repair import repair_labels


def reworded(findings):
    """The same findings, each with another message that says something of everything."""
    words = "line 9 patient 7 test train cell_size nuclear_shape has code 3 deleted twice"
    return [replace(f, message=f"{n}: {words}", advice="none") for n, f in enumerate(findings)]


def tree(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".jsonl")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


def changes(folder):
    lines = (folder / "changes.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(x).items() if k != "message"} for x in lines]


def left(folder):
    lines = [json.loads(x) for x in (folder / "left.jsonl").read_text().splitlines()]
    return [(f["code"], f["file"], f["annotations"]) for f in lines]


@pytest.mark.parametrize("name", ["faulty", "faulty_set"])
def test_repairs_do_not_depend_on_the_wording_of_findings(request, tmp_path, name):
    source = request.getfixturevalue(name).source
    findings = request.getfixturevalue(name).findings
    lines = line_findings(source.labels)
    told, other = tmp_path / "told", tmp_path / "reworded"
    done = repair_labels(source.labels, findings, told, line_findings=lines)
    repair_labels(source.labels, reworded(findings), other, line_findings=reworded(lines))
    assert len(done.changes) > 8
    assert tree(other) == tree(told)
    assert changes(other) == changes(told)
    assert left(other) == left(told)
