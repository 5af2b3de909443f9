"""`bloodfilm analyze` as a user meets it: files, exit codes, messages, going on after a stop."""

import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

import bloodfilm
from bloodfilm.cli.app import app
from bloodfilm.inference.results_log import ResultsLog
from fake_bundle import Disc, draw, lay_out, save, write_bundle

LEAVES = ("lymphocyte", "eosinophil", "basophil", "monocyte")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four fields of distinct glass, one nucleated cell each."""
    place = tmp_path_factory.mktemp("fields")
    for i, leaf in enumerate(LEAVES):
        discs = lay_out(120.0, 80.0, [(40.0 + 8 * i, 40.0, leaf)], step=17.0 + i)
        save(place / f"{i}.png", draw(discs, (480, 320)))
    return place


@pytest.fixture
def analyze(bundle):
    def run(*args, **kwargs):
        arguments = ["analyze", *map(str, args), "--bundle", str(bundle)]
        return CliRunner().invoke(app, arguments, **kwargs)

    return run


def invoke(*words):
    return CliRunner().invoke(app, list(map(str, words)))


def rows(path):
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def refused(result, *says):
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ")
    for words in says:
        assert words in line
    return line


def test_a_folder_becomes_a_table_a_record_and_a_report(analyze, folder, tmp_path):
    result = analyze(folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    names = sorted(p.name for p in out.iterdir() if not p.name.startswith("."))
    assert names == [
        "cases",
        "cases.csv",
        "cells.csv",
        "report.html",
        "report_files",
        "result.json",
    ]
    pictures = [{p.suffix for p in f.iterdir()} for f in (out / "report_files").iterdir()]
    assert pictures == [{".jpg"}] * 4
    table = rows(out / "cells.csv")
    assert [r["class"] for r in table] == list(LEAVES)
    assert [Path(r["image"]).name for r in table] == ["0.png", "1.png", "2.png", "3.png"]
    for name in ("x", "y", "w", "h", "score", "class_score", "diameter_um"):
        assert all(float(r[name]) > 0 for r in table)
    assert table[0]["nuclear_shape"] == "regular"
    assert float(table[0]["nuclear_shape_probability"]) > 0.9
    record = json.loads((out / "result.json").read_text())
    assert record["format"] == "bloodfilm-result"
    assert len(record["bundle"]["sha256"]) == 64
    assert len(record["fields"]) == 4 and record["failures"] == []
    assert record["fields"][0]["cells"][0]["object_type"] in ("nucleated cell", "red cell")
    assert "4 nucleated cells" in result.stdout


def test_all_cells_lists_the_others_too(analyze, folder, tmp_path):
    analyze(folder / "0.png", "--out", tmp_path / "a", "--all-cells", "--no-report")
    kinds = {r["object_type"] for r in rows(tmp_path / "a" / "cells.csv")}
    assert kinds == {"nucleated cell", "red cell"}
    assert not (tmp_path / "a" / "report.html").exists()


def test_the_same_run_gives_the_same_bytes(analyze, folder, tmp_path):
    made = []
    for threads in ("1", "3"):
        out = tmp_path / threads
        analyze(folder, "--out", out, "--threads", threads, "--no-report")
        made.append([(out / n).read_bytes() for n in ("result.json", "cells.csv")])
    assert made[0] == made[1]


def test_json_is_all_that_stdout_holds(analyze, folder, tmp_path):
    result = analyze(folder, "--out", tmp_path / "o", "--json", "--no-report")
    summary = json.loads(result.stdout)
    assert (summary["fields"], summary["failures"]) == (4, 0)
    assert summary["classes"] == dict.fromkeys(sorted(LEAVES), 1)
    assert Path(summary["files"]["result"]).is_file()


def test_a_corrupt_file_among_good_ones_is_named_and_the_exit_code_is_1(analyze, folder, tmp_path):
    mixed = tmp_path / "mixed"
    for path in folder.glob("*.png"):
        save_bytes(mixed / path.name, path.read_bytes())
    save_bytes(mixed / "1.png", (folder / "1.png").read_bytes()[:2000])
    result = analyze(mixed, "--out", tmp_path / "o", "--no-report")
    assert result.exit_code == 1
    named = [line for line in result.stderr.splitlines() if line.startswith("failed: ")]
    assert len(named) == 1 and "1.png" in named[0]
    record = json.loads((tmp_path / "o" / "result.json").read_text())
    assert [f["image"] for f in record["failures"]] == [str(mixed / "1.png")]
    assert len(record["fields"]) == 3


def save_bytes(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_if_every_file_fails_the_exit_code_is_2_and_the_record_says_why(analyze, tmp_path):
    save_bytes(tmp_path / "in" / "a.png", b"no picture")
    result = analyze(tmp_path / "in", "--out", tmp_path / "o", "--no-report")
    assert result.exit_code == 2
    record = json.loads((tmp_path / "o" / "result.json").read_text())
    assert record["fields"] == [] and len(record["failures"]) == 1


def test_a_quoted_glob_is_understood(analyze, folder, tmp_path):
    result = analyze(f"{folder}/[01].png", "--out", tmp_path / "o", "--json", "--no-report")
    assert json.loads(result.stdout)["images"] == 2


def test_what_cannot_be_done_is_said_in_one_line(analyze, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    out = tmp_path / "o"
    refused(analyze(tmp_path / "empty", "--out", out), "empty", "no images")
    refused(analyze(tmp_path / "nowhere", "--out", out), "nowhere")
    refused(analyze(f"{tmp_path}/*.gif", "--out", out), "*.gif")
    refused(analyze(folder, "--out", tmp_path / "file"), "is a file")
    refused(analyze(folder, "--out", out, "--min-score", "2"), "between 0 and 1")
    refused(analyze(folder, "--out", out, "--um-per-px", "-1"), "um_per_px")
    refused(analyze(folder, "--out", out, "--device", "abacus"), "abacus")
    refused(analyze(folder, "--out", out, "--resume", "--overwrite"), "choose one")
    assert not out.exists()


def test_a_bad_bundle_is_said_in_one_line(folder, tmp_path):
    def run(place):
        arguments = ["analyze", str(folder), "--out", str(tmp_path / "o"), "--bundle", str(place)]
        return CliRunner().invoke(app, arguments)

    refused(run(tmp_path / "nowhere"), "no such bundle")
    broken = write_bundle(tmp_path / "broken")
    (broken / "reader.onnx").write_bytes(b"x")
    refused(run(broken), "reader.onnx", "checksum")
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission_is_said_in_one_line(analyze, folder, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    refused(analyze(folder, "--out", tmp_path / "closed" / "o"), "permission denied")


def test_results_are_not_overwritten_unasked(analyze, folder, tmp_path):
    out = tmp_path / "o"
    analyze(folder / "0.png", "--out", out, "--no-report")
    before = (out / "result.json").read_bytes()
    refused(analyze(folder, "--out", out), "--overwrite")
    refused(analyze(folder, "--out", out, "--resume"), "1.png was not among its files")
    assert (out / "result.json").read_bytes() == before
    (out / "notes.txt").write_text("mine")
    assert analyze(folder, "--out", out, "--overwrite", "--no-report").exit_code == 0
    assert len(json.loads((out / "result.json").read_text())["fields"]) == 4
    assert (out / "notes.txt").read_text() == "mine"


def test_a_stopped_run_keeps_what_is_done_and_goes_on_to_the_same_bytes(
    analyze, folder, tmp_path, monkeypatch
):
    whole, out = tmp_path / "whole", tmp_path / "stopped"
    analyze(folder, "--out", whole, "--no-report")
    real = ResultsLog.append

    def stop_after_two(log, number, outcome):
        if log.done == 2:
            raise KeyboardInterrupt
        real(log, number, outcome)

    monkeypatch.setattr(ResultsLog, "append", stop_after_two)
    result = analyze(folder, "--out", out, "--no-report")
    assert result.exit_code == 130
    assert "2 of 4 files are done and kept; go on with --resume" in result.stderr
    assert [r["class"] for r in rows(out / "cells.part.csv")] == list(LEAVES[:2])
    monkeypatch.undo()

    refused(analyze(folder, "--out", out, "--no-report"), "--resume", "--overwrite")
    refused(analyze(folder / "0.png", "--out", out, "--resume"), "1.png is missing", "1 now")
    resumed = analyze(folder, "--out", out, "--no-report", "--resume", "--json")
    assert json.loads(resumed.stdout)["fields"] == 4
    written = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert {"result.json", "cells.csv", "cases.csv"} < set(written)
    assert written == sorted(
        p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file()
    )
    for name in written:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def run_program(*args, code="from bloodfilm.cli.app import main; main()", **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=600,  # a run that hangs
        check=False,
        **kwargs,
    )


@pytest.mark.slow
def test_a_full_disk_is_said_in_one_line_and_the_run_can_go_on(folder, bundle, tmp_path):
    """A limit on the size of files stands in for a full disk: writing fails half-way."""
    out = tmp_path / "o"
    arguments = ["analyze", folder, "--out", out, "--bundle", bundle, "--no-report"]

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    stopped = run_program(*arguments, preexec_fn=little_room)
    assert stopped.returncode == 2, stopped.stderr
    (line,) = [s for s in stopped.stderr.splitlines() if s.startswith("error: ")]
    assert "results.part.jsonl" in line and "--resume" in line
    assert "Traceback" not in stopped.stderr
    again = run_program(*arguments, "--resume", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["fields"] == 4
    whole = run_program("analyze", folder, "--out", tmp_path / "w", *arguments[4:])
    assert whole.returncode == 0
    assert (out / "result.json").read_bytes() == (tmp_path / "w" / "result.json").read_bytes()


def test_analysing_needs_no_torch(folder, bundle, tmp_path):
    code = """
