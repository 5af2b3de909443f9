"""Files that programs of the past wrote still load, and still mean the same.

`old_versions/v1` holds a file of each kind in the first version of its format, `v2` those of the
second version; they are never written anew.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bloodfilm.core.results import AnalysisRun
from golden.cases import CONFIGS, Workshop
from golden.compare import Tolerance, differences
from golden.running import (
    OLD,
    draw_discs,
    json_of,
    plain,
    read_json,
    run,
    succeed,
    write_training_set,
)

V1 = OLD / "v1"
NEAR = Tolerance(2e-3, 1e-3, {"box": 0.11, "sharpness": 1})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The old files, with the fields of discs they are about."""
    shutil.copytree(V1, tmp_path / "old")
    draw_discs(tmp_path / "old" / "fields")
    return tmp_path / "old"


def cells_of(result: dict[str, Any]) -> list[Any]:
    """Return what of a result must stay the same, of version 1 or later."""
    return [[f["image"], *sorted(map(_essence, f["cells"]), key=_place)] for f in result["fields"]]


def _place(cell: list[Any]) -> list[int]:
    """Return where a cell is, coarsely: rows of cells lie within fractions of a pixel."""
    return [round(v / 20) for v in cell[0]["box"]]


def _essence(cell: dict[str, Any]) -> list[Any]:
    return [
        {"box": cell["box"]},
        cell.get("object_type", cell.get("kind")),
        cell["class"],
        cell["score"],
    ]


def test_a_data_set(folder: Path) -> None:
    info = json.loads(succeed(folder, "data", "info", "dataset.json", "--json"))
    assert (info["name"], info["licence"], info["fields"]) == ("discs", "CC0-1.0", 3)
    rows = read_json(V1 / "dataset.json")["fields"]
    assert info["cells"] == sum(len(row["cells"]) for row in rows)
    assert info["ignored"] == sum(bool(c.get("ignore")) for row in rows for c in row["cells"])
    assert [found["message"] for found in info["issues"]] == ["b.png: one cell is out of focus"]
    succeed(folder, "data", "convert", "dataset.json", "again.json", "--to", "bloodfilm")
    again = read_json(folder / "again.json")["fields"]
    for row in rows:  # the one key that has another name today
        if "domain" in row:
            row["domain"] = {
                "pixel_aspect_ratio" if key == "squeeze" else key: value
                for key, value in row["domain"].items()
            }
    assert again == rows


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("name", ["result.json", "cells.csv"])
def test_results_are_evaluated(folder: Path, version: str, name: str) -> None:
    predictions = OLD / version / name
    words = ("--predictions", predictions, "--bootstrap", 0, "--json", "scores.json")
    succeed(folder, "evaluate", "dataset.json", *words)
    record = read_json(folder / "scores.json")
    per_class = record["detection"]["scores"]["per_class"]
    assert per_class["nucleated cell"]["cells"] == 6
    assert per_class["nucleated cell"]["recall50"] == pytest.approx(1.0)
    assert per_class["nucleated cell"]["ap50"] == pytest.approx(1.0)
    assert per_class["red cell"]["recall50"] == pytest.approx(float(name == "result.json"))


def test_results_of_version_2_hold_the_model(folder: Path) -> None:
    text = (OLD / "v2" / "result.json").read_text(encoding="utf-8")
    run = AnalysisRun.read(OLD / "v2" / "result.json")
    assert run.model.untrained_attributes == ("cytoplasmic_vacuoles",)
    assert run.model.classified == "nucleated cell" and run.issues == ()
    written = run.write(folder / "again.json").read_text(encoding="utf-8")
    assert_kept({**json.loads(text), "version": 3}, json.loads(written))
    assert run.cases == ()


def assert_kept(old: Any, new: Any) -> None:
    """Everything an older file holds is in the one written anew; keys may have been added."""
    if isinstance(old, dict):
        for key, value in old.items():
            assert_kept(value, new[key])
    elif isinstance(old, list):
        assert len(old) == len(new)
        for one, other in zip(old, new, strict=True):
            assert_kept(one, other)
    else:
        assert old == new


def test_a_bundle_finds_what_it_found(folder: Path) -> None:
    succeed(folder, "analyze", "fields", "--bundle", "bundle", "--out", "results")
    now, then = (json_of(f / "result.json") for f in (folder / "results", V1))
    assert differences(cells_of(then), cells_of(now), NEAR) == []
    assert now["bundle"] == plain(then["bundle"])


def test_a_plan_and_the_tasks_for_an_annotator(folder: Path) -> None:
    regions = [row["region"] for row in read_json(V1 / "plan" / "bloodfilm.json")["fields"]]
    assert len(regions) == 3
    succeed(folder, "data", "convert", "plan/bloodfilm.json", "again.json", "--to", "bloodfilm")
    again = [row["region"] for row in read_json(folder / "again.json")["fields"]]
    assert again == regions
    cost = json.loads(succeed(folder, "annotate", "cost", "plan/bloodfilm.json", "--json"))
    assert cost["area_share"] == pytest.approx(0.2, abs=0.01)
    shutil.copy(folder / "plan" / "label-studio.json", folder)  # it names images from here
    info = json.loads(succeed(folder, "data", "info", "label-studio.json", "--json"))
    assert (info["format"], info["fields"]) == ("label_studio", 3)
    (issue,) = info["issues"]
    problem = issue["message"]
    assert "3 of 3 tasks hold predictions only" in problem


def test_a_stopped_run_goes_on_or_is_left_as_it_is(folder: Path) -> None:
    """Its results log names the program; one of another version may be refused, never harmed."""
    out = folder / "stopped"
    out.mkdir()
    journal = out / "results.part.jsonl"
    shutil.copy(V1 / "results.part.jsonl", journal)
    words = ("analyze", "fields", "--bundle", "bundle", "--out", "stopped")
    done = run(folder, *words, "--resume", "--no-report")
    if done.code == 0:
        now, then = json_of(out / "result.json"), json_of(V1 / "result.json")
        assert differences(cells_of(then), cells_of(now), NEAR) == []
        return
    assert done.code == 2
    assert "program" in done.err and len(done.err.strip().splitlines()) == 1
    assert journal.read_bytes() == (V1 / "results.part.jsonl").read_bytes()
    succeed(folder, *words, "--overwrite", "--no-report")


@pytest.mark.slow
def test_a_training_run_is_exported(tmp_path: Path) -> None:
    """The records and the split of an old run, with weights of today."""
    work = Workshop(tmp_path)
    for name, old in (("detector", "detector"), ("classifier", "reader")):
        now, then = work.runs / name / "run.json", V1 / f"run-{old}.json"
        assert read_json(then)["config"]["task"] == old
        shutil.copy(then, now)
    words = ("export", "detector", "classifier", "--data", ".", "--out", "bundle")
    succeed(work.runs, *words)
    assert (work.runs / "bundle" / "manifest.json").is_file()


@pytest.mark.slow
def test_a_split_file_is_trained_by(tmp_path: Path) -> None:
    write_training_set(tmp_path / "discs")
    shutil.copy(V1 / "split.json", tmp_path)
    chosen = 'split_file = "split.json", splits ='
    (tmp_path / "run.toml").write_text(CONFIGS["detector"].replace("splits =", chosen))
    succeed(tmp_path, "train", "run.toml", "--data", ".", "--out", "run", "--device", "cpu")
    record = read_json(tmp_path / "run" / "run.json")
    wanted = read_json(V1 / "split.json")["counts"]
    used = {name: parts[0]["fields"] for name, parts in record["sources"].items()}
    assert used == {"train": wanted["train"], "validation": wanted["val"]}
