"""Small files that would cost much, wait for ever or stop the program: refused in one line."""

import json
import os
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core import Cell, DataError, Dataset, Field, Node, Region, Taxonomy, polygons
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.lld.zipped import zipped_labels
from bloodfilm.formats.parquet.index import KEY
from bloodfilm.formats.shared import context, yaml_text
from bloodfilm.formats.yolo.layout import read_yaml
from bloodfilm.imaging.headers import image_size
from bloodfilm.workflows.audit import AuditJob, audit


def refused(read, *arguments) -> str:
    with pytest.raises(DataError) as said:
        read(*arguments)
    assert "\n" not in str(said.value)
    return str(said.value)


# ---- YAML --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: " + "[" * 20_000 + "]" * 20_000, "line 1: nested deeper than 64 levels"),
        ("".join(" " * i + "a:\n" for i in range(3000)), "line 65: nested deeper"),
        ("a: &a [x, x]\nnames: *a\n", "line 2: uses aliases"),
        ("names: [a]\nx: !!int abc\n", "line 2: states a type"),
        ("names: !!python/object/apply:os.system [ls]\n", "line 1: states a type"),
        ("names: [a\x01]\n", "not YAML"),
        ("? [a]\n: b\nnames: [a]\n", "not YAML"),
        ("x: " + "1" * 5000 + "\n", "not YAML"),
        ("names: [a\nb: {\n", "line 2: not YAML"),
        ("names: {0: a, 1: b, 0: c}\n", "line 1: not YAML (0 is stated twice)"),
        ("names: [a]\nnc: 1\nnames: [b]\n", "line 3: not YAML ('names' is stated twice)"),
        ("- a\n", "holds no `key: value` lines"),
    ],
)
def test_yaml_that_no_list_of_classes_is(tmp_path, text, words):
    file = tmp_path / "data.yaml"
    file.write_text(text)
    assert words in refused(read_yaml, file)


def test_a_class_may_look_like_a_date(tmp_path):
    file = tmp_path / "data.yaml"
    file.write_text("names: [2001-13-45, 2001-01-02, 1e3, off]\nnc: 4\n")
    assert read_yaml(file) == {"names": ["2001-13-45", "2001-01-02", "1e3", False], "nc": 4}


def test_large_yaml_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "data.yaml"
    file.touch()
    os.truncate(file, yaml_text.MAX_YAML_BYTES + 1)
    assert "16 MiB that are read" in refused(read_yaml, file)


@pytest.mark.parametrize("key", ["²", "-1", "9" * 30])
def test_classes_are_numbered_by_plain_digits(tmp_path, key):
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text(f'train: images\nnames: {{"{key}": lymphocyte}}\n')
    assert "`names` must list the classes" in refused(open_dataset, tmp_path, "yolo")


def test_two_classes_of_one_number_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "data.yaml").write_text('train: images\nnames: {0: lymphocyte, "0": monocyte}\n')
    assert "one number to several classes" in refused(open_dataset, tmp_path, "yolo")


# ---- what is no regular file -------------------------------------------------------------------

