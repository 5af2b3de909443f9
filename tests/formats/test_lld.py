"""LLD as it really comes: nested roots, four kinds of text labels, codes, names, known faults."""

import json
import zipfile

import pytest
from PIL import Image

from bloodfilm.core import DataError, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import detect, open_dataset
from bloodfilm.formats.lld.codes import StrayCode, attributes_from_json, attributes_from_text
from bloodfilm.formats.lld.names import parse_name, parse_subset

IMAGE = "7_3_12_400_AML.png"


def subset(root, name="H_40X_C2", images=(IMAGE,), folder="Images/train"):
    place = root / name / folder
    place.mkdir(parents=True)
    for image in images:
        Image.new("RGB", (640, 640)).save(place / image)
    return root / name


def coco(annotations, images=(IMAGE,), categories=((1, "myeloblast"), (0, "None"))):
    return {
        "images": [{"id": i, "file_name": n} for i, n in enumerate(images)],
        "categories": [{"id": i, "name": n} for i, n in categories],
        "annotations": [
            {"id": i, "image_id": 0, "category_id": 1, "bbox": [10, 10, 40, 70]} | a
            for i, a in enumerate(annotations)
        ],
    }


def json_set(root, annotations, folder="json_labels", **kwargs):
    place = subset(root) / folder
    place.mkdir()
    (place / "train.json").write_text(json.dumps(coco(annotations, **kwargs)))
    return root


def text_set(root, lines, kind="AttriDet"):
    place = subset(root) / "txt_labels" / kind / "train"
    place.mkdir(parents=True)
    (place / IMAGE).with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines))
    return root


# ---- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("35_1_1000_ALL.png", ("35", "1", None, 100, "ALL")),
        ("48_8_39`_400_AML.png", ("48", "8", "39", 40, "AML")),
        ("12_10_7_400_AML.webp", ("12", "10", "7", 40, "AML")),
        ("12_10_7_400.png", ("12", "10", "7", 40, None)),
        ("3_4_100_CML.png", ("3", "4", None, 10, "CML")),
    ],
)
def test_file_names_say_who_and_what(name, parts):
    found = parse_name(name)
    assert found is not None
    assert parts == (
        found.patient,
        found.field,
        found.photograph,
        found.magnification,
        found.diagnosis,
    )


@pytest.mark.parametrize("name", ["BloodImage_00001.jpg", "12_10.png", "a_1_2_400_AML.png"])
def test_other_names_say_nothing(name):
    assert parse_name(name) is None


def test_a_subset_is_a_domain():
    domain = parse_subset("H_40X_C2")
    assert domain is not None
    assert (domain.name, domain.pixel_aspect_ratio) == ("H/40X/C2", 0.562)
    assert parse_subset("L_100x_C1").pixel_aspect_ratio is None  # nobody measured it
    assert parse_subset("H_20X_C1") is None


# ---- codes -----------------------------------------------------------------------------------


def test_json_codes():
    codes = {"cell_size": 2, "nuclear_chromatio": 0, "nucleus": 1, "cytoplasm": 4}
    known, faults = attributes_from_json(codes | {"nuclear_shape": 9}, none=False)
    assert known == {"cell_size": "large", "nuclear_chromatin": "open", "nucleolus": "prominent"}
    assert faults == [StrayCode("nuclear_shape", 9)]


@pytest.mark.parametrize("code", [None, "x", 0.5, -1, 3, float("nan"), [1]])
def test_a_code_that_is_none_is_unknown(code):
    known, _ = attributes_from_json({"nuclear_shape": code}, none=False)
    assert known == {}


def test_text_code_2_is_not_applicable_but_for_the_size_of_a_named_cell():
    named, faults = attributes_from_text([2, 2, 1, 2, 0, 2, 2], none=False)
    assert named == {"cell_size": "large", "nuclear_shape": "irregular", "cytoplasm": "scanty"}
    assert faults == []
    assert attributes_from_text([2] * 7, none=True) == ({}, [])