import sys
from bloodfilm.cli.app import app
from bloodfilm.inference.results_log import ResultsLog
app(standalone_mode=False)
heavy = {"torch", "torchvision", "timm", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""
    done = run_program("analyze", folder, "--out", tmp_path / "o", "--bundle", bundle, code=code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "report.html").is_file()


def test_stated_scale_and_squeeze_are_used_where_red_cells_are_silent(analyze, tmp_path):
    image = draw([Disc(60.0, 40.0, 12.0)], (480, 320))
    save(tmp_path / "in.png", image)
    analyze(
        tmp_path / "in.png", "--out", tmp_path / "o", "--no-report",
        "--um-per-px", "0.25", "--squeeze", "1",
    )  # fmt: skip
    view = json.loads((tmp_path / "o" / "result.json").read_text())["fields"][0]["view"]
    assert (view["um_per_px_x"], view["um_per_px_y"]) == (0.25, 0.25)
    assert view["scale_source"] == "user"


def test_odd_file_names_come_through(analyze, tmp_path, folder):
    pixels = (folder / "0.png").read_bytes()
    names = ["ü `x`, 1.png", "=cmd.png", os.fsdecode(b"bad\xff.png")]
    for name in names:
        save_bytes(tmp_path / "in" / name, pixels)
    result = analyze(tmp_path / "in", "--out", tmp_path / "o", "--no-report")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "o" / "result.json").read_text())
    assert {Path(f["image"]).name for f in record["fields"]} == set(names)


