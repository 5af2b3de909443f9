"""Hostile and broken files: one clear line, never a crash, never a silent loss."""

import itertools
import json
from typing import Unpack

import pytest
from PIL import Image

from bloodfilm.core import DataError, Dataset
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset, registry, save_dataset
from bloodfilm.formats.shared.context import ReadOptions
from bloodfilm.imaging.headers import image_size


def picture(path, size=(100, 80)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def coco(tmp_path, boxes, **image):
    picture(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80} | image],
        "categories": [{"id": 3, "name": "WBC"}],
        "annotations": [
            {"id": 10 + i, "image_id": 1, "category_id": 3, "bbox": box}
            for i, box in enumerate(boxes)
        ],
    }
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(content))
    return file


# ---- boxes -----------------------------------------------------------------------------------

BAD_BOXES = {
    "not finite": [float("nan"), 1, 5, 5],
    "box is not finite": [1, 1, float("inf"), 5],
    "negative size": [10, 10, -5, 5],
    "no area": [10, 10, 0, 5],
    "outside the 100x80 image": [200, 10, 5, 5],
    "lies outside": [95, 10, 40, 5],
    "no bbox of four numbers": [1, 2, 3],
    "has no bbox": None,
    "bbox of four": ["a", 1, 2, 3],
}


@pytest.mark.parametrize(("what", "box"), BAD_BOXES.items())
def test_a_bad_box_is_left_out_and_reported(tmp_path, what, box):
    file = coco(tmp_path, [box, [10, 10, 20, 20]])
    dataset = open_dataset(file)
    assert [c.box for c in dataset[0].cells] == [(10, 10, 20, 20)]
    (line,) = messages(dataset.issues)
    assert what in line and "labels.json: annotation 10" in line


@pytest.mark.parametrize(("what", "box"), BAD_BOXES.items())
def test_strict_stops_at_a_bad_box(tmp_path, what, box):
    with pytest.raises(DataError, match=r"labels.json: annotation 10: .*; correct") as caught:
        open_dataset(coco(tmp_path, [box]), strict=True)
    assert what in str(caught.value) and "\n" not in str(caught.value)


def test_a_box_that_sticks_out_is_cut_and_reported(tmp_path):
    dataset = open_dataset(coco(tmp_path, [[-4, 70, 20, 12]]))
    assert dataset[0].cells[0].box == (0, 70, 16, 10)
    assert "reaches 4 px over the image's edge and is cut" in messages(dataset.issues)[0]


def test_rounding_is_no_fault(tmp_path):
    dataset = open_dataset(coco(tmp_path, [[-0.01, 10, 20, 12]]))
    assert dataset[0].cells[0].box[0] == 0 and dataset.issues == ()


# ---- JSON ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b'{"images": [}', "line 1, column 13: ill-formed JSON"),
        (b'{"images": 3}', "no list `images`"),
        (b"[1, 2]", "no list `images`"),
        (b'{"images": [], "annotations": {}}', "`annotations` is not a list"),
        (b"\xe4{}", "byte 0 is not UTF-8"),
        (b'{"images": ' + b"[" * 100_000, "JSON that cannot be used"),
        (b'{"images": ' + b"9" * 10_000 + b"}", "JSON that cannot be used"),
    ],
)
def test_an_ill_formed_coco_file_is_one_line(tmp_path, content, what):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_dataset(file, "coco")
    assert what in str(caught.value) and "x.json" in str(caught.value)


def test_a_byte_order_mark_does_not_matter(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]])
    content = file.read_text()
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_text(content, encoding=encoding)
        assert len(open_dataset(file, "coco")[0].cells) == 1


def test_coco_entries_that_belong_to_nothing_are_reported(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]])
    content = json.loads(file.read_text())
    content["annotations"] += [{"id": 7, "image_id": 99, "category_id": 3, "bbox": [1, 1, 2, 2]}, 5]
    content["images"] += [{"id": 4}, "x"]
    content["categories"] += [{"id": "?"}]
    content["annotations"][0]["category_id"] = 8
    file.write_text(json.dumps(content))
    dataset = open_dataset(file)
    assert [c.label for c in dataset[0].cells] == [None]
    assert len(dataset.issues) == 6


def test_images_listed_twice_are_grouped(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]])
    content = json.loads(file.read_text())
    content["images"].append({"id": 2, "file_name": "a.png", "width": 100, "height": 80})
    content["annotations"].append(
        {"id": 2, "image_id": 2, "category_id": 3, "bbox": [50, 40, 20, 20]}
    )
    file.write_text(json.dumps(content))
    dataset = open_dataset(file)
    assert len(dataset) == 1 and len(dataset[0].cells) == 2
    assert "listed more than once" in messages(dataset.issues)[0]


