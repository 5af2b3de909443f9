"""Training on a split file: exactly that split, no leak, and the proof in the run's record."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core import Dataset, Field
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.splits.disjoint import same_splits
from bloodfilm.training import loop
from bloodfilm.training.config import DatasetConfig, parse_config
from bloodfilm.training.data.sources import SourcedField, check_split_disjoint, open_sources
from bloodfilm.training.tasks import make_task
from tiny import config, silent, write_set


@pytest.fixture
def data(tmp_path):
    """A set of ten patients with three subsets' worth of nothing stated, and its split file."""
    write_set(tmp_path / "discs", 6, 4)
    said = CliRunner().invoke(
        app,
        [
            *("data", "split", str(tmp_path / "discs"), "--out", str(tmp_path / "split.json")),
            *("--test-share", "0.2", "--val-share", "0.3", "--content"),
        ],
    )
    assert said.exit_code == 0, said.output
    return tmp_path


def source(split, **more):
    return DatasetConfig(path="discs", splits=(split,), split_file="split.json", **more)


def rows(data):
    return json.loads((data / "split.json").read_text())["fields"]


def edit(data, change):
    content = json.loads((data / "split.json").read_text())
    change(content)
    (data / "split.json").write_text(json.dumps(content))


def test_exactly_the_splits_of_the_file_are_taken(data):
    for split in ("train", "val", "test"):
        wanted = {str((data / r["image"]).resolve()) for r in rows(data) if r["split"] == split}
        found = open_sources([source(split)], data)
        assert {str(s.field.path.resolve()) for s in found} == wanted != set()
        assert {s.field.split for s in found} == {split}
    own = open_dataset(data / "discs")
    assert {f.split for f in own} == {"train", "val"}  # its own splits are others


def test_the_record_holds_the_proof(data):
    proof = check_split_disjoint(
        open_sources([source("train")], data), open_sources([source("val")], data)
    )
    counts = {name: sum(r["split"] == name for r in rows(data)) for name in ("train", "val")}
    assert proof["train"]["fields"] == len(proof["train"]["patients"]) == counts["train"]
    assert proof["validation"]["fields"] == counts["val"]
    assert not set(proof["train"]["patients"]) & set(proof["validation"]["patients"])
    assert 0 < proof["train"]["groups"] <= counts["train"]  # common glass ties some
    assert proof["train"]["without_group"] == 0
    assert set(proof["shared"].values()) == {0}
    assert list(proof["shared"]) == [
        "field",
        "patient",
        "twin group",
        "physical cell",
        "identical file",
    ]
    (file,) = proof["files"]
    digest = hashlib.sha256((data / "split.json").read_bytes()).hexdigest()
    assert file["sha256"] == digest and file["plan"]["content"] is True
    assert file["counts"]["train"] == counts["train"]


def small(**sections):
    both = {
        "train": [{"path": "discs", "splits": ["train"], "split_file": "split.json"}],
        "validation": [{"path": "discs", "splits": ["val"], "split_file": "split.json"}],
    }
    return parse_config(config("detector", data=both, optim={"epochs": 1} | sections), "test")


@pytest.mark.slow
def test_a_run_writes_the_proof_and_refuses_another_split(data):
    out = data / "run"
    out.mkdir()

    def run(settings):
        task = make_task(settings, data, silent)
        return loop.train(task, settings, out, torch.device("cpu"))

    run(small())
    record = json.loads((out / "run.json").read_text())
    assert record["split"]["files"][0]["sha256"] and set(record["split"]["shared"].values()) == {0}
    edit(data, lambda content: content["notes"].append("another"))
    with pytest.raises(ConfigError, match="the split file has changed since this run began"):
        run(small())


def test_records_without_split_files_are_alike():
    assert same_splits({}, {"split": {}}) and same_splits({"split": {"files": []}}, {})
    assert not same_splits({}, {"split": {"files": [{"sha256": "a"}]}})


def test_the_splits_must_be_named(data):
    with pytest.raises(ConfigError, match=r'split\.json: say which of its splits .* \["train"\]'):
        open_sources([DatasetConfig(path="discs", split_file="split.json")], data)
    with pytest.raises(ConfigError, match="no field in splits dev"):
        open_sources([source("dev")], data)


def test_a_file_of_another_set_or_none_is_one_line(data):
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read \(No such file"):
        open_sources(
            [DatasetConfig(path="discs", splits=("train",), split_file="nowhere.json")], data
        )
    edit(data, lambda content: [r.update(image="x/" + r["image"]) for r in content["fields"]])
    with pytest.raises(DataError, match="lists none of its images"):
        open_sources([source("train")], data)


def test_a_group_torn_apart_by_hand_is_refused(data):
    def tie(content):
        first = next(r for r in content["fields"] if r["split"] == "train")
        other = next(r for r in content["fields"] if r["split"] == "test")
        other["group"] = first["group"]

    edit(data, tie)
    with pytest.raises(ConfigError, match=r"split\.json: group \d+ is in test and train; write it"):
        open_sources([source("train")], data)


def test_a_patient_torn_apart_by_hand_is_refused(data):
    native = open_dataset(data / "discs")
    fields = tuple(replace(f, patient="7") for f in native)
    save_dataset(Dataset("discs", fields), data / "discs", "bloodfilm", overwrite=True)
    with pytest.raises(ConfigError, match=r"split\.json: patient 7 is in test and train"):
        open_sources([source("train")], data)


def test_fields_the_file_does_not_speak_of_are_left_out(data):
    gone = next(r for r in rows(data) if r["split"] == "train")["image"]
    edit(data, lambda c: c.update(fields=[r for r in c["fields"] if r["image"] != gone]))
    found = open_sources([source("train")], data)
    assert Path(gone).name not in {s.field.path.name for s in found}


def test_one_picture_under_two_names_is_refused(data):
    train = open_sources([source("train")], data)
    copy = data / "copy.png"
    shutil.copyfile(train[0].field.path, copy)
    twin = SourcedField(Field(copy, patient="other"), Dataset("another", ()), 1.0)
    with pytest.raises(ConfigError, match=r"identical file .*= .*copy\.png is in training"):
        check_split_disjoint(train, [twin])
    copy.write_bytes(copy.read_bytes()[:-1] + b"x")  # as long, but another file
    assert check_split_disjoint(train, [twin])["shared"]["identical file"] == 0


def test_common_glass_on_both_sides_is_refused(data):
    train = open_sources([source("train")], data)
    held = open_sources([source("val")], data)
    tied = [replace(held[0], group=train[0].group), *held[1:]]
    with pytest.raises(ConfigError, match=r"physical cell .* is in training and in validation"):
        check_split_disjoint(train, tied)
