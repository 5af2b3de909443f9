"""The published schema of result.json describes what is written."""

import json
from dataclasses import replace

import pytest

from bloodfilm.core.results import RESULT_SCHEMA, CaseResult
from bloodfilm.core.results.case import CaseCell, CellView, FieldPlacement
from bloodfilm.core.results.run import RESULT_VERSION

jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator():
    schema = json.loads(RESULT_SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture
def document(run, field, failure, tmp_path):
    fields = (field("a.png", 1), field("b.png", 2, source="assumed"))
    case = CaseResult(
        "film",
        fields,
        (FieldPlacement(0, part=0, matrix=((0.1, 0, 0), (0, 0.1, 0))), FieldPlacement(1, False)),
        (CaseCell((CellView(0, fields[0].cells[0].id),)),),
        {"platelet": 3},
    )
    made = replace(run(fields, [failure("bad.png", "cut short")]), cases=(case,))
    return json.loads(made.write(tmp_path / "result.json").read_text(encoding="utf-8"))


def test_what_is_written_is_valid(validator, document):
    assert document["version"] == RESULT_VERSION
    assert [error.message for error in validator.iter_errors(document)] == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d["fields"][0]["cells"][0].pop("id"), "id"),
        (lambda d: d["fields"][0]["cells"][0].update(score=1.2), "1.2"),
        (lambda d: d["fields"][0].update(issues=[{"code": "A code"}]), "required"),
        (lambda d: d["fields"][0]["view"].update(scale_source="guessed"), "guessed"),
        (lambda d: d.update(version=4), "3 was expected"),
    ],
)
def test_what_is_wrong_is_found(validator, document, change, what):
    change(document)
    messages = [error.message for error in validator.iter_errors(document)]
    assert messages and any(what in message for message in messages)
