"""What readers and writers report: codes and data for programs, messages for people."""

import ast
from pathlib import Path

import pytest
from PIL import Image

import bloodfilm
from bloodfilm.core import dataset_codes
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Cell, Field
from bloodfilm.core.issues import codes
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.native.records import issues_from_json

SOURCE = Path(bloodfilm.__file__).parent


def png(path: Path, size: tuple[int, int]) -> Path:
    Image.new("RGB", size, "white").save(path)
    return path


def test_what_is_wrong_with_a_label_file_is_said_with_code_file_and_place(tmp_path):
    (tmp_path / "images").mkdir()
    png(tmp_path / "images" / "a.png", (100, 50))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n0 0.5 0.5 0.1 0\n")
    (tmp_path / "labels" / "gone.txt").write_text("")
    (tmp_path / "data.yaml").write_text("train: images\nnc: 1\nnames: [neutrophil]\n")
    found = {issue.code: issue for issue in open_dataset(tmp_path).issues}
    assert set(found) == {dataset_codes.UNUSABLE_SHAPE, dataset_codes.ORPHAN}
    bad = found[dataset_codes.UNUSABLE_SHAPE]
    assert bad.severity == "warning"
    assert bad.data == {"file": "labels/a.txt", "place": "line 2"}
    assert bad.message == "labels/a.txt: line 2: box has no area and is left out"


def test_what_a_format_cannot_carry_is_said_with_code_and_count(tmp_path):
    cells = (Cell((1.0, 1.0, 20.0, 20.0), "neutrophil", {"nuclear_shape": "segmented"}),)
    image = png(tmp_path / "a.png", (100, 50))
    fields = (Field(image, 100, 50, cells, patient="7"),)
    lost = save_dataset(Dataset("x", fields), tmp_path / "x", "yolo", images="copy")
    assert codes(lost) == {dataset_codes.NOT_CARRIED, dataset_codes.WITHOUT_SPLIT}
    stated = {i.data["property"]: i.data for i in lost if "property" in i.data}
    assert stated["attributes"] == {"property": "attributes", "count": 1, "of": "cells"}
    assert stated["patient"]["of"] == "fields"


def test_issues_stay_with_a_set_and_sentences_of_older_files_become_issues(tmp_path):
    older = issues_from_json({"problems": ["b.png: left out"]})
    assert [(i.code, i.message) for i in older] == [("uncoded", "b.png: left out")]
    again = issues_from_json({"issues": [i.to_json() for i in older]})
    assert again == older
    for broken in ({"issues": 1}, {"issues": [{"code": "x"}]}, {"problems": "text"}):
        with pytest.raises(DataError):
            issues_from_json(broken)


PARSING = {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "index"}


def test_no_code_parses_a_message():
    """A method that takes a text apart is called on no `.message`, and `in` does not search one."""
    offenders = []
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Attribute(attr="message"), attr=name)):
                    parsed = name in PARSING
                case ast.Compare(
                    ops=[ast.In() | ast.NotIn()], comparators=[ast.Attribute(attr="message")]
                ):
                    parsed = True
                case ast.Subscript(value=ast.Attribute(attr="message")):
                    parsed = True
                case _:
                    parsed = False
            if parsed:
                offenders.append(f"{file.relative_to(SOURCE)}:{node.lineno}")
    assert offenders == []
