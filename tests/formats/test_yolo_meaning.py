"""YOLO: what the numbers of a line mean, and what paths in data.yaml mean."""

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core import Cell, DataError, Dataset, Field
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset, save_dataset

BOX = "0.5 0.5 0.1 0.2"
WANT = (90, 40, 20, 20)


def yolo(tmp_path, labels, yaml="train: images\n"):
    (tmp_path / "images").mkdir(exist_ok=True)
    (tmp_path / "labels").mkdir(exist_ok=True)
    for number, text in enumerate(labels):
        Image.new("RGB", (200, 100)).save(tmp_path / "images" / f"{number}.png")
        (tmp_path / "labels" / f"{number}.txt").write_text(text)
    (tmp_path / "data.yaml").write_text(f"names: [WBC, RBC]\n{yaml}")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "yaml", "not_kept"),
    [
        (f"0 {BOX}", "", []),
        (f"0 {BOX} 0.9", "", ["confidence"]),
        (f"0 {BOX} 7", "", ["track id"]),
        (f"0 {BOX} 0.9 7", "", ["confidence", "track id"]),
        (f"0 {BOX} 0.9 1", "", ["confidence", "track id"]),
        (f"0 {BOX} 0.52 0.51", "kpt_shape: [1, 2]\n", ["keypoints"]),
        (f"0 {BOX} 0.52 0.51 2", "kpt_shape: [1, 3]\n", ["keypoints"]),
        (
            f"0 {BOX} 0.52 0.51 0.9 3",
            "kpt_shape: [1, 2]\n",
            ["keypoints", "confidence", "track id"],
        ),
        (f"0 {BOX} 0.52 0.51 0.48 0.5", "task: pose\n", ["keypoints"]),
    ],
)
def test_a_box_with_something_behind_it(tmp_path, line, yaml, not_kept):
    dataset = open_dataset(yolo(tmp_path, [line + "\n"], f"train: images\n{yaml}"))
    (cell,) = dataset[0].cells
    assert cell.box == pytest.approx(WANT) and cell.outline is None
    assert [p.split(": ")[1].split(" of")[0] for p in messages(dataset.issues)] == not_kept


OUTLINES = {
    "square": "0 .45 .4 .55 .4 .55 .6 .45 .6",
    "scored square": "0 .45 .4 .55 .4 .55 .6 .45 .6 .93",
    "tracked square": "0 .45 .4 .55 .4 .55 .6 .45 .6 .93 4",
    "octagon": "0 .48 .4 .52 .4 .55 .45 .55 .55 .52 .6 .48 .6 .45 .55 .45 .45",
    "slanted box": "0 .5 .4 .55 .5 .5 .6 .45 .5",
}


@pytest.mark.parametrize("name", OUTLINES)
def test_an_outline_with_something_behind_it(tmp_path, name):
    dataset = open_dataset(yolo(tmp_path, [OUTLINES[name] + "\n"]))
    (cell,) = dataset[0].cells
    assert cell.box == pytest.approx(WANT)
    if name in ("octagon", "slanted box"):
        assert cell.outline is not None and len(cell.outline.polygons[0]) in (4, 8)


def test_triangles_are_outlines_where_the_set_has_outlines(tmp_path):
    triangle = "0 .45 .4 .55 .4 .5 .6\n"
    alone = open_dataset(yolo(tmp_path, [triangle]))
    assert alone[0].cells == () and "whose meaning is not clear" in messages(alone.issues)[0]
    with pytest.raises(DataError, match=r"state it in data\.yaml: task"):
        open_dataset(tmp_path, strict=True)
    declared = open_dataset(yolo(tmp_path, [triangle], "train: images\ntask: segment\n"))
    assert declared[0].cells[0].box == pytest.approx(WANT)
    among = open_dataset(yolo(tmp_path, [triangle, OUTLINES["octagon"] + "\n"]))
    assert [f.cells[0].box for f in among] == [pytest.approx(WANT)] * 2