def test_a_class_nobody_knows_is_kept_unnamed_and_can_be_named(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]])
    file.write_text(file.read_text().replace("WBC", "Blastoid"))
    dataset = open_dataset(file)
    assert dataset[0].cells[0].label is None and "'Blastoid'" in messages(dataset.issues)[0]
    named = open_dataset(file, classes={"Blastoid": "myeloblast"})
    assert named[0].cells[0].label == "myeloblast" and named.issues == ()
    with pytest.raises(DataError, match="Blastoid"):
        open_dataset(file, strict=True)
    with pytest.raises(DataError, match="no class 'blob'"):
        open_dataset(file, classes={"Blastoid": "blob"})


# ---- images ----------------------------------------------------------------------------------


def test_missing_images_are_counted_and_named(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]], file_name="gone.png")
    dataset = open_dataset(file)
    assert len(dataset) == 0
    assert (
        "1 of 1 images are missing and their fields left out: gone.png"
        in messages(dataset.issues)[0]
    )
    kept = open_dataset(file, missing="keep")
    assert len(kept) == 1 and len(kept.issues) == 1
    with pytest.raises(DataError, match="unpack them again"):
        open_dataset(file, strict=True)


def test_images_may_lie_elsewhere_and_have_another_suffix(tmp_path):
    picture(tmp_path / "elsewhere" / "x" / "gone.webp")
    (tmp_path / "set").mkdir()
    file = coco(tmp_path / "set", [[10, 10, 20, 20]], file_name="x\\gone.png")
    assert len(open_dataset(file, images=tmp_path / "elsewhere")) == 1
    assert len(open_dataset(file, images=tmp_path / "elsewhere" / "x")) == 1
    (tmp_path / "elsewhere" / "x").rename(tmp_path / "elsewhere" / "y")
    assert len(open_dataset(file, images=tmp_path / "elsewhere")) == 0


def test_an_image_that_is_none_is_reported(tmp_path):
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    (tmp_path / "classes.txt").write_text("WBC\n")
    (tmp_path / "images" / "a.png").write_bytes(b"not an image")
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    dataset = open_dataset(tmp_path)
    assert dataset[0].cells == () and dataset[0].region.is_nothing
    assert "a.png: it is not an image" in messages(dataset.issues)[0]


def test_sizes_are_those_of_the_turned_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert image_size(tmp_path / "turned.jpg") == (20, 40)


def test_links_in_a_circle_end(tmp_path):
    picture(tmp_path / "neutrophil" / "a.png")
    (tmp_path / "neutrophil" / "again").symlink_to(tmp_path)
    (tmp_path / "neutrophil" / "b.png").symlink_to("nowhere")
    dataset = open_dataset(tmp_path)
    assert [f.path.name for f in dataset] == ["a.png"]
    assert "1 of 2 images are missing" in messages(dataset.issues)[0]


# ---- YOLO ------------------------------------------------------------------------------------


def yolo(tmp_path, label, yaml="train: images/train\nnames: [WBC, RBC]\n"):
    picture(tmp_path / "images" / "train" / "a.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train" / "a.txt").write_text(label)
    (tmp_path / "data.yaml").write_text(yaml)
    return tmp_path


@pytest.mark.parametrize(
    ("yaml", "what"),
    [
        ("names: [WBC\ntrain: x\n", "data.yaml: line 2: not YAML"),
        ("names: WBC\n", "`names` must list the classes"),
        ("train: images/train\n", "`names` must list the classes"),
        ("just text\n", "holds no `key: value` lines"),
        ("names: {a: b}\n", "`names` must list the classes"),
    ],
)
def test_a_typo_in_yaml_is_one_line(tmp_path, yaml, what):
    with pytest.raises(DataError) as caught:
        open_dataset(yolo(tmp_path, "", yaml))
    assert what in str(caught.value)


def test_bad_lines_are_left_out_and_counted(tmp_path):
    label = "0 .5 .5 .2 .2\nx y\n0 .5 .5\n1.5 .5 .5 .1 .1\n7 .3 .3 .1 .1\n1 nan .5 .1 .1\n\n"
    dataset = open_dataset(yolo(tmp_path, label))
    assert [c.label for c in dataset[0].cells] == ["white cell", None]
    *lines, unknown = messages(dataset.issues)
    assert {line.split(": ")[1] for line in lines} == {f"line {n}" for n in (2, 3, 4, 6)}
    assert "class 'class 7' is not in the taxonomy; 1 cells keep that name" in unknown


def test_an_outline_is_read_as_its_box(tmp_path):
    dataset = open_dataset(yolo(tmp_path, "0 .1 .2 .5 .2 .5 .6 .1 .6\n"))
    assert dataset[0].cells[0].box == pytest.approx((10, 16, 40, 32))


