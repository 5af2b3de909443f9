"""Mirrored and turned copies of a picture: found, named as leaks, kept in one split."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.files import write_bytes
from bloodfilm.duplicates.overlaps import reduced
from bloodfilm.duplicates.symmetric_copies import SYMMETRIES, find_symmetric_copies, symmetric
from bloodfilm.splits.grouping import original_name
from bloodfilm.synthetic import SceneSpec, render_field


@pytest.fixture(scope="module")
def fields() -> list[np.ndarray]:
    spec = SceneSpec(whites=4)
    return [
        cv2.cvtColor(
            render_field("lld40x-like", spec, seed=s, size=(320, 240))[0], cv2.COLOR_RGB2GRAY
        )
        for s in range(3)
    ]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_a_copy_is_found_under_every_symmetry(fields: list[np.ndarray], symmetry: str) -> None:
    varied = cv2.convertScaleAbs(
        np.ascontiguousarray(symmetric(fields[0], symmetry)), None, 0.9, 12
    )
    _, data = cv2.imencode(".jpg", varied, [cv2.IMWRITE_JPEG_QUALITY, 80])
    copy = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    pictures = {1: fields[0], 4: fields[1], 5: fields[2], 7: copy}
    (found,) = find_symmetric_copies({n: reduced(p) for n, p in pictures.items()})
    assert (found.first, found.second) == (1, 7)
    undone = symmetric(copy, found.symmetry)
    assert np.corrcoef(undone.ravel(), fields[0].ravel())[0, 1] > 0.95


def test_other_fields_and_empty_ones_are_no_copies(fields: list[np.ndarray]) -> None:
    empty = np.full((240, 320), 200, np.uint8)
    pictures = [*fields, empty, empty]
    assert find_symmetric_copies({n: reduced(p) for n, p in enumerate(pictures)}) == []


def test_a_mirrored_copy_in_another_split_is_a_leak(
    fields: list[np.ndarray], tmp_path: Path
) -> None:
    places = {"train/f1": fields[0], "val/g1": fields[0][:, ::-1], "val/f2": fields[1]}
    for name, grey in places.items():
        split, stem = name.split("/")
        for folder in ("images", "labels"):
            (tmp_path / "set" / folder / split).mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".png", np.ascontiguousarray(grey))[1].tobytes()
        write_bytes(tmp_path / "set" / "images" / split / f"{stem}.png", data)
        label = tmp_path / "set" / "labels" / split / f"{stem}.txt"
        label.write_text("0 0.5 0.5 0.1 0.2\n", "utf-8")
    (tmp_path / "set" / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnames: [WBC]\n", "utf-8"
    )
    report = tmp_path / "audit.json"
    done = CliRunner().invoke(app, ["data", "audit", str(tmp_path / "set"), "--json", str(report)])
    assert done.exit_code == 1, done.output
    found = [f for f in json.loads(report.read_text("utf-8"))["findings"]
             if f["code"] == "augmented-copy"]  # fmt: skip
    assert [f["severity"] for f in found] == ["error"]
    assert {Path(found[0]["file"]).stem, *(Path(p).stem for p in found[0]["others"])} == {
        "f1",
        "g1",
    }


def test_roboflow_names_tell_the_original() -> None:
    assert original_name("a/f1_png.rf.3f2a9c0d.jpg") == original_name("b/f1_png.rf.77aa00ff.png")
    assert original_name("a/f1.rf.jpg") == "f1.rf.jpg"
