"""Every workflow without a command line: typed in, typed out, followed and stopped."""

import json
import sys
from pathlib import Path

import pytest

from bloodfilm.core.errors import ConfigError, DataError, OutputError
from bloodfilm.core.issues import messages
from bloodfilm.core.progress import Cancellation, CancelledError, NoProgress, counter, track
from bloodfilm.splits.planning import SplitPlan
from bloodfilm.workflows.audit import AuditJob, StatisticsJob, audit, count_dataset
from bloodfilm.workflows.convert import ConversionJob, ReadSettings, convert, summarise_dataset
from bloodfilm.workflows.evaluate import EvaluationOptions, evaluate
from bloodfilm.workflows.outputs import check_can_hold
from bloodfilm.workflows.overlaps import OverlapsJob, find_overlaps
from bloodfilm.workflows.plan import PlanJob, plan
from bloodfilm.workflows.render import FaultyRenderJob, RenderJob, render, render_faulty
from bloodfilm.workflows.repair import RepairJob, repair
from bloodfilm.workflows.split import SplitJob, split
from bloodfilm.workflows.transfer import TransferJob, transfer
from fake_bundle import draw, lay_out, save, write_bundle
from following import Recorder


class Stopped(Cancellation):
    """Wants every work stopped at once."""

    def __init__(self):
        super().__init__()
        self.cancel()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two rendered fields, labelled in full."""
    out = tmp_path_factory.mktemp("drawn") / "set"
    made = render(RenderJob(out=out, fields=2, profiles=["bccd-like"]))
    assert len(made) == 2
    return out


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A small set in LLD's layout with known faults."""
    out = tmp_path_factory.mktemp("faulty") / "set"
    job = FaultyRenderJob(
        out=out, subsets=["H_40X_C2"], patients=6, fields=1, side=320, faults=["sliver"]
    )
    assert render_faulty(job) == 1
    return out


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


# ---- progress --------------------------------------------------------------------------------


def test_track_counts_from_what_was_done():
    recorder = Recorder()
    assert list(track("ab", recorder, "letters", 5, 3)) == ["a", "b"]
    assert recorder.updates == [("letters", 3, 5), ("letters", 4, 5), ("letters", 5, 5)]


def test_work_stops_between_items_and_keeps_what_is_done():
    stop, done = Cancellation(), []
    with pytest.raises(CancelledError):
        for item in track(range(9), stop, "items", 9):
            done.append(item)
            if item == 2:
                stop.cancel()
    assert done == [0, 1, 2]
    with pytest.raises(CancelledError):
        counter(stop, "items", 9)(1)
    counter(NoProgress(), "items", 9)(1)


# ---- jobs ------------------------------------------------------------------------------------


def test_rendering_stops_and_refuses_a_folder_with_files(tmp_path, drawn):
    with pytest.raises(CancelledError):
        render(RenderJob(out=tmp_path / "new", fields=1), Stopped())
    with pytest.raises(OutputError, match="is not empty"):
        render(RenderJob(out=drawn, fields=1))
    with pytest.raises(ConfigError, match="no look or mix 'martian'"):
        render(RenderJob(out=tmp_path / "other", mix="martian"))
    assert not (tmp_path / "other").exists()


def test_an_evaluation_is_followed_stopped_and_names_what_failed(drawn, bundle, tmp_path):
    data = json.loads((drawn / "dataset.json").read_text())
    broken = tmp_path / "broken.json"
    for field in data["fields"]:
        field["image"] = str(drawn / field["image"])
    data["fields"][1]["image"] = str(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    broken.write_text(json.dumps(data))
    options = EvaluationOptions(dataset=broken, bundle=bundle, bootstrap=0, threads=1)
    recorder = Recorder()
    found = evaluate(options, recorder)
    assert recorder.last("fields") == (2, 2)
    assert [i.code for i in recorder.issues] == ["field-failed"]
    assert [Path(path).name for path in found.failures] == ["b.png"]
    with pytest.raises(CancelledError):
        evaluate(options, Stopped())


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"scale": "guess"}, "scale guess: choose auto or truth"),
        ({"iou": 0.33}, "iou 0.33: choose one of"),
        ({"predictions": Path("x"), "cells": True}, "runs no model"),
    ],
)
def test_options_of_an_evaluation_are_checked_without_words_of_a_command_line(options, what):
    with pytest.raises(ConfigError, match=what) as caught:
        EvaluationOptions(dataset=Path("x"), **options)
    assert "--" not in str(caught.value)


def test_an_audit_returns_what_it_writes(faulty, tmp_path):
    recorder = Recorder()
    job = AuditJob(roots=[faulty], json=tmp_path / "a.json", html=tmp_path / "a.html")
    report = audit(job, recorder)
    assert recorder.last("looking at fields") == (6, 6)
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(json.dumps(report.to_json()))
    assert report.fields == 6 and sum(report.counts.values()) == len(report.findings)
    assert (tmp_path / "a.html").is_file()
    with pytest.raises(CancelledError):
        audit(AuditJob(roots=[faulty]), Stopped())
    figures = count_dataset(StatisticsJob(root=faulty, json=tmp_path / "s.json"))
    assert json.loads((tmp_path / "s.json").read_text())["fields"] == figures["fields"] == 6


def test_a_repair_leaves_the_original_alone(faulty, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in faulty.rglob("*")}
    done = repair(RepairJob(root=faulty, out=tmp_path / "out", pixels=False))
    assert any(change.rule == "slivers" for change in done.changes) or done.left
    assert (tmp_path / "out" / "changes.jsonl").is_file()
    assert {p: p.stat().st_mtime_ns for p in faulty.rglob("*")} == before