def test_labels_and_images_without_each_other_are_reported(tmp_path):
    root = yolo(tmp_path, "")
    picture(root / "images" / "train" / "b.png")
    (root / "labels" / "train" / "c.txt").write_text("0 .5 .5 .1 .1\n")
    dataset = open_dataset(root)
    by_name = {f.path.name: f for f in dataset}
    assert by_name["a.png"].region.is_everything  # an empty label file: no cell is there
    assert by_name["b.png"].region.is_nothing
    assert any("b.png: image without a label" in line for line in messages(dataset.issues))
    assert any("c.txt: labels without an image" in line for line in messages(dataset.issues))


# ---- VOC -------------------------------------------------------------------------------------


def test_ill_formed_xml_is_left_out(tmp_path):
    picture(tmp_path / "JPEGImages" / "a.png")
    folder = tmp_path / "Annotations"
    folder.mkdir()
    (folder / "a.xml").write_text("<annotation><object><name>WBC</name></object></annotation>")
    (folder / "b.xml").write_text("<annotation><object>")
    (folder / "c.xml").write_text("<svg></svg>")
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 1 and dataset[0].cells == ()
    assert len(dataset.issues) == 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize(
    "declared",
    [
        '<!ENTITY b "x">',
        '<!ENTITY b SYSTEM "file:///etc/hostname">',
        '<!ENTITY % b "x">',
        '<!ENTITY % b SYSTEM "file:///etc/hostname"> %b;',
        '<!ATTLIST annotation b CDATA "x">',
        "<!ELEMENT annotation ANY>",
        '<!NOTATION b SYSTEM "x">',
        '<!NOTATION n SYSTEM "x"><!ENTITY b SYSTEM "b.png" NDATA n>',
    ],
)
def test_what_a_document_type_declares_is_refused(tmp_path, declared, encoding):
    text = f"<!DOCTYPE annotation [\n{declared}]><annotation>a</annotation>"
    (tmp_path / "a.xml").write_text(text, encoding=encoding)
    with pytest.raises(DataError, match=r"a\.xml: line 2: its document type declares"):
        open_dataset(tmp_path, "voc")


@pytest.mark.parametrize(
    "text",
    [
        "<!DOCTYPE annotation><annotation>{}</annotation>",
        '<!DOCTYPE annotation SYSTEM "file:///etc/hostname"><annotation>{}</annotation>',
        "<!-- <!ENTITY b 'x'> --><annotation>{}</annotation>",
        "<annotation><!-- <!ATTLIST a> -->{}<folder><![CDATA[<!ENTITY b>]]></folder></annotation>",
        "<?note <!ENTITY b> ?><annotation>{}</annotation>",
    ],
)
def test_text_that_looks_like_a_declaration_is_none(tmp_path, text):
    picture(tmp_path / "JPEGImages" / "a.png")
    box = "<xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax>"
    inside = "<filename>a.png</filename><object><name>lymphocyte</name>"
    inside += f"<bndbox>{box}</bndbox></object>"
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(text.format(inside))
    dataset = open_dataset(tmp_path, "voc")
    assert [c.class_name for c in dataset[0].cells] == ["lymphocyte"]


def test_a_reference_to_an_entity_that_is_not_declared_is_ill_formed(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text("<annotation>&b;</annotation>")
    dataset = open_dataset(tmp_path, "voc")
    assert any("undefined entity" in line for line in dataset.problems)


# ---- the whole -------------------------------------------------------------------------------


def test_what_is_not_there_or_nothing_is_one_line(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "none")
    with pytest.raises(DataError, match="no data set is recognised"):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match="no format 'tfrecord'"):
        open_dataset(tmp_path, "tfrecord")
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no option 'colour'"):
        open_dataset(tmp_path, colour="red")


def test_labels_that_were_cut_off_are_named_and_not_left_out(tmp_path):
    labels = tmp_path / "labels" / "all.json"
    labels.parent.mkdir()
    labels.write_text('{"images": [{"id": 1, "file_name": "a.png", "wid')
    for given in (tmp_path, labels):
        with pytest.raises(DataError, match=r"all\.json: line 1, column 45: ill-formed JSON"):
            open_dataset(given)
    picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"all\.json: line 1, column 45: ill-formed JSON"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, "folder")) == 1  # as was asked for
    labels.write_text('{"camera": "C2"}')  # whole, and no labels
    assert len(open_dataset(tmp_path)) == 1


@pytest.mark.parametrize("format", ["txl", "pbc", "bccd", "lld", "folder", "yolo", "coco", "voc"])
def test_an_empty_folder_or_a_stray_file_is_one_line(tmp_path, format):
    stray = tmp_path / "stray.bin"
    stray.write_bytes(b"\x00\xff")
    with pytest.raises(DataError):
        open_dataset(stray, format)
    (tmp_path / "empty").mkdir()
    if format not in {"pbc", "voc", "bccd"}:  # these find nothing there, which is no fault
        with pytest.raises(DataError):
            open_dataset(tmp_path / "empty", format)


