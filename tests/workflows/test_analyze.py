"""The workflow of an analysis: what a resumed run knows, who works in a folder, who is told."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bloodfilm.core.errors import DataError, OutputError
from bloodfilm.core.locks import LOCK, lock_folder
from bloodfilm.core.progress import Cancellation, CancelledError
from bloodfilm.inference.model import Model
from bloodfilm.inference.results_log import ResultsLog
from bloodfilm.workflows.analyze import AnalysisJob, analyze
from fake_bundle import draw, lay_out, save, write_bundle
from following import Recorder

LEAVES = ("lymphocyte", "eosinophil", "basophil", "monocyte")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn")
    for i, leaf in enumerate(LEAVES):
        discs = lay_out(120.0, 80.0, [(40.0 + 8 * i, 40.0, leaf)], step=17.0 + i)
        save(place / f"{i}.png", draw(discs, (480, 320)))
    return place


@pytest.fixture
def folder(drawn, tmp_path, monkeypatch):
    """Four fields of distinct glass, a nucleated cell in each, in `in` of the working folder."""
    shutil.copytree(drawn, tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return Path("in")


@pytest.fixture
def run(bundle):
    def go(paths, out, progress=None, **options):
        options = {"bundle": bundle, "report": False} | options
        job = AnalysisJob(paths=[paths], out=Path(out), **options)
        return analyze(job, progress)

    return go


class StopAfter(Cancellation):
    """Stops a run after some files."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        self.issues = []

    def update(self, stage, done, total):
        if stage == "fields" and done >= self.count:
            self.cancel()

    def report(self, issue):
        self.issues.append(issue)


@pytest.fixture
def stopped(folder, run):
    """A run in `out` that was stopped after two files."""
    progress = StopAfter(2)
    with pytest.raises(CancelledError):
        run(folder, "out", progress)
    assert [(i.code, i.message) for i in progress.issues] == [
        ("run-stopped", "2 of 4 files are done and kept")
    ]
    return folder


def files(out):
    files = (p for p in sorted(Path(out).rglob("*")) if p.is_file())
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in files}


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def refused(run, *arguments, match, **options):
    before = files("out")
    with pytest.raises(OutputError, match=match):
        run(*arguments, "out", **options)
    assert files("out") == before


def test_a_cancelled_run_is_resumed_to_the_same_bytes(stopped, run):
    run(stopped, "whole")
    recorder = Recorder()
    summary = run(stopped, "out", recorder, existing="resume")
    assert (summary.fields, summary.failures) == (4, [])
    assert files("out") == files("whole")
    assert ("fields", 4, 4) in recorder.updates
    assert ("fields", 1, 4) not in recorder.updates


def test_a_sample_for_the_scale_is_followed_and_taken_up_again(folder, run, monkeypatch):
    monkeypatch.setattr(Model, "outlines_cells", True)  # so that granulocytes are measured
    recorder = Recorder()
    run(folder, "whole", recorder)
    assert ("scale", 4, 4) in recorder.updates
    with pytest.raises(CancelledError):
        run(folder, "out", StopAfter(2))
    assert '"sample": "scale of the group of 0"' in Path("out/results.part.jsonl").read_text()
    recorder = Recorder()
    run(folder, "out", recorder, existing="resume")
    assert "scale" not in {stage for stage, *_ in recorder.updates}
    assert files("out") == files("whole")


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 2, 4])
def test_a_killed_run_is_resumed_to_the_same_bytes_report_and_pictures_included(
    folder, run, bundle, lines
):
    run(folder, "whole", report=True)
    code = "from bloodfilm.cli.main import main; main()"
    command = [sys.executable, "-c", code, "analyze", str(folder), "--out", "out"]
    command += ["--bundle", str(bundle), "--threads", "1"]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL)
    log = Path("out/results.part.jsonl")
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > lines):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(folder, "out", existing="resume", report=True)
    one, two = (
        {name: without_time(data) for name, data in files(out).items()} for out in ("whole", "out")
    )
    assert one == two
    assert any(name.endswith(".jpg") for name in one)


def without_time(data):
    """A page without the time at which it was written."""
    return re.sub(rb"\d{1,2} [A-Z][a-z]+ \d{4}, \d\d:\d\d|datetime=\"[^\"]*\"", b"", data)


def test_a_finished_run_says_so(folder, run):
    run(folder, "out")
    before = files("out")
    summary = run(folder, "out", existing="resume")
    assert summary.nothing_to_do and summary.fields == 4
    assert files("out") == before


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_changed_image_is_named(stopped, run, done):
    """Also one that is not done yet: its red cells bear on the scale of those that are."""
    shutil.copy(stopped / "2.png", stopped / "1.png") if done else shutil.copy(
        stopped / "0.png", stopped / "3.png"
    )
    name = "1.png" if done else "3.png"
    refused(run, stopped, match=rf"in/{name} has changed", existing="resume")


