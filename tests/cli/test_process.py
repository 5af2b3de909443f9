"""The process of the command line: signals, streams that are closed or full, names in lines."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from fake_bundle import draw, lay_out, save, write_bundle

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")
HANGS = 600
"""Seconds after which a command hangs, on the slowest machine."""


@pytest.fixture(autouse=True)
def signals_by_default():
    """What a parent ignores its children ignore: SIGHUP where tests run under `nohup`."""
    before = {
        n: signal.getsignal(n) for n in (signal.SIGTERM, getattr(signal, "SIGHUP", None)) if n
    }
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(closing):
    code = (
        "import sys, threading, time\n"
        "from bloodfilm.cli import app, main\n"
        "def work():\n"
        "    for _ in range(3):\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('closing', flush=True)\n"
        f"        time.sleep({closing})\n"
        "app.app.command('work')(work)\n"
        "sys.argv = ['bloodfilm', 'work']\n"
        "main.main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@POSIX
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_stops_the_command_in_order(number, code):
    process = start(closing=0)
    process.send_signal(getattr(signal, number))
    out, err = process.communicate(timeout=HANGS)
    assert out == "closing\n"
    (line,) = err.splitlines()
    assert line.startswith("stopped")
    assert process.returncode == code


@POSIX
def test_a_command_under_nohup_goes_on_without_its_terminal():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = start(closing=0)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=HANGS)
    assert process.returncode == 143


@POSIX
@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_second_signal_ends_it_at_once_with_the_same_code(number, code):
    process = start(closing=60)
    process.send_signal(getattr(signal, number))
    assert process.stdout is not None
    assert process.stdout.readline() == "closing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=HANGS)
    assert process.returncode == code
    assert err == ""


def bloodfilm(*arguments, **options):
    command = [sys.executable, "-m", "bloodfilm", *map(str, arguments)]
    return subprocess.run(command, check=False, timeout=HANGS, **options)


@POSIX
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_stdout_is_an_error_and_a_full_stderr_is_none():
    with Path("/dev/full").open("w") as full:
        for words in (["--version"], ["data", "fetch", "lld"]):
            done = bloodfilm(*words, stdout=full, stderr=subprocess.PIPE, text=True)
            assert done.returncode == 2
            (line,) = done.stderr.splitlines()
            assert line.startswith("error: ") and "no space left" in line
        done = bloodfilm("data", "info", "nowhere", stdout=subprocess.PIPE, stderr=full)
        assert done.returncode == 2


@POSIX
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_are_no_fault(closed, tmp_path):
    """The number of a closed stream must not go to a file that is written."""
    command = f'"$0" -m bloodfilm films {tmp_path / "o"} --fields 1 --look bccd-like {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command, sys.executable], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "o" / "dataset.json").read_text())["fields"]


def test_an_output_without_letters_beyond_ascii_is_no_fault():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = bloodfilm("data", "fetch", "lld", capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="names that only POSIX allows")
def test_names_do_nothing_to_the_terminal(tmp_path):
    names = [
        "\x1b]0;title\x07.png",
        "a\nerror: b.png",
        "\u202egnp.exe.png",
        os.fsdecode(b"\xff.png"),
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"no picture")
    save(folder / "z.png", draw(lay_out(120.0, 80.0, []), (480, 320)))
    bundle = write_bundle(tmp_path / "bundle")
    words = ("analyze", folder, "-o", tmp_path / "out", "--bundle", bundle, "--no-report")
    done = bloodfilm(*words, capture_output=True)
    assert done.returncode == 1
    said = done.stderr.decode("utf-8")
    # On a slow machine there are lines of progress, too.
    lines = [line for line in said.splitlines() if not line.startswith("fields: ")]
    assert len(lines) == len(names)
    assert all(line.startswith("failed: ") for line in lines)
    assert not set(said) & {"\x1b", "\x07", "\u202e"}
    for shown in ("\\x1b]0;title\\x07.png", "a\\x0aerror: b.png", "\\u202egnp", "\\xff.png"):
        assert shown in said


def test_names_in_labels_forge_no_line(tmp_path):
    forged = "problem\nproblems: none\x1b[2K"
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 230, np.uint8))
    cell = {"box": [10, 10, 20, 20], "class": forged, "id": forged, "attributes": {forged: "a"}}
    other = {**cell, "class": "other"}
    field = {"image": "a.png", "width": 64, "height": 64, "cells": [cell, other]}
    field |= {"patient": forged, "split": forged, "diagnosis": forged}
    taxonomy = [{"name": "cell", "parent": None}]
    taxonomy += [{"name": name, "parent": "cell"} for name in (forged, "other")]
    document = {
        "format": "bloodfilm-dataset",
        "version": 1,
        "name": forged,
        "licence": forged,
        "taxonomy": taxonomy,
        "schema": {
            "name": "s",
            "attributes": [{"name": forged, "title": forged, "values": ["a", forged]}],
        },
        "problems": [forged],
        "fields": [field],
    }
    (tmp_path / "bloodfilm.json").write_text(json.dumps(document))
    for command in ("info", "stats", "audit"):
        done = bloodfilm("data", command, tmp_path, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        assert "problem\\x0aproblems: none\\x1b[2K" in done.stdout, command
        assert not [x for x in done.stdout.splitlines() if x.startswith("problems: none")]
        assert "\x1b" not in done.stdout


@pytest.mark.slow
def test_quiet_verbose_and_the_log(tmp_path):
    folder = tmp_path / "in"
    (folder).mkdir()
    (folder / "a.png").write_bytes(b"no picture")
    save(folder / "b.png", draw(lay_out(120.0, 80.0, []), (480, 320)))
    bundle = write_bundle(tmp_path / "bundle")
    log = tmp_path / "run.log"
    words = ("analyze", folder, "--bundle", bundle, "--no-report", "--log-file", log)
    done = bloodfilm(*words, "-q", "-o", tmp_path / "q", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert [line[:8] for line in done.stderr.splitlines()] == ["failed: "]
    first = log.read_text().splitlines()
    assert any("a.png" in line and "failed" in line for line in first)
    done = bloodfilm("-v", *words, "-o", tmp_path / "q", capture_output=True, text=True)
    assert done.returncode == 2
    assert "DataError" not in done.stderr
    assert len(log.read_text().splitlines()) > len(first)
    assert "Traceback" in log.read_text()
    precious = tmp_path / "in" / "b.png"
    before = precious.read_bytes()
    done = bloodfilm("data", "info", folder, "--log-file", precious, capture_output=True, text=True)
    assert done.returncode == 2 and "no log" in done.stderr
    assert precious.read_bytes() == before


def test_lines_come_now_and_then_where_progress_is_piped(capsys):
    from bloodfilm.cli.progress import FIRST_LINE, TerminalProgress
    from bloodfilm.core.issues import Issue

    now = [0.0]
    with TerminalProgress(clock=lambda: now[0]) as progress:
        for done in range(200):
            progress.update("fields", done, 200)
            now[0] += 1
        progress.report(Issue("run-stopped", "info", "3 of 200 files are done and kept"))
        progress.update("report", 0, 9)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"fields: {FIRST_LINE:.0f} of 200"
    assert len(lines) == 8
    assert lines[-1] == "3 of 200 files are done and kept; go on with --resume"


def test_the_demo_says_how_to_call_the_program(monkeypatch, tmp_path):
    from bloodfilm.cli.demo import program

    script = tmp_path / "venv" / "bin" / "bloodfilm"
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(script)])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program() == str(Path("venv") / "bin" / "bloodfilm")
    monkeypatch.setenv("PATH", str(script.parent))
    assert program() == "bloodfilm"


def test_completion_is_offered():
    done = bloodfilm("--help", capture_output=True, text=True)
    assert "--install-completion" in done.stdout
    environment = {**os.environ, "_BLOODFILM_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": "bloodfilm ana", "COMP_CWORD": "1"}
    done = bloodfilm(capture_output=True, text=True, env=environment)
    assert "analyze" in done.stdout.split()


@pytest.mark.slow
def test_a_cut_slide_is_one_line(tmp_path):
    """No library prints beside it."""
    made = bloodfilm("films", tmp_path / "sl", "--slide", "1200x900", capture_output=True)
    assert made.returncode == 0, made.stderr
    (slide,) = (tmp_path / "sl").glob("*.tif*")
    cut = tmp_path / "cut.tif"
    cut.write_bytes(slide.read_bytes()[: slide.stat().st_size // 2])
    done = bloodfilm(
        "analyze", cut, "--out", tmp_path / "out", "--no-report", capture_output=True, text=True
    )
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert done.returncode == 2 and len(lines) == 1 and "cut.tif" in lines[0], done.stderr