def test_a_split_writes_the_file_and_the_set(faulty, tmp_path):
    job = SplitJob(
        roots=[faulty],
        out=tmp_path / "split.json",
        plan=SplitPlan(0.3, 0.2, 1),
        dataset=tmp_path / "set.json",
    )
    done = split(job)
    assert done.written == 6 == sum(done.split.counts().values())
    again = summarise_dataset(ReadSettings(path=tmp_path / "set.json"))
    assert sum(again["splits"].values()) == 6


def test_overlaps_are_followed(faulty, tmp_path):
    recorder = Recorder()
    found = find_overlaps(OverlapsJob(root=faulty, json=tmp_path / "o.json"), recorder)
    assert len(found.table.rows) == 6
    assert recorder.last("looking at fields") == (6, 6)
    assert (tmp_path / "o.json").is_file()


def test_a_conversion_says_what_was_lost(drawn, tmp_path):
    source = ReadSettings(path=drawn / "dataset.json")
    done = convert(ConversionJob(source=source, target=tmp_path / "yolo", to="yolo"))
    assert done.fields == 2
    assert any("attributes" in line for line in messages(done.losses))


def test_a_set_without_a_usable_field_is_not_converted(drawn, tmp_path):
    convert(
        ConversionJob(
            source=ReadSettings(path=drawn / "dataset.json"),
            target=tmp_path / "coco.json",
            to="coco",
        )
    )
    document = json.loads((tmp_path / "coco.json").read_text())
    for image in document["images"]:
        image["file_name"] = f"gone/{image['file_name']}"
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "labels.json").write_text(json.dumps(document))
    source = ReadSettings(path=tmp_path / "set" / "labels.json")
    with pytest.raises(DataError, match="no field of it can be used") as caught:
        convert(ConversionJob(source=source, target=tmp_path / "yolo", to="yolo"))
    assert "images are missing" in str(caught.value)
    assert not (tmp_path / "yolo").exists()


@pytest.fixture
def without_pyarrow(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)


def test_a_missing_extra_is_noticed_before_the_work(drawn, faulty, tmp_path, without_pyarrow):
    """Where it takes minutes to come to what needs the package."""
    jobs = [
        lambda: find_overlaps(OverlapsJob(root=faulty, dataset=tmp_path / "x.parquet"), Stopped()),
        lambda: split(
            SplitJob(roots=[faulty], out=tmp_path / "s.json", dataset=tmp_path / "x.parquet")
        ),
        lambda: convert(
            ConversionJob(
                source=ReadSettings(path=drawn), target=tmp_path / "x.parquet", to="index"
            )
        ),
        lambda: transfer(
            TransferJob(source=drawn, targets=[drawn], out=tmp_path / "t", to="index"), Stopped()
        ),
    ]
    for job in jobs:
        with pytest.raises(ModuleNotFoundError) as caught:
            job()
        assert caught.value.name == "pyarrow"
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_of_training_an_adaptation_begins_nothing(tmp_path, monkeypatch):
    from bloodfilm.workflows.adapt import AdaptJob, adapt

    monkeypatch.setitem(sys.modules, "onnx", None)
    save(tmp_path / "in" / "a.png", draw(lay_out(120.0, 80.0), (480, 320)))
    with pytest.raises(ModuleNotFoundError, match="onnx"):
        adapt(AdaptJob(bundle=None, target=[str(tmp_path / "in")], out=tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_plan_leaves_out_what_cannot_be_opened(tmp_path):
    save(
        tmp_path / "in" / "a.png",
        draw(lay_out(120.0, 80.0, [(40.0, 40.0, "monocyte")]), (480, 320)),
    )
    (tmp_path / "in" / "b.png").write_bytes(b"")
    recorder = Recorder()
    job = PlanJob(folder=tmp_path / "in", out=tmp_path / "plan", by="random", seed=3)
    made = plan(job, recorder)
    assert (made.fields, made.regions, len(made.failures)) == (1, 1, 1)
    assert [i.data["path"] for i in recorder.issues] == [str(tmp_path / "in" / "b.png")]
    with pytest.raises(OutputError, match="holds a plan"):
        plan(job)
    with pytest.raises(ConfigError, match="planner luck"):
        plan(PlanJob(folder=tmp_path / "in", out=tmp_path / "p", by="luck"))
    (tmp_path / "in" / "a.png").unlink()
    with pytest.raises(DataError, match="none of its 1 files"):
        plan(PlanJob(folder=tmp_path / "in", out=tmp_path / "p", by="random"))
    assert not (tmp_path / "p").exists()


def test_a_transfer_is_followed_and_stopped(drawn, tmp_path):
    targets = [drawn / "bccd-like"]
    recorder = Recorder()
    job = TransferJob(source=drawn / "dataset.json", targets=targets, out=tmp_path / "t")
    result = transfer(job, recorder)
    assert len(result.records) == 2
    assert recorder.last("aligning") == (2, 2)
    assert json.loads(result.path.read_text())["targets"] == 2
    assert [p.name for p in (tmp_path / "t").iterdir() if p.name.startswith(".")] == []
    job = TransferJob(source=drawn / "dataset.json", targets=targets, out=tmp_path / "s")
    with pytest.raises(CancelledError):
        transfer(job, Stopped())


@pytest.mark.parametrize("place", ["file/a", "file", "link/a"])
def test_what_cannot_be_made_is_named_before_any_work(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(OutputError, match=place.partition("/")[0]):
        check_can_hold(tmp_path / place)
    check_can_hold(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