def test_an_image_that_is_only_touched_is_the_same(stopped, run):
    os.utime(stopped / "0.png", (1, 1))
    run(stopped, "whole")
    run(stopped, "out", existing="resume")
    assert files("out") == files("whole")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"min_score": 0.3}, "min_score was not given, now it is 0.3"),
        ({"um_per_px": 0.2}, "um_per_px was not given, now it is 0.2"),
        ({"pixel_aspect_ratio": 0.9}, "squeeze was not given, now it is 0.9"),
    ],
)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "stopped"])
def test_another_setting_is_named(request, folder, run, options, what, finished):
    if finished:
        run(folder, "out")
    else:
        request.getfixturevalue("stopped")
    refused(run, folder, match=what, existing="resume", **options)


def test_other_files_are_named(stopped, run):
    shutil.copy(stopped / "0.png", stopped / "9.png")
    refused(run, stopped, match=r"in/9\.png was not among its files", existing="resume")
    (stopped / "9.png").unlink()
    (stopped / "3.png").rename(stopped / "4.png")
    refused(run, stopped, match=r"in/3\.png is missing", existing="resume")


@pytest.mark.parametrize("same", ["in/", "./in", "in/../in", "cpu", "threads", "bundle"])
def test_what_means_the_same_is_the_same_run(stopped, run, bundle, tmp_path, same):
    options = {}
    paths = stopped
    if same == "cpu":
        options["device"] = "cpu"
    elif same == "threads":
        options |= {"workers": 1, "all_cells": True}
    elif same == "bundle":
        options["bundle"] = shutil.copytree(bundle, tmp_path / "elsewhere")
    else:
        paths = same
    if same == "in/../in":  # the files are called otherwise: half of the results would be, too
        refused(run, paths, match="is missing", existing="resume")
        return
    run(stopped, "whole", **({"all_cells": True} if same == "threads" else {}))
    run(paths, "out", existing="resume", **options)
    assert files("out") == files("whole")


def test_a_failed_file_is_tried_again(folder, run):
    good = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(b"no picture")
    progress = StopAfter(3)
    with pytest.raises(CancelledError):
        run(folder, "out", progress)
    assert [i.code for i in progress.issues] == ["field-failed", "run-stopped"]
    (folder / "1.png").write_bytes(good)
    summary = run(folder, "out", existing="resume")
    assert (summary.fields, summary.failures) == (4, [])
    rows = Path("out/cells.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [f"in/{i}.png" for i in range(4)]
    record = json.loads(Path("out/result.json").read_text())
    assert [f["image"] for f in record["fields"]] == [f"in/{i}.png" for i in range(4)]
    assert record["failures"] == []


def test_a_failed_file_of_a_finished_run_is_tried_again(folder, run):
    good = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(b"no picture")
    assert len(run(folder, "out").failures) == 1
    before = files("out")
    recorder = Recorder()
    assert len(run(folder, "out", recorder, existing="resume").failures) == 1
    assert [i.code for i in recorder.issues] == ["field-failed"]
    assert files("out") == before
    (folder / "1.png").write_bytes(good)
    assert run(folder, "out", existing="resume").failures == []
    kept = json.loads(before["result.json"])["fields"]
    now = json.loads(files("out")["result.json"])["fields"]
    assert [f["image"] for f in now] == [f"in/{i}.png" for i in range(4)]
    assert [now[0], *now[2:]] == kept


def test_a_damaged_log_is_named_and_left_alone(stopped, run):
    log = Path("out/results.part.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], *lines[2:]]))
    refused(run, stopped, match="line 4 was line 3", existing="resume")


def test_a_folder_belongs_to_one_run(folder, run):
    Path("out").mkdir()
    with lock_folder(Path("out"), "analysis"):
        for existing in ("refuse", "resume", "overwrite"):
            with pytest.raises(
                OutputError, match=rf"process {os.getpid()} on .* since 2"
            ) as caught:
                run(folder, "out", existing=existing)
            assert "wait until it has finished" in str(caught.value)
    assert names_in("out") == []
    run(folder, "out")
    assert names_in("out") == ["cases", "cases.csv", "cells.csv", "result.json"]


@pytest.mark.skipif(os.name != "posix", reason="kills a process as POSIX does")
def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from bloodfilm.core.locks import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1]), 'work'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=f"process {process.pid} on "):
            lock_folder(tmp_path, "mine").__enter__()
        process.kill()
    assert (tmp_path / LOCK).exists()
    with lock_folder(tmp_path, "mine"):
        pass
    assert not (tmp_path / LOCK).exists()


