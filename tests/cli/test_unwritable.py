"""Every command that writes: an output that cannot be written is one line, and exit code 2."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from fake_bundle import draw, lay_out, save, write_bundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="limits and devices of POSIX"),
]
OUT = "OUT"

# What each command is given, in a folder that `inputs` made; OUT is its output.
COMMANDS = {
    "analyze": f"analyze fields --bundle bundle --out {OUT}",
    "analyze --no-report": f"analyze fields --bundle bundle --no-report --out {OUT}",
    "analyze --save-crops": f"analyze fields --bundle bundle --save-crops --out {OUT}",
    "report": f"report results --out {OUT}",
    "demo": f"demo --out {OUT}",
    "compare": f"compare results results --json {OUT}",
    "evaluate": f"evaluate set.json --bundle bundle --bootstrap 0 --json {OUT}",
    "films": f"films {OUT} --fields 1",
    "films --slide": f"films {OUT} --slide 600x600",
    "annotate plan": f"annotate plan fields --bundle bundle --budget 20% --out {OUT}",
    "annotate complete": f"annotate complete set.json --bundle bundle --out {OUT}",
    "annotate names": f"annotate names set.json --bundle bundle --out {OUT}",
    "annotate scale": f"annotate scale set.json --bundle bundle --out {OUT}",
    "data audit": f"data audit set.json --no-pixels --html {OUT}",
    "data stats": f"data stats set.json --html {OUT}",
    "data overlaps": f"data overlaps set.json --dataset {OUT}",
    "data split": f"data split set.json --out {OUT}",
    "data fix": f"data fix lld --out {OUT}",
    "data transfer": f"data transfer set.json fields --match content --out {OUT}",
    "exemplars": f"exemplars bundle --data . --out {OUT}",
    "attributes": f"attributes bundle --data . --out {OUT}",
    "adapt": f"adapt bundle --target fields --out {OUT}",
    "learn": f"learn bundle cells --out {OUT}",
    "train": f"train detector.toml --data . --out {OUT}",
    "export": f"export bundle bundle --out {OUT}",
    **{
        f"data convert --to {to}": f"data convert set.json {OUT} --to {to} --copy-images"
        for to in ("bloodfilm", "coco", "cvat", "folder", "index", "label_studio", "qupath", "voc",
                   "yolo")
    },
    "data convert --to csv": f"data convert results/result.json {OUT} --to csv",
    "data convert --to parquet": f"data convert results/result.json {OUT} --to parquet",
}  # fmt: skip


REFUSED_FIRST = {
    "annotate names", "data split", "exemplars", "attributes", "adapt", "learn", "train", "export",
}  # fmt: skip
"""The inputs here are too few, or not trained, for these: only where OUT lies is judged before."""


def lld(folder: Path) -> None:
    """Write a set of one field in LLD's layout."""
    part = folder / "H_40X_C2"
    (part / "json_labels").mkdir(parents=True)
    (part / "Images" / "train").mkdir(parents=True)
    save(part / "Images" / "train" / "1_1_400_ALL.png", np.full((64, 64, 3), 235, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "1_1_400_ALL.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "MYELOBLAST"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 50, 50], "nuclear_shape": 0}
        ],
    }
    (part / "json_labels" / "train.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with two fields, their labels, a bundle and the results of an analysis."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "fields").mkdir()
    discs = lay_out(120.0, 80.0, [(30.0, 30.0, "monocyte"), (80.0, 50.0, "monocyte")])
    for name in ("a", "b"):
        save(folder / "fields" / f"{name}.png", draw(discs, (480, 320)))
    content = {
        "images": [
            {"id": n, "file_name": f"fields/{name}.png", "width": 480, "height": 320}
            for n, name in enumerate("ab")
        ],
        "categories": [{"id": 1, "name": "monocyte"}],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [96, 96, 48, 48]} for n in (0, 1)
        ],
    }
    (folder / "set.json").write_text(json.dumps(content))
    lld(folder / "lld")
    for name in ("hairy cell", "monocyte"):
        (folder / "cells" / name).mkdir(parents=True)
        shutil.copy(folder / "fields" / "a.png", folder / "cells" / name / "a.png")
    write_bundle(folder / "bundle")
    (folder / "a file").write_text("mine")
    done = run(folder, "analyze fields --bundle bundle --no-report --out results")
    assert done.exit_code == 0, done.output
    return folder


def run(folder: Path, line: str, out: str = ""):
    before = Path.cwd()
    os.chdir(folder)
    try:
        return CliRunner().invoke(app, [out if w == OUT else w for w in line.split()])
    finally:
        os.chdir(before)


def everything(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(done, *names: str) -> None:
    said = [line for line in done.output.splitlines() if line.startswith("error: ")]
    assert done.exit_code == 2, (done.exit_code, done.output, done.exception)
    assert len(said) == 1, done.output
    assert any(name in said[0] for name in names), said[0]


def is_named(inputs: Path, name: str, out: str) -> None:
    before = everything(inputs)
    refused(run(inputs, COMMANDS[name], out), out, out.rpartition("/")[0])
    assert everything(inputs) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_below_a_file_is_named(inputs, name):
    is_named(inputs, name, "a file/sub")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that takes no file")
@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in REFUSED_FIRST])
def test_an_output_that_the_system_refuses_is_named(inputs, name):
    is_named(inputs, name, "/proc/bloodfilm")


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in REFUSED_FIRST])
def test_a_disk_that_is_full_is_named_and_leaves_what_was_there(inputs, name, tmp_path):
    resource = pytest.importorskip("resource")
    before = everything(inputs)
    out = tmp_path / "new"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # no file can grow: as on a full disk
    try:
        done = run(inputs, COMMANDS[name], str(out))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(done, str(out), "not enough", "too large")
    assert everything(inputs) == before
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size]