FORMATS = {
    "coco.json": "coco",
    "a.geojson": "qupath",
    "bloodfilm.json": "bloodfilm",
    "tasks.json": "label_studio",
    "x.parquet": "index",
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("name", FORMATS)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    refused(open_dataset, tmp_path)
    refused(open_dataset, tmp_path / name, FORMATS[name])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_picture_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "is a pipe, a device or a socket" in refused(image_size, tmp_path / "a.png")


# ---- archives ----------------------------------------------------------------------------------


def test_an_archive_that_lies_about_sizes_is_not_unpacked(tmp_path, monkeypatch):
    archive, size = tmp_path / "labels.zip", 300 << 20
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("WBC/train.json", b" " * size)
    said, real = struct.pack("<I", 1000), struct.pack("<I", size)
    archive.write_bytes(archive.read_bytes().replace(real, said))
    unpacked = []
    original = zipfile.ZipExtFile._read1

    def counted(self, count):
        data = original(self, count)
        unpacked.append(len(data))
        assert count <= 1 << 20
        return data

    monkeypatch.setattr(zipfile.ZipExtFile, "_read1", counted)
    assert "cannot be unpacked" in refused(list, zipped_labels(archive))
    assert sum(unpacked) <= 1000


# ---- stated sizes ------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [2_000, 200_000, 10**12])
def test_a_region_of_a_huge_field_costs_nothing(side):
    small = Region.polygon([(10, 10), (20, 10), (20, 20), (10, 20)])
    assert small.area(side, side) == 100
    assert Region.rect(-5, -5, 10, 10).area(side, side) == 25
    half = Region.polygon([(0, 0), (side, 0), (0, side)])
    assert half.area(side, side) == pytest.approx(side**2 / 2, rel=1e-3)
    everything = Region.rect(0, 0, 2 * side, 2 * side)
    assert everything.area(side, side) == pytest.approx(side**2, rel=1e-9)


def test_area_counts_pixels_as_the_mask_does():
    random = np.random.default_rng(5)
    for _ in range(20):
        corners = random.uniform(-40, 160, (7, 2))
        region = Region.union([Region.polygon(corners), Region.rect(3.2, 4.9, 30, 50)])
        assert region.area(120, 90) == region.mask(120, 90).sum()
    assert Region.rect(500, 500, 9, 9).area(120, 90) == 0


# ---- a damaged index ---------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """An index of four fields, as a function that writes it anew, changed, without checksums.

    So what is checked behind them is reached.
    """
    pq = pytest.importorskip("pyarrow.parquet")
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.new("RGB", (64, 48)).save(path)
    cell = Cell((1, 2, 10, 12), "myeloblast", {"nuclear_shape": "regular"}, id="a")
    fields = tuple(Field(path, 64, 48, (cell,), patient="7") for path in paths)
    file = tmp_path / "index.parquet"
    save_dataset(Dataset("x", fields), file, "index")
    whole = pq.read_table(file)

    def write(change):
        header = json.loads(whole.schema.metadata[KEY])
        del header["sealed"]
        changed = change(whole).replace_schema_metadata({KEY: json.dumps(header)})
        pq.write_table(changed, file)
        return file

    return write


def everything(file):
    return [cell for item in open_dataset(file) for cell in item.cells]


def test_an_index_without_a_column(table):
    for name in ("image", "width", "patient", "origin", "cells"):
        file = table(lambda whole, name=name: whole.drop_columns([name]))
        assert f"{file}: no column '{name}'" in refused(everything, file)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("image", [1] * 4, "column 'image' is int64"),
        ("cells", [1] * 4, "column 'cells' is int64"),
        ("image", ["a.png", None, "b.png", "c.png"], "row group 0: the index is damaged"),
        ("image", ["a.png", "", "b.png", "c.png"], "a field has no image"),
        ("origin", ["{not json"] * 4, "row group 0: the index is damaged"),
        ("origin", ["[1]"] * 4, "row group 0: the index is damaged"),
        ("origin", ["[" * 100_000] * 4, "row group 0: the index is damaged"),
    ],
)
def test_an_index_with_other_columns_or_values(table, column, values, words):
    pa = pytest.importorskip("pyarrow")
    file = table(
        lambda whole: whole.set_column(whole.column_names.index(column), column, pa.array(values))
    )
    assert words in refused(everything, file)


def test_an_index_with_a_negative_size(table):
    pa = pytest.importorskip("pyarrow")
    file = table(lambda whole: whole.set_column(1, "width", pa.array([-1] * 4, pa.int32())))
    assert "-1 x 48 px" in refused(everything, file)


def test_a_changed_byte_of_a_column_is_noticed(table, tmp_path):
    """Pages have checksums: a box cannot change silently."""
    save_dataset(open_dataset(table(lambda whole: whole)), tmp_path / "again.parquet", "index")
    file, data = tmp_path / "again.parquet", (tmp_path / "again.parquet").read_bytes()
    whole = everything(file)
    length = struct.unpack("<I", data[-8:-4])[0]
    outcomes = set()
    for at in range(4, len(data) - 8 - length, 7):
        flipped = bytearray(data)
        flipped[at] ^= 4
        file.write_bytes(flipped)
        try:
            outcomes.add(everything(file) == whole)
        except DataError as error:
            assert "\n" not in str(error) and str(file) in str(error)
            outcomes.add("refused")
    assert outcomes == {"refused"} or outcomes == {"refused", True}


# ---- results -----------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_result_of_an_endless_picture(tmp_path, side):
    from bloodfilm.core.results import FieldResult

    record = {"image": "a", "width": 9, "height": 9, "view": {}, "cells": [], "problems": []}
    text = json.dumps(record | {side: float("inf")})
    said = refused(FieldResult.from_json, json.loads(text))
    assert said == f"{side}: 'inf', expected a finite number"


@pytest.mark.parametrize("key", ["score", "class_score", "box"])
def test_a_cell_with_a_number_that_is_none(tmp_path, key):
    from bloodfilm.evaluation.predictions import read_predictions

    row = {"image": "a.png", "x": 1, "y": 2, "w": 3, "h": 4, "score": 0.9}
    row |= {"object_type": "nucleated cell", "class": "lymphocyte", "class_score": 0.8}
    row["w" if key == "box" else key] = "nan"
    file = tmp_path / "cells.csv"
    file.write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    assert "expected a finite number" in refused(read_predictions, file)


def test_results_of_an_image_whose_name_is_no_path(tmp_path):
    from bloodfilm.evaluation.predictions import align

    fields = [Field(tmp_path / "a.png", 64, 48)]
    for name in ("a\0", "n" * 5000):
        assert "none of its 1 images is a field" in refused(align, fields, {name: []}, "r")


@pytest.mark.parametrize("missing", ["drop", "keep"])
def test_an_image_name_that_no_file_system_allows_is_missing(tmp_path, missing):
    content = {
        "images": [{"id": 1, "file_name": "n" * 5000 + ".png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "lymphocyte"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [4, 4, 20, 20]}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path / "a.json", missing=missing)
    assert len(dataset) == (missing == "keep")
    (found,) = dataset.issues
    assert "1 of 1 images are missing" in found.message and len(found.message) < 300
    job = AuditJob(roots=[tmp_path / "a.json"], pixels=False)
    codes = [item.code for item in audit(job).findings]
    assert "missing-image" in codes


def test_a_yolo_path_that_is_too_long(tmp_path):
    (tmp_path / "data.yaml").write_text(f"train: {'a' * 5000}\nnames: [lymphocyte]\n")
    assert "is not there" in refused(open_dataset, tmp_path, "yolo")


def test_a_yolo_list_with_a_name_that_is_too_long(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "train.txt").write_text(f"./a.png\n./{'z' * 5000}.png\n")
    (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [lymphocyte]\n")
    dataset = open_dataset(tmp_path, "yolo")
    assert [f.path.name for f in dataset] == ["a.png"]
    assert "1 of 2 images are missing" in " ".join(messages(dataset.issues))


def test_a_region_of_numbers_without_end():
    refused(Region.from_json, [[[0, 0], [10**400, 1], [1, 1]]])


def test_a_gif_whose_frame_is_larger_than_its_picture(tmp_path):
    from bloodfilm.imaging.sources.image_file import open_image

    file = tmp_path / "a.gif"
    Image.new("L", (40, 40)).save(file)
    data = bytearray(file.read_bytes())
    frame = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    for side in (5000, 60000):
        data[frame + 5 : frame + 9] = struct.pack("<HH", side, side)
        file.write_bytes(data)
        assert "the GIF" in refused(open_image, file)


def test_a_split_file_without_a_plan(tmp_path):
    from bloodfilm.splits.split_file import read_split

    file = tmp_path / "split.json"
    content = {"format": "bloodfilm-split", "version": 1, "notes": [], "fields": []}
    file.write_text(json.dumps(content))
    assert "'plan'" in refused(read_split, file)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode here")
@pytest.mark.parametrize(
    "format", ["coco", "voc", "cvat", "label_studio", "qupath", "bloodfilm", "index"]
)
def test_a_name_that_is_not_utf_8_is_named_and_nothing_is_left(tmp_path, format):
    if format == "index":
        pytest.importorskip("pyarrow")
    (tmp_path / "set").mkdir()
    path = tmp_path / "set" / os.fsdecode(b"\xff\xfe.png")
    try:
        Image.new("RGB", (64, 48)).save(path)
    except OSError:
        pytest.skip("the file system takes UTF-8 only")
    dataset = Dataset("x", (Field(path, 64, 48, (Cell((1, 2, 10, 12), "myeloblast"),)),))
    (tmp_path / "out").mkdir()
    said = refused(save_dataset, dataset, tmp_path / "out" / "x", format)
    assert r"\xff\xfe.png" in said and "rename that file" in said
    assert list((tmp_path / "out").iterdir()) == []


def test_a_gif_that_ends_within_a_frame(tmp_path):
    from bloodfilm.imaging.sources.image_file import open_image

    file = tmp_path / "a.gif"
    Image.new("L", (40, 40)).save(file)
    data = file.read_bytes()
    file.write_bytes(data[:-1] + b"," + data[-1:])
    assert "the GIF cannot be decoded" in refused(open_image, file)


def test_a_region_of_many_corners_costs_as_little(monkeypatch):
    """What is looked at is counted, not timed: pixels by polygon, and rows by edge."""
    looked = []
    filled = polygons._filled

    def counted(polygon, left, top, shape, stride):
        crossed = np.abs(np.diff(polygon[:, 1], append=polygon[:1, 1])).sum() / stride
        looked.append((shape[0] * shape[1], crossed))
        return filled(polygon, left, top, shape, stride)

    monkeypatch.setattr(polygons, "_filled", counted)
    side = 20_000
    zigzag = Region.polygon((n * 7919 % side, side if n % 2 else 0) for n in range(20_000))
    many = Region.union(Region.polygon([(0, 0), (side, 0), (n, side)]) for n in range(2_000))
    for region, share in ((zigzag, 0.5), (many, 0.55)):
        looked.clear()
        assert region.area(side, side) == pytest.approx(share * side**2, rel=0.1)
        assert sum(pixels for pixels, _ in looked) < 1.5 * (1 << 26)
        assert sum(crossed for _, crossed in looked) < 3 * (1 << 24)


@pytest.mark.parametrize("levels", [True, False])
def test_a_tree_of_classes_has_limits(levels):
    nodes = [Node("cell")]
    while len(nodes) < 2_001:
        nodes.append(Node(f"n{len(nodes)}", nodes[-1].name if levels else "cell"))
    assert len(Taxonomy(tuple(nodes[:64])).names) == 64
    said = refused(Taxonomy, tuple(nodes[:70] if levels else nodes))
    assert ("'n64' lies more than 64 levels deep" if levels else "2,001 classes, more") in said


def test_many_classes_are_named_once_each(tmp_path):
    """The names of a set are read together once, not once a name."""
    count = 400
    calls = []
    original = context.set_meanings
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(count)],
        "annotations": [
            {"image_id": 1, "category_id": n, "bbox": [1, 1, 9, 9]} for n in range(count)
        ],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    context.set_meanings = lambda names: calls.append(1) or original(names)
    try:
        dataset = open_dataset(tmp_path / "c.json")
    finally:
        context.set_meanings = original
    assert len(calls) == 1 and len(dataset.issues) == count


@pytest.mark.parametrize(
    "extra",
    [
        {"domain": {"microscope": ["x"]}},
        {"domain": {"um_per_px": "0.1"}},
        {"domain": {"magnification": True}},
        {"patient": ["Ann"]},
        {"diagnosis": {"a": 1}},
    ],
)
def test_what_is_said_of_a_field_is_text_and_numbers(tmp_path, extra):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    entry = {"id": 1, "file_name": "a.png", "bloodfilm": extra}
    content = {"images": [entry], "categories": [], "annotations": []}
    (tmp_path / "c.json").write_text(json.dumps(content))
    dataset = open_dataset(tmp_path / "c.json")
    (said,) = messages(dataset.issues)
    (key,) = extra
    assert said.startswith("c.json: image a.png: bloodfilm cannot be read") and key in said
    assert dataset[0].domain.name == "unknown" and dataset[0].patient is None


@pytest.mark.parametrize(("value", "ignored"), [("0", False), ("1", True), ("false", False)])
def test_a_flag_written_as_text_is_read_as_it_says(tmp_path, value, ignored):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    cell = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "iscrowd": value}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "categories": [{"id": 1, "name": "WBC"}],
        "annotations": [cell],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path / "c.json")[0].cells[0].ignore == ignored