def test_two_formats_in_one_folder_are_ambiguous(tmp_path):
    coco(tmp_path, [])
    (tmp_path / "classes.txt").write_text("WBC\n")
    with pytest.raises(DataError, match="holds coco and yolo labels; say which"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, "coco")) == 1


def test_a_table_without_its_columns_is_one_line(tmp_path):
    picture(tmp_path / "neutrophil" / "BNE_1.png")
    (tmp_path / "wbcatt_train.csv").write_text("img_name,label\nBNE_1.png,Neutrophil\n")
    with pytest.raises(DataError, match=r"wbcatt_train.csv: line 1: no column 'cell_size'"):
        open_dataset(tmp_path)


# ---- hostile trees ---------------------------------------------------------------------------


def test_links_in_circles_end(tmp_path):
    coco(tmp_path, [[10, 10, 20, 20]])
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    dataset = open_dataset(tmp_path)
    assert [f.path for f in dataset] == [tmp_path / "a.png"]
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(tmp_path / "self")


def test_two_images_of_one_name_are_named(tmp_path):
    file = coco(tmp_path, [[10, 10, 20, 20]])
    for folder in ("x", "y"):
        picture(tmp_path / folder / "a.png")
    (tmp_path / "a.png").unlink()
    dataset = open_dataset(file)
    assert len(dataset) == 0
    assert "'a.png': may be any of 2 images (x/a.png, y/a.png); none" in messages(dataset.issues)[0]
    with pytest.raises(DataError, match="rename them, or name the folder with images="):
        open_dataset(file, strict=True)
    (only,) = open_dataset(file, images=tmp_path / "y")
    assert only.path == tmp_path / "y" / "a.png"


def test_yaml_that_blows_up_is_refused(tmp_path):
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in itertools.pairwise("abcdefghij")
    ]
    root = yolo(tmp_path, "", "\n".join([*lines, "names: *j"]))
    with pytest.raises(DataError, match=r"data\.yaml: line 2: uses aliases"):
        open_dataset(root)


def test_one_unreadable_label_file_does_not_stop_the_rest(tmp_path):
    root = yolo(tmp_path, "0 .5 .5 .1 .1\n")
    picture(root / "images" / "train" / "b.png")
    (root / "labels" / "train" / "b.txt").write_bytes(b"0 .5 \xe4")
    dataset = open_dataset(root)
    by_name = {f.path.name: f for f in dataset}
    assert len(by_name["a.png"].cells) == 1 and by_name["b.png"].region.is_nothing
    assert "b.txt: byte 5 is not UTF-8" in messages(dataset.issues)[0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_xml_in_other_encodings(tmp_path, encoding):
    picture(tmp_path / "a.png")
    box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    text = f"<annotation><object><name>WBC</name>{box}</object></annotation>"
    (tmp_path / "a.xml").write_text(text, encoding=encoding)
    assert len(open_dataset(tmp_path, "voc")[0].cells) == 1


@pytest.mark.parametrize("name", ["../../../escaped.png", "/escaped.png", "..\\..\\escaped.png"])
@pytest.mark.parametrize("format", ["yolo", "voc", "cvat", "label_studio", "qupath", "lld"])
def test_an_images_name_does_not_lead_outside(tmp_path, name, format):
    file = coco(tmp_path / "set", [[10, 10, 20, 20]])
    picture(tmp_path / "escaped.png")
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    dataset = open_dataset(file, missing="keep")
    before = set(tmp_path.rglob("*"))
    save_dataset(dataset, tmp_path / "out" / "x", format, images="copy")
    assert all(p.is_relative_to(tmp_path / "out") for p in set(tmp_path.rglob("*")) - before)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path):
    file = coco(tmp_path, [])
    with file.open("r+b") as content:
        content.truncate(3 << 30)  # holes take no space on disk
    with pytest.raises(
        DataError, match=r"labels\.json: 3 GiB, more than the 2 GiB .* read; split it"
    ) as said:
        open_dataset(file, "coco")
    assert "\n" not in str(said.value)
    file.unlink()


def test_a_fault_of_a_reader_is_not_called_an_option(tmp_path, monkeypatch):
    """Options are checked by what a reader takes, not by the words of an error within it."""

    def broken(path, **options: Unpack[ReadOptions]):
        return Dataset(path, shade="red")

    monkeypatch.setitem(registry.READERS, "coco", broken)
    with pytest.raises(TypeError, match="shade"):
        open_dataset(tmp_path, "coco", strict=True)