def test_six_text_columns_lack_the_cell_size():
    known, _ = attributes_from_text([1, 1, 1, 1, 1, 1], none=False)
    assert "cell_size" not in known and len(known) == 6
    assert known["nuclear_chromatin"] == "coarse"


# ---- layout ----------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["", "LeukemiaAttri_Dataset", "LeukemiaAttr/LeukemiaAttr"])
@pytest.mark.parametrize("folder", ["json_labels", "WBC_detection", "WBC_Detection"])
def test_nested_roots_and_folder_names(tmp_path, above, folder):
    root = tmp_path / above
    root.mkdir(parents=True, exist_ok=True)
    json_set(root, [{"cell_size": 1}], folder=folder)
    assert detect(tmp_path) == "lld"
    (field,) = open_dataset(tmp_path)
    assert (field.patient, field.split, field.diagnosis) == ("7", "train", "AML")
    assert field.meta["photograph"] == "12"
    assert field.cells[0].label == "myeloblast"


def test_labels_in_a_zip(tmp_path):
    place = subset(tmp_path, "L_100x_C2", folder="images/test")
    with zipfile.ZipFile(place / "labels.zip", "w") as archive:
        archive.writestr("WBC_detection/test.json", json.dumps(coco([{}])))
    (field,) = open_dataset(tmp_path)
    assert field.split == "test" and len(field.cells) == 1
    (place / "labels.zip").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match=r"labels.zip: cannot be unpacked"):
        open_dataset(tmp_path)


def test_missing_images_and_images_without_labels(tmp_path):
    json_set(tmp_path, [{}], images=(IMAGE, "7_4_12_400_AML.png"))
    Image.new("RGB", (9, 9)).save(tmp_path / "H_40X_C2" / "Images" / "train" / "7_9_1_400_AML.png")
    dataset = open_dataset(tmp_path)
    assert [f.region.is_nothing for f in dataset] == [False, True]
    assert any("1 of 3 images are missing" in line for line in messages(dataset.issues))
    assert any(
        "7_9_1_400_AML.png: image without labels" in line for line in messages(dataset.issues)
    )


# ---- classes ---------------------------------------------------------------------------------


def test_none_is_ignored_under_each_of_its_names(tmp_path):
    categories = ((0, "None"), (1, "myeloblast"), (14, "Unidentified"), (2, "none"))
    annotations = [{"category_id": i} for i, _ in categories]
    dataset = open_dataset(json_set(tmp_path, annotations, categories=categories))
    found = [(c.label, c.ignore) for c in dataset[0].cells]
    assert found == [(None, True), ("myeloblast", False), (None, True), (None, True)]


def test_the_name_wins_over_the_id_and_the_quarrel_is_noted(tmp_path):
    categories = ((1, "lymphoblast"),)
    annotations = [{}, {"category_name": "monocyte"}]
    dataset = open_dataset(json_set(tmp_path, annotations, categories=categories))
    assert [c.label for c in dataset[0].cells] == ["lymphoblast", "monocyte"]
    assert any(
        "category 1 is 'lymphoblast' here, 'myeloblast'" in p for p in messages(dataset.issues)
    )
    assert any("but is named 'monocyte'" in line for line in messages(dataset.issues))


# ---- text labels -----------------------------------------------------------------------------

BOX = "0.25 0.5 0.1 0.2"  # its centre is at (160, 320) px


@pytest.mark.parametrize(
    ("columns", "attributes"),
    [("", 0), (" 1 1 1 1 1 1", 6), (" 1 1 1 1 1 1 1", 7)],
)
def test_text_labels_without_a_patch(tmp_path, columns, attributes):
    (field,) = open_dataset(text_set(tmp_path, [f"1 {BOX}{columns}"]))
    assert field.cells[0].box == pytest.approx((128, 256, 64, 128))
    assert field.cells[0].label == "myeloblast"
    assert len(field.cells[0].attributes) == attributes
    assert field.region.is_everything


