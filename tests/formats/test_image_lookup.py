"""Which picture a label belongs to: one rule, tried through the formats that name images."""

import json
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from bloodfilm.core import DataError
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset
from bloodfilm.formats.shared.image_lookup import ImageIndex, PathIndex


def picture(path: Path, size=(200, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def coco(path: Path, *names: str, size=(200, 100)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": i, "file_name": n, "width": size[0], "height": size[1]} for i, n in enumerate(names)
    ]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [10 * i + 1, 10, 8, 20]}
        for i in range(len(names))
    ]
    content = {"images": images, "annotations": annotations}
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "WBC"}]}))
    return path


def index(*paths: str) -> PathIndex:
    return PathIndex([Path("/set") / p for p in paths], Path("/set"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p1/a.png", "images/p1/a.png"),
        ("/home/me/films/p1/a.png", "images/p1/a.png"),
        ("C:\\films\\P1\\A.PNG", "images/p1/a.png"),
        ("p1/a.tif", "images/p1/a.png"),
        ("p1/a", "images/p1/a.png"),
        ("p%31/a.png", "images/p1/a.png"),
        ("../p2/./a.png", "images/p2/a.png"),
        ("p3/a.png", None),
        ("p1/b.png", None),
    ],
)
def test_the_longest_tail_is_meant_and_a_contradiction_is_missing(name, expected):
    found = index("images/p1/a.png", "images/p2/a.png").candidates(name)
    assert found == ([] if expected is None else [Path("/set") / expected])


def test_two_that_agree_alike_are_both_returned():
    assert len(index("p1/a.png", "p2/a.png").candidates("a.png")) == 2
    assert len(index("a.png", "a.jpg").candidates("a")) == 2
    assert index("a.png", "a.jpg").candidates("a.jpg") == [Path("/set/a.jpg")]


def test_a_stem_is_cut_at_the_suffix_of_an_image_only():
    known = index("f1.jpg", "f1.norm.jpg")
    assert known.candidates("f1.norm") == [Path("/set/f1.norm.jpg")]
    assert known.candidates("f1") == [Path("/set/f1.jpg")]
    assert known.candidates("f1.other") == []


def test_splits_are_compared_as_splits():
    known = index("images/train/a.png", "images/val/a.png")
    assert known.candidates("a.png", split="val") == [Path("/set/images/val/a.png")]
    assert known.candidates("valid/a.png") == [Path("/set/images/val/a.png")]
    assert known.candidates("val2017/a.png") == [Path("/set/images/val/a.png")]
    assert known.candidates("a.png", split="test") == []


def test_the_label_file_next_to_an_image_names_it():
    known = index("one/a.png", "two/a.png")
    assert known.candidates("a.png", near=Path("/set/two/labels.json")) == [Path("/set/two/a.png")]


def test_accents_may_be_composed_in_two_ways(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    picture(tmp_path / apart)
    (field,) = open_dataset(coco(tmp_path / "labels.json", composed))
    assert field.path.name == apart and len(field.cells) == 1
    root = tmp_path / "yolo"
    picture(root / "images" / apart)
    (root / "labels").mkdir()
    (root / "labels" / composed.replace(".png", ".txt")).write_text("0 .5 .5 .1 .1\n")
    (root / "classes.txt").write_text("WBC\n")
    dataset = open_dataset(root)
    assert len(dataset[0].cells) == 1 and dataset.issues == ()


def test_links_to_one_file_are_no_two_candidates(tmp_path):
    image = picture(tmp_path / "p1" / "a.png")
    (tmp_path / "p2").mkdir()
    (tmp_path / "p2" / "a.png").symlink_to(image)
    assert ImageIndex(tmp_path).find("a.png") is not None


def test_two_names_that_would_be_one_image_are_refused(tmp_path):
    picture(tmp_path / "images" / "a.png")
    file = coco(tmp_path / "labels.json", "p1/a.png", "p2/a.png")
    dataset = open_dataset(file)
    assert len(dataset) == 0
    assert "'p1/a.png', 'p2/a.png': the only image of that name" in messages(dataset.issues)[0]
    with pytest.raises(DataError, match="put the images of all folders in place"):
        open_dataset(file, strict=True)


def test_the_name_that_agrees_better_keeps_the_image(tmp_path):
    picture(tmp_path / "p1" / "a.png")
    file = coco(tmp_path / "p1" / "labels.json", "p1/a.png", "p2/a.png")
    (field,) = open_dataset(file)
    assert field.cells[0].box == (1, 10, 8, 20)


def test_an_image_that_two_files_label_is_read_once_and_named(tmp_path):
    picture(tmp_path / "a.png")
    coco(tmp_path / "one.json", "a.png")
    coco(tmp_path / "two.json", "a.png")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "a.png: is labelled more than once: 1 cells and again 1" in messages(dataset.issues)[0]


def test_a_task_that_is_unfinished_is_no_second_label(tmp_path):
    picture(tmp_path / "a.png")
    tasks = [
        {"id": 1, "data": {"image": "a.png"}, "annotations": []},
        {"id": 2, "data": {"image": "a.png"}, "annotations": [{"id": 1, "result": []}]},
    ]
    (tmp_path / "t.json").write_text(json.dumps(tasks))
    first, second = open_dataset(tmp_path)
    assert first.region.is_nothing and second.region.is_everything


def test_images_that_are_links_to_one_file_are_named(tmp_path):
    image = picture(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to(image)
    dataset = open_dataset(coco(tmp_path / "labels.json", "a.png", "b.png"))
    assert len(dataset) == 2
    assert messages(dataset.issues) == ("one file under 2 names: b.png, a.png",)


# ---- sizes -----------------------------------------------------------------------------------


def test_boxes_are_scaled_where_the_picture_was(tmp_path):
    picture(tmp_path / "a.png", (100, 50))
    dataset = open_dataset(coco(tmp_path / "labels.json", "a.png"))
    assert dataset[0].cells[0].box == (0.5, 5, 4, 10) and dataset[0].width == 100
    assert "a.png: the labels state a size of 200x100 px" in messages(dataset.issues)[0]
    assert "boxes are scaled" in messages(dataset.issues)[0]


def test_another_shape_is_named_with_both_sizes(tmp_path):
    picture(tmp_path / "a.png", (100, 200))
    file = coco(tmp_path / "labels.json", "a.png")
    dataset = open_dataset(file)
    assert dataset[0].cells[0].box == (1, 10, 8, 20)
    assert "200x100 px, the picture is 100x200 px" in messages(dataset.issues)[0]
    with pytest.raises(DataError, match="the picture is 100x200 px"):
        open_dataset(file, strict=True)
