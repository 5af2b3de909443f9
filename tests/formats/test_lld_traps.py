"""LLD's traps: what a plain reader gets wrong in silence, and what hostile archives hold."""

import io
import json
import zipfile

import pytest
from PIL import Image

from bloodfilm.audit import Options, audit, open_source
from bloodfilm.core import DataError, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.lld import zipped as _lldzip
from formats.test_lld import BOX, IMAGE, coco, json_set, subset, text_set

OTHER = "7_4_12_400_AML.png"


def problems(dataset):
    return "\n".join(messages(dataset.issues))


def audited(root):
    found = audit(open_source(root), Options(pixels=False))
    return {f.code for f in found if f.severity == "error"}, found


# ---- images ----------------------------------------------------------------------------------


def test_a_missing_image_is_not_taken_from_another_subset(tmp_path):
    """All subsets hold the same names: the same cells under another microscope."""
    json_set(tmp_path, [{}])
    there = subset(tmp_path, "L_40X_C1", images=())
    (there / "json_labels").mkdir()
    (there / "json_labels" / "train.json").write_text(json.dumps(coco([{}])))
    dataset = open_dataset(tmp_path)
    assert [f.domain.name for f in dataset] == ["H/40X/C2"]
    assert "1 of 2 images are missing" in problems(dataset)
    kept = open_dataset(tmp_path, missing="keep")
    assert len({f.path for f in kept}) == 2
    assert "missing-image" in audited(tmp_path)[0]


def test_an_image_of_the_other_split_is_found(tmp_path):
    json_set(tmp_path, [{}])
    place = tmp_path / "H_40X_C2" / "Images"
    (place / "train").rename(place / "test")
    (field,) = open_dataset(tmp_path)
    assert field.path == place / "test" / IMAGE and field.split == "train"


