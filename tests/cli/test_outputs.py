"""No command replaces what it reads, nor what is no file."""

import json
import os
import threading

import pytest
from PIL import Image
from typer.testing import CliRunner

from bloodfilm.cli.app import app


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (128, 128), "white").save(tmp_path / "pictures" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "pictures/a.png", "width": 128, "height": 128}],
        "categories": [{"id": 1, "name": "lymphocyte"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 40, 48, 48]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "link.json").symlink_to("a.json")
    return tmp_path


def everything(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(line):
    return CliRunner().invoke(app, line.split())


@pytest.mark.parametrize(
    "output", ["a.json", "link.json", "./pictures/../a.json", "pictures/a.png"]
)
@pytest.mark.parametrize(
    "command",
    [
        "data audit a.json --no-pixels --json",
        "data audit a.json --no-pixels --html",
        "data stats a.json --json",
        "data stats a.json --html",
        "data overlaps a.json --json",
        "data overlaps a.json --dataset",
        "data split a.json --out",
        "data split a.json --out new.json --dataset",
        "evaluate a.json --json",
    ],
)
def test_an_input_is_not_replaced(data, command, output):
    before = everything(data)
    result = run(f"{command} {output}")
    assert result.exit_code == 2 and "is an input" in result.output
    assert len(result.output.splitlines()) == 1 and everything(data) == before


def test_what_is_in_an_input_folder_is_not_replaced(data):
    (data / "set").mkdir()
    (data / "a.json").rename(data / "set" / "a.json")
    (data / "pictures").rename(data / "set" / "pictures")
    (data / "set" / "notes.txt").write_text("mine")
    before = everything(data)
    result = run("data stats set --json set/notes.txt")
    assert result.exit_code == 2 and "name a file elsewhere" in result.output
    assert everything(data) == before
    assert run("data stats set --json set/new.json").exit_code == 0


def test_two_outputs_are_two_files(data):
    result = run("data stats a.json --json x --html ./x")
    assert result.exit_code == 2 and "named for two outputs" in result.output
    assert not (data / "x").exists()


def test_a_conversion_does_not_replace_its_label_file(data):
    before = everything(data)
    result = run("data convert a.json a.json --to bloodfilm --overwrite")
    assert result.exit_code == 2 and "is an input" in result.output
    assert everything(data) == before


def test_a_pipe_gets_the_output_and_stays_a_pipe(data):
    os.mkfifo(data / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((data / "pipe").read_text()), daemon=True)
    reader.start()
    assert run("data stats a.json --json pipe").exit_code == 0
    reader.join(10)
    assert json.loads(got[0])["cells"] == 1 and (data / "pipe").is_fifo()


def test_a_result_is_not_written_through_links(data):
    (data / "out").mkdir()
    (data / "out" / "results.part.jsonl").symlink_to(data / "victim")
    result = run("analyze pictures --out out --no-report")
    assert result.exit_code == 2 and "not written through links" in result.output
    assert not (data / "victim").exists()
    result = run("analyze pictures --out out --no-report --overwrite")
    assert result.exit_code == 0, result.output
    assert not (data / "victim").exists()


def test_only_images_of_the_set_are_copied(data):
    (data / "private").mkdir()
    (data / "private" / "id_rsa").write_text("PRIVATE KEY")
    Image.new("RGB", (64, 64), "red").save(data / "private" / "face.png")
    (data / "set").mkdir()
    names = ["own.png", "notes.png"]
    Image.new("RGB", (64, 64), "white").save(data / "set" / "own.png")
    (data / "set" / "notes.png").write_text("no image")

    def labels(*files):
        images = [
            {"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(files)
        ]
        content = {"images": images, "categories": [], "annotations": []}
        (data / "set" / "labels.json").write_text(json.dumps(content))

    labels(*names)
    result = run("data convert set one --to coco --copy-images")
    assert result.exit_code == 0 and "notes.png, which is not an image" in result.output
    assert [p.name for p in (data / "one" / "images").iterdir()] == ["own.png"]
    for how in ("--copy-images", "--link"):
        for stray in ("../private/face.png", str(data / "private" / "id_rsa")):
            labels("own.png", stray)
            result = run(f"data convert set two --to coco {how}")
            assert result.exit_code == 2 and "lies outside of set" in result.output
            assert not (data / "two").exists()
    labels("own.png", "../private/face.png", "../private/id_rsa")
    result = run("data convert set two --to coco --copy-images --allow-outside")
    assert result.exit_code == 0
    assert "from outside of set: private/face.png" in result.output
    assert "left out: private/id_rsa, which is not an image" in result.output
    assert sorted(p.name for p in (data / "two" / "images").iterdir()) == ["face.png", "own.png"]


def test_an_analysis_does_not_replace_an_image(data):
    """An image that is named outright is read whatever its suffix."""
    (data / "out").mkdir()
    (data / "pictures" / "a.png").rename(data / "out" / "report.html")
    before = everything(data)
    result = run("analyze out/report.html --out out --overwrite")
    assert result.exit_code == 2 and "is an input" in result.output
    assert everything(data) == before