def test_demo_draws_fields_and_analyses_them(bundle, tmp_path, monkeypatch):
    from bloodfilm.workflows import render

    monkeypatch.setattr(render, "DEMO", (("lld40x-like", 1),))
    arguments = ["demo", "--out", str(tmp_path / "d"), "--bundle", str(bundle)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "d" / "report.html") in result.stdout
    drawn = list((tmp_path / "d" / "fields").rglob("*.png"))
    assert len(drawn) == 1
    image = cv2.imread(str(drawn[0]))
    assert image.dtype == np.uint8
    refused(CliRunner().invoke(app, arguments), "--overwrite")
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0


def test_a_report_in_a_single_file_has_no_folder_beside_it(analyze, folder, tmp_path):
    out = tmp_path / "o"
    assert analyze(folder, "--out", out, "--single-file").exit_code == 0
    assert not (out / "report_files").exists()
    assert "field.jpg" in (out / "report.html").read_text("utf-8")


def test_pictures_are_no_fields_and_follow_the_results(analyze, folder, tmp_path):
    out = folder / "results"
    analyze(folder, "--out", out)
    assert (out / "report_files").is_dir()
    again = analyze(folder, "--out", tmp_path / "o", "--json", "--no-report")
    assert json.loads(again.stdout)["images"] == 4
    assert analyze(folder / "0.png", "--out", out, "--overwrite").exit_code == 0
    assert len(list((out / "report_files").iterdir())) == 1
    analyze(folder / "0.png", "--out", out, "--overwrite", "--no-report")
    assert not (out / "report_files").exists()