@pytest.mark.parametrize(
    ("on_disk", "in_labels"),
    [("48_8_39`_400_AML.png", "48_8_39_400_AML.png"), ("48_8_39_400_AML.png", "48_8_39`_400_AML")],
)
def test_the_back_tick_may_be_on_one_side_only(tmp_path, on_disk, in_labels):
    place = subset(tmp_path, images=(on_disk,))
    (place / "json_labels").mkdir()
    content = coco([{}], images=(in_labels,))
    (place / "json_labels" / "train.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path)
    assert dataset[0].path.name == on_disk and dataset[0].patient == "48"
    assert "stray characters apart the same" in problems(dataset)


def test_files_beside_the_images_are_no_images(tmp_path):
    json_set(tmp_path, [{}])
    folder = tmp_path / "H_40X_C2" / "Images" / "train"
    for name in ("7_9_1_400_AML.txt", "._7_9_1_400_AML.png", "Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1 and dataset.issues == ()


@pytest.mark.parametrize("inside", [(), ("Images/train", "Images/test"), ("json_labels",)])
def test_an_empty_subset_is_named_and_the_rest_read(tmp_path, inside):
    json_set(tmp_path, [{}])
    (tmp_path / "L_10X_C1").mkdir()
    for folder in inside:
        (tmp_path / "L_10X_C1" / folder).mkdir(parents=True)
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "L_10X_C1: no json or text labels, left out" in problems(dataset)
    assert "empty-subset" in {f.code for f in audited(tmp_path)[1]}


# ---- text labels -----------------------------------------------------------------------------


def sparse_set(root, empty_split="train"):
    """One field with a patch in train, and an empty label file."""
    text_set(root, [f"1 {BOX} 100 200 50 400 1 1 1 1 1 1 1"], kind="SLA-Det")
    place = root / "H_40X_C2"
    folder = place / "Images" / empty_split
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (640, 640)).save(folder / OTHER)
    labels = place / "txt_labels" / "SLA-Det" / empty_split
    labels.mkdir(exist_ok=True)
    (labels / OTHER).with_suffix(".txt").write_text("")
    return root


def test_an_empty_sparse_label_says_nothing_of_its_field(tmp_path):
    """Its patch is not known: the field is not free of cells."""
    fields = {f.path.name: f for f in open_dataset(sparse_set(tmp_path))}
    assert fields[IMAGE].region == Region.rect(100, 50, 100, 350)
    assert fields[OTHER].region.is_nothing


def test_an_empty_label_of_a_split_in_full_is_a_field_without_cells(tmp_path):
    fields = {f.path.name: f for f in open_dataset(sparse_set(tmp_path, "test"))}
    assert fields[OTHER].region.is_everything


@pytest.mark.parametrize("code", ["3", "4", "-1", "0.5", "nan"])
def test_a_text_code_that_is_none_is_reported_by_reader_and_audit(tmp_path, code):
    text_set(tmp_path, [f"1 {BOX} 1 1 {code} 1 1 1 1", f"0 .8 .8 .1 .1 1 1 {code} 1 1 1 1"])
    dataset = open_dataset(tmp_path)
    assert all("nuclear_shape" not in c.attributes for c in dataset[0].cells)
    assert sum("nuclear_shape has code" in line for line in messages(dataset.issues)) == 2
    found = [f for f in audited(tmp_path)[1] if f.code == "stray-code"]
    assert [f.annotations for f in found] == [("line 1",), ("line 2",)]


@pytest.mark.parametrize("code", [2, 3, 5, -1, "x"])
def test_a_json_code_that_is_none_is_reported_even_on_none(tmp_path, code):
    codes = {"nuclear_shape": code, "cell_size": 4}
    json_set(tmp_path, [codes, codes | {"category_id": 0, "bbox": [300, 300, 60, 60]}])
    dataset = open_dataset(tmp_path)
    assert all(c.attributes == {} for c in dataset[0].cells)
    assert sum("nuclear_shape has code" in line for line in messages(dataset.issues)) == 2
    assert len([f for f in audited(tmp_path)[1] if f.code == "stray-code"]) == 2


def test_one_id_of_two_names_is_reported(tmp_path):
    """Half the cells would silently change their class."""
    categories = ((1, "myeloblast"), (1, "lymphoblast"))
    dataset = open_dataset(json_set(tmp_path, [{}], categories=categories))
    assert [c.label for c in dataset[0].cells] == ["myeloblast"]
    assert "category id 1: is 'myeloblast' and 'lymphoblast'; the first" in problems(dataset)
    assert "id-and-name-differ" in audited(tmp_path)[0]


def test_size_code_two_is_large_but_on_none(tmp_path):
    lines = [
        f"1 {BOX} 2 1 1 1 1 1 1",
        "0 .8 .8 .1 .1 2 2 2 2 2 2 2",
        "14 .2 .2 .1 .1 2 2 2 2 2 2 2",
    ]
    dataset = open_dataset(text_set(tmp_path, lines))
    assert [c.attributes.get("cell_size") for c in dataset[0].cells] == ["large", None, None]
    assert [c.ignore for c in dataset[0].cells] == [False, True, True]
    assert dataset.issues == () and "stray-code" not in audited(tmp_path)[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_labels_in_any_usual_encoding(tmp_path, encoding):
    root = text_set(tmp_path, [])
    file = next(root.rglob("*.txt"))
    file.write_text(f"1 {BOX}\n", encoding=encoding)
    assert len(open_dataset(root)[0].cells) == 1


def test_one_unreadable_text_label_does_not_stop_the_rest(tmp_path):
    root = text_set(tmp_path, [f"1 {BOX}"])
    place = root / "H_40X_C2"
    Image.new("RGB", (640, 640)).save(place / "Images" / "train" / OTHER)
    bad = place / "txt_labels" / "AttriDet" / "train" / f"{OTHER[:-4]}.txt"
    bad.write_bytes("1 0.5 0.5 0.1 0.1 é".encode("latin-1"))
    dataset = open_dataset(root)
    fields = {f.path.name: f for f in dataset}
    assert fields[OTHER].region.is_nothing and len(fields[IMAGE].cells) == 1
    said = f"{bad.name}: byte 18 is not UTF-8 (in Windows-1252 it is 'é')"
    assert f"{said}; save the file as UTF-8; left out" in problems(dataset)
    assert "unreadable-labels" in audited(root)[0]
    with pytest.raises(DataError, match="is not UTF-8"):
        open_dataset(root, strict=True)


# ---- labels.zip ------------------------------------------------------------------------------


def archive(tmp_path, members, mode=zipfile.ZIP_DEFLATED):
    place = subset(tmp_path, "L_100X_C2")
    with zipfile.ZipFile(place / "labels.zip", "w", mode) as zipped:
        for name, content in members.items():
            zipped.writestr(name, content)
    return place / "labels.zip"


GOOD = json.dumps(coco([{}]))


def test_what_is_no_label_file_in_the_archive_is_passed_over(tmp_path):
    members = {
        "__MACOSX/json_labels/._train.json": b"\x00\x05",
        "json_labels/train.json": GOOD,
        "json_labels/notes.json": "[",
        "readme.txt": "x",
    }
    archive(tmp_path, members)
    assert len(open_dataset(tmp_path)[0].cells) == 1
    assert audited(tmp_path)[0] == set()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_zipped_labels_in_other_encodings(tmp_path, encoding):
    archive(tmp_path, {"train.json": GOOD.encode(encoding)})
    assert len(open_dataset(tmp_path)[0].cells) == 1


@pytest.mark.parametrize("name", ["../../train.json", "/etc/train.json", "a\\..\\..\\train.json"])
def test_members_that_lead_outside_are_read_in_place(tmp_path, name):
    archive(tmp_path, {name: GOOD})
    before = sorted(tmp_path.parent.rglob("*"))
    dataset = open_dataset(tmp_path)
    assert len(dataset[0].cells) == 1
    save_dataset(dataset, tmp_path / "out", "lld", images="link")
    written = set(tmp_path.parent.rglob("*")) - set(before)
    assert written and all(p.is_relative_to(tmp_path / "out") for p in written)


def test_a_bomb_is_refused(tmp_path):
    archive(tmp_path, {"train.json": b" " * (_lldzip.SMALL + 1)})
    with pytest.raises(DataError, match=r"labels\.zip/train\.json: would unpack to 16 MiB") as said:
        open_dataset(tmp_path)
    assert "\n" not in str(said.value)


def test_two_files_of_one_name_in_the_archive_are_refused(tmp_path):
    archive(tmp_path, {"a/train.json": GOOD, "b/train.json": GOOD})
    with pytest.raises(DataError, match="holds 2 label files of split train"):
        open_dataset(tmp_path)


def test_labels_of_one_name_in_two_folders_are_read_once(tmp_path):
    json_set(tmp_path, [{}])
    other = tmp_path / "H_40X_C2" / "WBC_detection"
    other.mkdir()
    (other / "train.json").write_text(json.dumps(coco([{}, {}])))
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1
    assert "labels of this name are in" in problems(dataset)
    assert "labels-differ" in audited(tmp_path)[0]


def broken():
    """Archives that are cut, locked, packed in ways nobody can read, or no archives."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("train.json", GOOD * 50)
    whole = buffer.getvalue()
    start = whole.index(b"train.json") + len("train.json")
    locked = bytearray(whole)
    unknown = bytearray(whole)
    centre = whole.rindex(b"PK\x01\x02")
    for data, offset, value in ((locked, 6, 1), (unknown, 8, 99)):
        data[offset] = value
        data[centre + offset + 2] = value
    return {
        "cut": whole[: len(whole) // 2],
        "damaged": whole[: start + 5] + b"\xff" * 20 + whole[start + 25 :],
        "locked": bytes(locked),
        "unknown packing": bytes(unknown),
        "empty": b"",
        "text": b"PK no",
    }


@pytest.mark.parametrize("how", broken())
def test_a_broken_archive_is_one_line(tmp_path, how):
    file = archive(tmp_path, {})
    file.write_bytes(broken()[how])
    with pytest.raises(DataError, match=r"labels\.zip: cannot be unpacked") as said:
        open_dataset(tmp_path)
    assert "\n" not in str(said.value) and "fetch it again" in str(said.value)


# ---- the whole -------------------------------------------------------------------------------


def published(root):
    """The published layout: nested twice, every spelling of a folder, one subset without fields."""
    variants = {
        "H_100X_C1": ("Images", "json_labels"),
        "H_100x_C2": ("images", "WBC_detection"),
        "H_40X_C1": ("Images", "WBC_Detection"),
        "H_40X_C2": ("images", "json_labels"),
        "H_10X_C1": ("Images", "json_labels"),
        "H_10X_C2": ("Images", "json_labels"),
        "L_100X_C1": ("Images", "json_labels"),
        "L_100X_C2": ("Images", "labels.zip"),
        "L_40X_C1": ("Images", None),
        "L_40X_C2": ("Images", "json_labels"),
        "L_10X_C2": ("Images", "json_labels"),
    }
    for name, (pictures, labels) in variants.items():
        power = {"100": "1000", "40": "12_400", "10": "100"}[name.split("_")[1][:-1].lower()]
        for split, patient, diagnosis in (("train", 7, "_AML"), ("test", 4, "")):
            image = f"{patient}_3_{power}{diagnosis}.png"
            place = subset(root, name, (image,), f"{pictures}/{split}")
            content = json.dumps(coco([{"cell_size": 1}], images=(image,)))
            if labels == "labels.zip":
                with zipfile.ZipFile(place / labels, "a") as zipped:
                    zipped.writestr(f"WBC_detection/{split}.json", content)
            elif labels is None:
                folder = place / "txt_labels" / "AttriDet" / split
                folder.mkdir(parents=True)
                (folder / image).with_suffix(".txt").write_text(f"1 {BOX} 1 2 2 2 2 2 2\n")
            else:
                (place / labels).mkdir(exist_ok=True)
                (place / labels / f"{split}.json").write_text(content)
    (root / "L_10X_C1").mkdir()
    return variants


def test_the_published_layout_is_read_whole(tmp_path):
    variants = published(tmp_path / "LeukemiaAttri_Dataset" / "LeukemiaAttr")
    dataset = open_dataset(tmp_path)
    assert {f.domain.name for f in dataset} == {n.upper().replace("_", "/") for n in variants}
    assert len(dataset) == 22 and dataset.class_counts() == {"myeloblast": 22}
    assert all(f.cells[0].attributes == {"cell_size": "medium"} for f in dataset)
    patients = {(f.patient, f.split, f.diagnosis) for f in dataset}
    assert patients == {("7", "train", "AML"), ("4", "test", None)}
    squeezes = {
        f.domain.name: f.domain.pixel_aspect_ratio for f in dataset if f.domain.pixel_aspect_ratio
    }
    assert squeezes == {"H/100X/C1": 0.6, "H/40X/C2": 0.562}
    assert [line for line in messages(dataset.issues) if "L_10X_C1" not in line] == []
    source = open_source(tmp_path)
    assert len(source.table.rows) == len(source.table) == 22
    assert not {f.code for f in audit(source, Options(pixels=False)) if f.severity == "error"}


def test_links_in_circles_end(tmp_path):
    json_set(tmp_path / "set", [{}])
    place = tmp_path / "set" / "H_40X_C2"
    (place / "Images" / "train" / "up").symlink_to(tmp_path / "set")
    (place / "again").symlink_to(place)
    (place / "Images" / "train" / "7_8_8_400_AML.png").symlink_to("7_8_8_400_AML.png")
    (place / "json_labels" / "test.json").symlink_to("test.json")
    with pytest.raises(DataError, match=r"test\.json: cannot be read"):
        open_dataset(tmp_path / "set")
    (place / "json_labels" / "test.json").unlink()
    dataset = open_dataset(tmp_path / "set")
    assert [len(f.cells) for f in dataset] == [1]
    assert "7_8_8_400_AML.png" in problems(dataset)
    assert audited(tmp_path / "set")[1]