@pytest.mark.parametrize(
    ("patch", "order"),
    [("100 200 50 400", "px1 px2 py1 py2"), ("100 50 200 400", "x1 y1 x2 y2")],
)
@pytest.mark.parametrize("attributes", ["1 1 1 1 1 1", "1 1 1 1 1 1 1"])
def test_the_patch_order_is_found_by_the_boxes(tmp_path, patch, order, attributes):
    dataset = open_dataset(text_set(tmp_path, [f"1 {BOX} {patch} {attributes}"]))
    assert dataset[0].region == Region.rect(100, 50, 100, 350)
    assert f"patch columns read in 1 files by {order}" in messages(dataset.issues)[-1]


@pytest.mark.parametrize("sure", ["100 200 50 400", "100 50 200 400"])
def test_a_file_that_fits_both_orders_is_read_as_the_others(tmp_path, sure):
    root = text_set(tmp_path, [f"1 {BOX} 100 200 280 400 1 1 1 1 1 1"])
    place = root / "H_40X_C2"
    Image.new("RGB", (640, 640)).save(place / "Images" / "train" / "7_4_12_400_AML.png")
    other = place / "txt_labels" / "AttriDet" / "train" / "7_4_12_400_AML.txt"
    other.write_text(f"1 {BOX} {sure} 1 1 1 1 1 1\n")
    dataset = open_dataset(root)
    wanted = {"100 200 50 400": (100, 280, 100, 120), "100 50 200 400": (100, 200, 180, 200)}
    assert dataset[0].region == Region.rect(*wanted[sure])
    assert "1 files fit both orders" in messages(dataset.issues)[-1]


def test_two_patches_are_one_region(tmp_path):
    lines = [f"1 {BOX} 100 300 250 400 1 1 1 1 1 1", "1 .9 .9 .1 .1 500 640 450 640 1 1 1 1 1 1"]
    (field,) = open_dataset(text_set(tmp_path, lines))
    assert list(field.region.contains([(150, 300), (600, 600), (320, 100)])) == [True, True, False]


@pytest.mark.parametrize("patch", ["400 500 400 500", "0 inf 0 inf", "nan 640 0 640"])
def test_a_patch_that_fits_neither_way_is_refused(tmp_path, patch):
    root = text_set(tmp_path, [f"1 {BOX} {patch} 1 1 1 1 1 1"])
    dataset = open_dataset(root)
    assert all(not f.cells for f in dataset)
    assert any("outside the patch whichever way" in line for line in messages(dataset.issues))
    with pytest.raises(DataError, match="correct the patch columns"):
        open_dataset(root, strict=True)


def test_other_widths_and_classes_are_reported(tmp_path):
    dataset = open_dataset(text_set(tmp_path, [f"1 {BOX} 1 1", f"77 {BOX}"]))
    assert [c.label for c in dataset[0].cells] == [None]
    assert any("7 columns instead of 5, 11, 12, 15, 16" in p for p in messages(dataset.issues))
    assert any("class 77 is none of LLD's" in line for line in messages(dataset.issues))


def test_the_richest_text_labels_are_read_unless_others_are_named(tmp_path):
    text_set(tmp_path, [f"1 {BOX} 1 1 1 1 1 1"])
    plain = tmp_path / "H_40X_C2" / "txt_labels" / "WBC_Detection" / "train"
    plain.mkdir(parents=True)
    (plain / IMAGE).with_suffix(".txt").write_text(f"1 {BOX}\n1 {BOX}\n")
    assert len(open_dataset(tmp_path)[0].cells[0].attributes) == 6
    assert len(open_dataset(tmp_path, labels="WBC_Detection")[0].cells) == 2
    assert any(
        "no json labels" in p for p in messages(open_dataset(tmp_path, labels="json").issues)
    )


def test_a_name_of_any_length_is_a_missing_image(tmp_path):
    json_set(tmp_path, [{}], images=("n" * 5000 + ".png",))
    dataset = open_dataset(tmp_path)
    assert any("missing" in str(p) or "not found" in str(p) for p in messages(dataset.issues))