def test_no_picture_is_written_through_a_link(analyze, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "report_files").symlink_to(tmp_path / "elsewhere")
    refused(analyze(folder, "--out", tmp_path / "o"), "report_files")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_pictures_that_a_stopped_run_lacks_are_made_on_resume(analyze, folder, tmp_path):
    import shutil

    out = tmp_path / "o"
    analyze(folder, "--out", out)
    whole = {p.relative_to(out): p.read_bytes() for p in (out / "report_files").rglob("*.jpg")}
    shutil.rmtree(out / "report_files")
    report = bloodfilm.write_report(bloodfilm.read_run(out), out)
    assert report.is_file()
    again = {p.relative_to(out): p.read_bytes() for p in (out / "report_files").rglob("*.jpg")}
    assert again == whole


def test_crops_and_annotated_fields_are_saved_and_are_no_fields(analyze, folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "in", ignore=shutil.ignore_patterns("results"))
    out = folder / "results"
    result = analyze(folder, "--out", out, "--no-report", "--save-crops", "--save-images")
    assert result.exit_code == 0, result.output
    table = rows(out / "cells.csv")
    crops = {(p.parent.name, p.stem.split("-", 1)[1]) for p in (out / "crops").rglob("*.jpg")}
    assert crops == {(r["class"], r["cell_id"]) for r in table}
    images = sorted(p.name.split("-")[0] for p in (out / "images").iterdir())
    assert images == ["0", "1", "2", "3"]
    again = analyze(folder, "--out", tmp_path / "o", "--json", "--no-report")
    assert json.loads(again.stdout)["images"] == 4


def test_a_report_is_written_again_with_maps_of_where_the_model_looked(
    analyze, folder, bundle, tmp_path
):
    analyze(folder, "--out", tmp_path / "o", "--no-report")
    words = ("report", tmp_path / "o", "--out", tmp_path / "r", "--explain", 2, "--bundle", bundle)
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r" / "report.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    ids = {cell[2] for cell in data["cells"]}
    assert len(data["maps"]) == 2 and set(data["maps"]) <= ids
    assert all(len(m) == 64 and all(-100 <= v <= 100 for v in m) for m in data["maps"].values())


def test_maps_of_another_model_are_refused(analyze, folder, tmp_path):
    analyze(folder, "--out", tmp_path / "o", "--no-report")
    refused(invoke("report", tmp_path / "o", "--explain", 1), "--bundle")


def test_a_report_of_nothing_is_refused(tmp_path):
    refused(invoke("report", tmp_path), "result.json")