def test_keypoints_that_nobody_declares_are_no_outline(tmp_path):
    rng = np.random.default_rng(1)
    rows = []
    for x, y in rng.uniform(0.4, 0.9, size=(20, 2)):
        points = (rng.uniform(-0.03, 0.03, size=(4, 2)) + np.array([x, y])).ravel()
        rows.append(" ".join(["0", *(f"{v:.4f}" for v in (x, y, 0.08, 0.09, *points))]))
    dataset = open_dataset(yolo(tmp_path, ["\n".join(rows)]))
    assert dataset[0].cells == ()
    assert len(dataset.issues) == 20


def test_real_outlines_of_many_corners_are_outlines(tmp_path):
    rng = np.random.default_rng(2)
    rows = []
    for x, y in rng.uniform(0.2, 0.8, size=(20, 2)):
        angles = np.arange(12) * np.pi / 6
        points = np.stack([x + 0.05 * np.cos(angles), y + 0.08 * np.sin(angles)], 1).ravel()
        rows.append(" ".join(["0", *(f"{v:.4f}" for v in points)]))
    dataset = open_dataset(yolo(tmp_path, ["\n".join(rows)]))
    assert len(dataset[0].cells) == 20 and dataset.issues == ()


# ---- paths -----------------------------------------------------------------------------------


def split_set(root):
    for split in ("train", "valid"):
        (root / split / "images").mkdir(parents=True)
        (root / split / "labels").mkdir()
        Image.new("RGB", (64, 64)).save(root / split / "images" / f"{split}.png")
        (root / split / "labels" / f"{split}.txt").write_text("0 .5 .5 .1 .1\n")
    return root


@pytest.mark.parametrize(
    "yaml",
    [
        "train: train/images\nval: valid/images\n",
        "train: ../train/images\nval: ../valid/images\n",
        "path: /content/set\ntrain: train/images\nval: valid/images\n",
        "train: NAME-1/train/images\nval: NAME-1/valid/images\n",
        "train: C:\\data\\train\\images\nval: C:\\data\\valid\\images\n",
        "path: .\ntrain: [train/images]\nval: [valid/images]\n",
    ],
)
def test_folders_beside_the_yaml_are_found(tmp_path, yaml):
    root = split_set(tmp_path / "set")
    (root / "set.yaml").write_text(f"{yaml}names: {{0: WBC}}\n")
    dataset = open_dataset(root)
    assert {f.path.name: f.split for f in dataset} == {"train.png": "train", "valid.png": "val"}
    assert dataset.issues == ()


def test_training_images_that_are_nowhere_are_an_error(tmp_path):
    root = split_set(tmp_path / "set")
    (root / "data.yaml").write_text("train: x/images\nval: valid/images\nnames: [WBC]\n")
    with pytest.raises(DataError, match="train: x/images: is not there"):
        open_dataset(root)
    (root / "data.yaml").write_text("train: train/images\ntest: test/images\nnames: [WBC]\n")
    dataset = open_dataset(root)
    assert len(dataset) == 1 and "test: test/images: is not there" in messages(dataset.issues)[0]


def test_what_is_written_has_all_that_trainers_ask_for(tmp_path):
    import yaml

    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    field = Field(tmp_path / "a.png", 64, 64, (Cell((1, 1, 9, 9), "monocyte"),), split="train")
    for split, place in (("train", "train"), ("val", "val"), (None, "all")):
        dataset = Dataset("set", (Field(field.path, 64, 64, field.cells, split=split),))
        root = tmp_path / f"of {split}"
        lost = list(messages(save_dataset(dataset, root, "yolo", images="copy")))
        content = yaml.safe_load((root / "data.yaml").read_text())
        assert "path" not in content
        assert content["train"] == content["val"] == f"images/{place}"
        assert any("names the images of" in line for line in lost)
        (read,) = open_dataset(root)
        assert read.split == split and len(read.cells) == 1