def test_leftovers_of_a_killed_run_are_removed(folder, run):
    Path("out").mkdir()
    Path("out/.bloodfilm-0123abcd.part").write_bytes(b"half of a result")
    run(folder, "out")
    assert names_in("out") == ["cases", "cases.csv", "cells.csv", "result.json"]


def test_a_disk_that_is_full_loses_nothing(folder, run, monkeypatch):
    real = ResultsLog._write
    written = []

    def full(log, record):
        written.append(record)
        if len(written) == 4:
            monkeypatch.setattr(ResultsLog, "_write", real)
            raise OutputError("out/results.part.jsonl: no space", ["resume"])
        return real(log, record)

    monkeypatch.setattr(ResultsLog, "_write", full)
    with pytest.raises(OutputError, match="no space"):
        run(folder, "out")
    run(folder, "whole")
    run(folder, "out", existing="resume")
    assert files("out") == files("whole")


# ---- inputs ----------------------------------------------------------------------------------


def test_links_to_files_that_are_there_are_named_and_counted(folder, run):
    (folder / "5.png").symlink_to("1.png")
    (folder / "again").symlink_to(".")
    recorder = Recorder()
    summary = run(folder, "out", recorder)
    assert summary.fields == 4
    named = {str(path): str(first) for path, first in summary.repeats}
    assert named["in/5.png"] == "in/1.png"
    assert "in/again/0.png" in named
    repeated = [i for i in recorder.issues if i.code == "repeated-image"]
    assert len(repeated) == len(summary.repeats)
    assert summary.to_json()["repeated_names"] == len(summary.repeats)


def test_only_some_of_many_links_are_named_one_by_one(folder, run):
    for i in range(25):
        (folder / f"l{i}.png").symlink_to("1.png")
    recorder = Recorder()
    assert len(run(folder, "out", recorder).repeats) == 25
    assert [i.message for i in recorder.issues][-1].startswith("15 more names lead")


@pytest.mark.skipif(os.name != "posix", reason="makes a pipe and a socket")
def test_what_has_only_the_name_of_an_image_fails_by_name(folder, run):
    import socket

    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket.png"))
        summary = run(folder, "out")
    assert summary.fields == 4
    reasons = {Path(f.path).name: f.reason for f in summary.failures}
    assert set(reasons) == {"pipe.png", "device.png", "socket.png"}
    assert all("not a regular file" in reason for reason in reasons.values())


@pytest.fixture
def unlistable(monkeypatch):
    """Folders called `closed` cannot be listed, also for root."""
    real = os.scandir

    def scandir(path="."):
        if Path(os.fsdecode(path)).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_fails_by_name(folder, run, unlistable):
    (folder / "closed").mkdir()
    shutil.copy(folder / "0.png", folder / "closed" / "x.png")
    summary = run(folder, "out")
    assert summary.fields == 4
    (failure,) = summary.failures
    assert failure.path == "in/closed"
    assert "cannot be listed (permission denied)" in failure.reason


def test_an_empty_name_is_refused(folder, run):
    with pytest.raises(DataError, match="an empty name"):
        run("", "out")
    assert not Path("out").exists()


@pytest.mark.parametrize("out", ["file/sub", "file", "/proc/x", "/dev/null/x"])
def test_an_output_folder_that_cannot_be_made_is_refused_before_any_work(folder, run, out):
    Path("file").write_text("x")
    if out.startswith("/proc") and not Path("/proc").is_dir():
        pytest.skip("needs /proc")
    with pytest.raises(OutputError) as caught:
        run(folder, out)
    assert out.rpartition("/")[0] in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="names that only POSIX allows")
def test_names_of_any_bytes_come_back_from_both_files(folder, run):
    from bloodfilm.evaluation.predictions import read_predictions

    names = [
        "a\r=1+1.png",
        "b\n.png",
        "=c.png",
        "d\x1b[31m.png",
        os.fsdecode(b"bad\xff.png"),
        'e,".png',
    ]
    for name in names:
        shutil.copy(folder / "0.png", folder / name)
    os.chdir(folder)
    run(".", "../out")
    os.chdir("..")
    wanted = {*names, *(f"{i}.png" for i in range(4))}
    for file in ("out/cells.csv", "out/result.json"):
        found = read_predictions(Path(file))
        assert {os.path.normpath(name) for name in found} == wanted
    rows = Path("out/cells.csv").read_bytes().split(b"\n")
    assert not any(row.startswith((b"=", b"+", b"-", b"@")) for row in rows)
