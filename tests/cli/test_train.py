"""`bloodfilm train` on drawn fields: from a configuration file to weights."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import shipped_config
from tiny import config, to_toml, write_set


def run(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 3, 1)
    return folder


def write(path, task="detector", **sections):
    path.write_text(to_toml(config(task, **sections)))
    return path


@pytest.mark.slow
def test_a_detector_is_trained_goes_on_and_begins_anew(root, tmp_path, monkeypatch):
    file = write(tmp_path / "run.toml", optim={"epochs": 4})
    whole = tmp_path / "whole"
    result = run(file, "--data", root, "--out", whole, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "best ap:" in result.output
    lines = [json.loads(line) for line in (whole / loop.LOG).read_text().splitlines()]
    assert [e["epoch"] for e in lines] == [1, 2, 3, 4]
    assert set(lines[0]["loss"]) == {"object_type", "box", "edge", "total"}
    assert set(lines[0]["validation"]) >= {"ap", "ap50", "nucleated_cell_ap"}
    record = json.loads((whole / loop.RECORD).read_text())
    assert record["sources"]["train"][0]["fields"] == 3

    # The same in two goes, the environment naming the data: the same bits.
    real = loop.save_checkpoint

    def stop_after_two(path, data):
        real(path, data)
        if path.name == loop.LAST and data["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setenv("BLOODFILM_DATA", str(root))
    monkeypatch.setattr(loop, "save_checkpoint", stop_after_two)
    broken = tmp_path / "broken"
    assert run(file, "--out", broken).exit_code == 130
    monkeypatch.setattr(loop, "save_checkpoint", real)
    assert run(file, "--out", broken).exit_code == 0
    for name in (loop.LAST, loop.BEST):
        a, b = (load_checkpoint(folder / name)["model"] for folder in (whole, broken))
        assert all(bool((a[k] == b[k]).all()) for k in a)

    other = write(tmp_path / "other.toml", optim={"epochs": 1, "lr": 0.005})
    result = run(other, "--out", broken)
    assert result.exit_code == 2 and "another configuration" in result.stderr
    assert "Traceback" not in result.stderr
    assert run(other, "--out", broken, "--restart").exit_code == 0
    assert len((broken / loop.LOG).read_text().splitlines()) == 1


@pytest.mark.slow
def test_what_is_wrong_is_said_in_one_line_and_an_old_run_survives_it(root, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / loop.BEST).write_text("precious")
    (tmp_path / "file").write_text("x")
    misspelt = write(tmp_path / "a.toml", optim={"epoch": 3})
    leaky = write(tmp_path / "b.toml", data={"validation": [{"path": "discs"}]})
    absent = write(tmp_path / "c.toml", data={"train": [{"path": "nowhere"}]})
    backbone = write(tmp_path / "d.toml", model={"backbone": "nonsense"})
    cases = [
        (misspelt, old, "did you mean epochs?"),
        (leaky, old, "is in training and in validation"),
        (absent, old, "nowhere"),
        (backbone, old, "nonsense"),
        (tmp_path / "none.toml", old, "cannot be read"),
        (write(tmp_path / "e.toml"), tmp_path / "file", "is a file"),
    ]
    for file, out, said in cases:
        result = run(file, "--data", root, "--out", out, "--restart")
        assert result.exit_code == 2, (said, result.output)
        (line,) = [x for x in result.stderr.splitlines() if x.startswith("error:")]
        assert said in line and "Traceback" not in result.output
        assert (old / loop.BEST).read_text() == "precious"
    result = run(misspelt, "--data", tmp_path / "absent", "--out", old)
    assert result.exit_code == 2


@pytest.mark.slow
def test_the_loss_of_a_detector_falls_and_validation_is_logged(root, tmp_path):
    file = write(
        tmp_path / "run.toml",
        optim={"epochs": 4, "samples": 48, "batch": 8, "lr": 5e-3, "ema": 0.9, "validate_every": 4},
    )
    result = run(file, "--data", root, "--out", tmp_path / "out", "--threads", 1)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "out" / loop.LOG).read_text().splitlines()]
    assert lines[-1]["loss"]["total"] < lines[0]["loss"]["total"]
    assert [("validation" in line) for line in lines] == [False, False, False, True]
    assert 0 <= lines[-1]["validation"]["ap"] <= 1


def test_a_validation_set_without_a_box_is_refused_before_training(root, tmp_path):
    empty = json.loads((root / "discs" / "bloodfilm.json").read_text())
    for row in empty["fields"]:
        if row["split"] == "val":
            row["cells"] = []
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    for name in {row["image"] for row in empty["fields"]}:
        shutil.copy(root / "discs" / name, tmp_path / name)
    sides = {
        "train": [{"path": "empty.json", "splits": ["train"]}],
        "validation": [{"path": "empty.json", "splits": ["val"]}],
    }
    for task in ("detector", "sparse"):
        file = write(tmp_path / f"{task}.toml", task, data=sides)
        result = run(file, "--data", tmp_path, "--out", tmp_path / "out")
        assert result.exit_code == 2 and "no field has an annotated box" in result.stderr
    assert not (tmp_path / "out").exists()


def test_shipped_configurations_are_listed_and_shown():
    listed = CliRunner().invoke(app, ["train", "--list"])
    assert listed.exit_code == 0 and "detector.toml" in listed.stdout
    shown = CliRunner().invoke(app, ["train", "--show-config", "detector"])
    assert shown.exit_code == 0 and shown.stdout == shipped_config("detector.toml")
    unknown = CliRunner().invoke(app, ["train", "--show-config", "nothing"])
    assert unknown.exit_code == 2 and "classifier.toml" in unknown.stderr
