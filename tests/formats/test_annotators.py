"""Label Studio, CVAT, QuPath: round trips, and files as those programs write them."""

import itertools
import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from bloodfilm.core import LLD_SCHEMA, Cell, DataError, Dataset, Domain, Field, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import READERS, WRITERS, detect, open_dataset, save_dataset
from formats.test_round_trip import datasets, fresh, images

__all__ = ["fresh", "images"]

PROGRAMS = {"label_studio": ".json", "cvat": ".xml", "qupath": ""}


def alike(one: Field, other: Field) -> None:
    """Check two fields: shapes to 1e-6 px, everything else exactly."""
    for a, b in itertools.zip_longest(one.cells, other.cells):
        assert a.box == pytest.approx(b.box, abs=1e-6)
        assert replace(a, box=None) == replace(b, box=None)
    if other.region.polygons is None:
        assert one.region.polygons is None
    else:
        assert one.region.polygons is not None
        for p, q in itertools.zip_longest(one.region.polygons, other.region.polygons):
            assert [c for corner in p for c in corner] == pytest.approx(
                [c for corner in q for c in corner], abs=1e-6
            )
    plain = {"cells": (), "region": Region.everything()}
    there = {"path": other.path.resolve()}
    resolved = replace(one, path=one.path.resolve(), **plain)
    assert resolved == replace(other, **plain | there)


@pytest.mark.parametrize("images_are", [None, "link"])
@pytest.mark.parametrize("format", PROGRAMS)
def test_only_cells_without_a_box_are_lost(images, fresh, format, images_are):
    @settings(max_examples=12)
    @given(datasets(images))
    def check(dataset):
        place = fresh().with_suffix(PROGRAMS[format])
        place = place if images_are is None else place.with_suffix("")
        lost = list(messages(save_dataset(dataset, place, format, images=images_are)))
        without = sum(c.box is None for f in dataset for c in f.cells)
        assert bool(without) == any("no box" in line for line in lost)
        assert len(lost) == bool(without)
        assert detect(place) == format
        read = open_dataset(place)
        assert read.issues == ()
        by_path = {f.path.resolve(): f for f in read}
        assert len(by_path) == len(dataset)
        for field in dataset:
            boxed = field.with_cells(tuple(c for c in field.cells if c.box))
            alike(by_path[field.path.resolve()], boxed)

    check()


@pytest.mark.parametrize("source", sorted(set(WRITERS) - {"folder", "index"}))
@pytest.mark.parametrize("target", sorted(set(WRITERS) - {"folder", "index"}))
def test_every_format_is_reached_from_every_other(images, tmp_path, source, target):
    cells = (Cell((5, 6, 20, 22), "myeloblast", {"nuclear_shape": "regular"}),)
    field = Field(images[-1], 64, 48, cells, patient="7", split="train", diagnosis="AML")
    one, other = tmp_path / "one", tmp_path / "other"
    save_dataset(Dataset("set", (field,)), one, source, images="copy")
    save_dataset(open_dataset(one), other, target, images="copy")
    (read,) = open_dataset(other)
    assert detect(other) in (target, "lld")
    assert read.cells[0].label == "myeloblast" and read.split == "train"
    assert read.cells[0].box == pytest.approx((5, 6, 20, 22), abs=1e-3)
    if "yolo" not in (source, target):
        assert read.cells[0].attributes == {"nuclear_shape": "regular"}
        assert read.patient == "7"


def test_readers_and_writers_are_pairs():
    assert set(PROGRAMS) <= set(READERS) & set(WRITERS)


@pytest.mark.parametrize("format", PROGRAMS)
def test_a_hyphen_in_a_format_is_an_underscore(images, tmp_path, format):
    dataset = Dataset("set", (Field(images[-1], 64, 48),))
    save_dataset(dataset, tmp_path / "x", format.replace("_", "-"))
    assert len(open_dataset(tmp_path / "x", format.replace("_", "-"))) == 1


@pytest.mark.parametrize("format", PROGRAMS)
def test_what_has_no_place_is_counted(images, tmp_path, format):
    cell = Cell((1, 1, 9, 9), "neutrophil", {"id": "x", "ignore": "y", "cell": "z"})
    odd = Cell((1, 1, 9, 9), None, {"a": "b\x00"}, id="\x07")
    dataset = Dataset("set", (Field(images[-1], 64, 48, (cell, odd)),), licence="CC0")
    lost = list(messages(save_dataset(dataset, tmp_path / "x", format)))
    assert "left out: licence of 1 data set" in lost
    assert any("attribute" in line for line in lost)
    read = open_dataset(tmp_path / "x")
    assert read.issues == () and len(read[0].cells) == 2


# ---- Label Studio ----------------------------------------------------------------------------


def picture(path, size=(200, 100)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def result(kind="rectanglelabels", ident="a", tag="label", **value):
    sizes = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    shape = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    value = value or shape | {"rectanglelabels": ["WBC"]}
    return {"id": ident, "type": kind, "from_name": tag, "to_name": "image", "value": value} | sizes


def studio(tmp_path, *results, image="/data/upload/3/1a2b3c4d-a.png", **annotation):
    picture(tmp_path / "a.png")
    task = {"id": 1, "data": {"image": image}, "annotations": [{"result": results} | annotation]}
    file = tmp_path / "export.json"
    file.write_text(json.dumps([task]))
    return file


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/3/1a2b3c4d-a.png",
        "/data/local-files/?d=films%5Ca.png",
        "/data/local-files/?d=a.png",
        "http://localhost:8080/data/upload/a.png?X-Amz=1",
        "s3://bucket/films/a.png",
        "a.png",
    ],
)
def test_the_image_is_found_behind_its_address(tmp_path, image):
    dataset = open_dataset(studio(tmp_path, result(), image=image))
    assert dataset[0].path == tmp_path / "a.png"
    assert dataset[0].cells[0].box == (20, 20, 60, 40)
    assert dataset[0].cells[0].label == "white cell" and dataset[0].cells[0].id == "a"


def test_choices_of_a_region_are_attributes_and_those_of_the_image_meta(tmp_path):
    choice = {"x": 10, "y": 20, "width": 30, "height": 40, "choices": ["irregular"]}
    file = studio(
        tmp_path,
        result("choices", tag="nuclear_shape", **choice),
        result(),
        result("textarea", tag="remark", text=["dark", "small"]),
        result("choices", "q", "stain", choices=["Giemsa"]),
        {"type": "relation", "from_id": "a", "to_id": "q"},
    )
    dataset = open_dataset(file)
    (cell,) = dataset[0].cells
    assert cell.attributes == {"nuclear_shape": "irregular", "remark": "dark, small"}
    assert dataset[0].meta == {"stain": "Giemsa"} and dataset.issues == ()


def test_outlines_ovals_and_turned_boxes_become_upright_boxes(tmp_path):
    points = [[10, 10], [30, 10], [20, 50]]
    turned = {"x": 50, "y": 50, "width": 10, "height": 20, "rotation": 90}
    oval = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["WBC"]}
    file = studio(
        tmp_path,
        result("polygonlabels", "a", points=points, polygonlabels=["WBC"]),
        result(ident="b", **turned, rectanglelabels=["WBC"]),
        result("ellipselabels", "c", **oval),
        result("brushlabels", "d", format="rle", rle=[1], brushlabels=["WBC"]),
    )
    dataset = open_dataset(file)
    found = [c.box for c in dataset[0].cells]
    assert found[0] == pytest.approx((20, 10, 40, 40))
    assert found[1] == pytest.approx((80, 50, 20, 20))
    assert found[2] == pytest.approx((80, 30, 40, 40))
    drawn, upright, round_ = (c.outline for c in dataset[0].cells)
    assert np.allclose(drawn.polygons[0], [(20, 10), (60, 10), (40, 50)])
    assert upright is None  # turned by 90 degrees, its box says the same
    assert np.allclose(np.hypot(*(np.array(round_.polygons[0]) - (100, 50)).T), 20)
    assert len(found) == 3 and len(dataset.issues) == 1
    assert "its mask has counts that end too early; left out" in messages(dataset.issues)[0]


def test_a_drawn_region_is_where_all_is_known(tmp_path):
    points = [[0, 0], [50, 0], [50, 100], [0, 100]]
    shape = {"points": points, "closed": True}
    for label in ("region to mark", "annotated region", "Region"):
        one = result("polygonlabels", "r", "region", **shape, polygonlabels=[label])
        (field,) = open_dataset(studio(tmp_path, one, result()))
        assert field.region == Region.rect(0, 0, 100, 100) and len(field.cells) == 1


def test_a_plan_marked_in_label_studio_reads_as_its_regions(tmp_path):
    """What `annotate plan` writes is a prediction; accepted, it is an annotation."""
    from bloodfilm.active_learning.plan_files import propose

    image = picture(tmp_path / "a b%.png")
    planned = Field(image, 200, 100, region=Region.rect(20, 10, 100, 50))
    file = tmp_path / "tasks.json"
    save_dataset(Dataset("plan", (planned,)), file, "label_studio")
    propose(file)
    tasks = json.loads(file.read_text())
    (proposed,) = open_dataset(file)
    assert proposed.region.is_nothing and proposed.path == image
    tasks[0]["annotations"] = [{"result": [*tasks[0]["predictions"][0]["result"], result()]}]
    file.write_text(json.dumps(tasks))
    (marked,) = open_dataset(file)
    alike(marked.with_cells(()), replace(planned, cells=()))
    assert len(marked.cells) == 1


def test_the_annotation_that_counts(tmp_path):
    file = studio(tmp_path, result())
    (task,) = json.loads(file.read_text())

    def cells(*annotations):
        task["annotations"] = annotations
        file.write_text(json.dumps([task]))
        dataset = open_dataset(file)
        return [c.id for c in dataset[0].cells], dataset

    old = {"result": [result(ident="old")], "updated_at": "2024-01-01"}
    new = {"result": [result(ident="new")], "updated_at": "2025-01-01"}
    assert cells(new, old)[0] == ["new"]
    assert "2 annotations; one is taken" in messages(cells(new, old)[1].issues)[0]
    assert cells(new, old | {"ground_truth": True})[0] == ["old"]
    assert cells(old, new | {"was_cancelled": True})[0] == ["old"]
    assert cells(new | {"was_cancelled": True})[1][0].region.is_nothing
    assert cells({"result": []})[1][0].region.is_everything


def test_json_min_is_read_and_what_it_cannot_say_is_reported(tmp_path):
    picture(tmp_path / "a.png")
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0}
    sizes = {"original_width": 200, "original_height": 100}
    entry = {
        "id": 4,
        "image": "/data/upload/1a2b3c4d-a.png",
        "label": [box | sizes | {"rectanglelabels": ["WBC"]}],
        "nuclear_shape": ["regular", "irregular"],
        "annotator": 1,
    }
    file = tmp_path / "min.json"
    file.write_text(json.dumps([entry]))
    assert detect(file) == "label_studio"
    dataset = open_dataset(file)
    assert dataset[0].cells[0].box == (20, 20, 60, 40)
    assert "which cell 'nuclear_shape'" in messages(dataset.issues)[0]


def test_the_set_up_offers_every_label_and_choice(images, tmp_path):
    cell = Cell((1, 1, 9, 9), "monocyte", {"granules": "few", "cell_size": "large"}, True)
    dataset = Dataset("set", (Field(images[-1], 64, 48, (cell,)),))
    save_dataset(dataset, tmp_path / "x.json", "label_studio")
    view = ElementTree.parse(tmp_path / "x.config.xml").getroot()
    labels = {item.get("value") for item in view.iter("Label")}
    assert {*dataset.taxonomy.names, "ignore", "unnamed", "annotated region"} == labels
    asked = {c.get("name"): [v.get("value") for v in c] for c in view.iter("Choices")}
    assert set(asked) == {*LLD_SCHEMA.names, "granules", "to_ignore"}
    assert asked["granules"] == ["few"]
    (task,) = json.loads((tmp_path / "x.json").read_text())
    tags = {item.get("name") for item in view.iter() if item.get("toName")}
    for one in task["annotations"][0]["result"]:
        assert one["from_name"] in tags and one["to_name"] == "image"
        assert (one["original_width"], one["original_height"]) == (64, 48)


# ---- CVAT ------------------------------------------------------------------------------------

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><name>films</name><mode>annotation</mode></task></meta>
  <image id="0" name="a.png" subset="Train" width="200" height="100">{}</image>
</annotations>
"""


def cvat(tmp_path, content):
    picture(tmp_path / "images" / "Train" / "a.png")
    (tmp_path / "annotations.xml").write_text(CVAT.format(content))
    return tmp_path


def test_a_task_of_cvat(tmp_path):
    root = cvat(
        tmp_path,
        """
        <box label="lymphocyte" source="manual" occluded="1" xtl="10.50" ytl="20.00" xbr="40.5"
             ybr="60" z_order="0"><attribute name="nuclear_shape">regular</attribute>
             <attribute name="nucleolus">unknown</attribute><attribute name="note"/></box>
        <polygon label="monocyte" occluded="0" points="100.0,10.0;120.0,10.0;110.0,40.0"/>
        <box label="neutrophil" occluded="0" xtl="60" ytl="60" xbr="80" ybr="70" rotation="90.0"/>
        <ellipse label="neutrophil" occluded="0" cx="150" cy="50" rx="10" ry="20"/>
        <mask label="neutrophil" occluded="0" rle="1, 2" left="5" top="70" width="20" height="10"/>
        <points label="neutrophil" occluded="0" points="1.0,2.0"/>
        <tag label="blurred" source="manual"/>
        <!-- a remark -->
        """,
    )
    assert detect(root) == "cvat"
    dataset = open_dataset(root)
    (field,) = dataset
    assert dataset.name == "films" and field.split == "train"
    assert field.path == tmp_path / "images" / "Train" / "a.png"
    first, *others = field.cells
    assert first == Cell(
        (10.5, 20, 30, 40), "lymphocyte", {"nuclear_shape": "regular", "occluded": "yes"}
    )
    assert [c.box for c in others] == [
        (100, 10, 20, 30),
        pytest.approx((65, 55, 10, 20)),
        (140, 30, 20, 40),
        (5, 70, 20, 10),
    ]
    assert field.meta == {"tag blurred": "yes"} and field.region.is_everything
    assert len(dataset.issues) == 2
    assert "image 1 ('a.png'), points 6: no box" in messages(dataset.issues)[0]


@pytest.mark.parametrize(
    "shape",
    [
        '<polygon label="annotated region" points="0,0;100,0;100,50;0,50"/>',
        '<box label="Region" xtl="0" ytl="0" xbr="100" ybr="50"/>',
    ],
)
def test_a_region_in_cvat(tmp_path, shape):
    (field,) = open_dataset(cvat(tmp_path, shape))
    assert field.region == Region.rect(0, 0, 100, 50) and field.cells == ()


def test_tracks_and_broken_shapes_are_reported(tmp_path):
    root = cvat(
        tmp_path,
        '<box label="WBC" xtl="a" ytl="0" xbr="9" ybr="9"/>'
        '<polygon label="annotated region" points="0,0;1,1"/>'
        '<tag label="field"><attribute name="domain">{"microscope": [</attribute></tag>',
    )
    file = root / "annotations.xml"
    file.write_text(
        file.read_text().replace("</annotations>", "<track id='0'/><image/></annotations>")
    )
    dataset = open_dataset(root)
    assert len(dataset) == 1 and dataset[0].cells == ()
    said = "\n".join(messages(dataset.issues))
    for what in ("tracks of a video", "no box, outline", "three or more", "tag 'field'", "no name"):
        assert what in said
    with pytest.raises(DataError, match=r"annotations\.xml"):
        open_dataset(root, strict=True)


def test_the_labels_file_offers_what_the_xml_uses(images, tmp_path):
    cell = Cell((1, 1, 9, 9), "monocyte", {"granules": "few", "occluded": "yes"}, True, "x1")
    field = Field(images[-1], 64, 48, (cell,), Region.rect(0, 0, 20, 20), patient="7")
    save_dataset(Dataset("set", (field,)), tmp_path / "x.xml", "cvat")
    listed = json.loads((tmp_path / "x.labels.json").read_text())
    labels = {item["name"]: {a["name"] for a in item["attributes"]} for item in listed}
    tree = ElementTree.parse(tmp_path / "x.xml").getroot()
    assert [e.text for e in tree.iterfind("meta/task/labels/label/name")] == list(labels)
    (image,) = tree.iter("image")
    for shape in image:
        used = {a.get("name") for a in shape.iter("attribute")}
        assert used <= labels[shape.get("label")]
    (box,) = image.iter("box")
    assert box.get("occluded") == "1"


# ---- QuPath ----------------------------------------------------------------------------------


def square(x=10, y=20, w=30, h=40):
    return {"type": "Polygon", "coordinates": [ring(x, y, w, h)]}


def ring(x, y, w, h):
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h], [x, y]]


def feature(geometry=None, **properties):
    return {"type": "Feature", "geometry": geometry or square(), "properties": properties}


def qupath(tmp_path, *features, name="a.geojson"):
    picture(tmp_path / "a.png")
    file = tmp_path / name
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return tmp_path


@pytest.mark.parametrize("name", ["a.geojson", "a.png.geojson"])
def test_objects_of_qupath(tmp_path, name):
    white = {"name": "WBC", "color": [1, 2, 3]}
    root = qupath(
        tmp_path,
        feature(
            objectType="cell", classification=white, measurements={"Area": 2.0, "cell_size": 2}
        ),
        feature(objectType="detection", classification={"names": ["Lymphocyte"]}),
        feature(objectType="annotation", classification={"name": "Ignore*", "colorRGB": -1}),
        feature(objectType="annotation"),
        feature({"type": "Point", "coordinates": [1, 2]}, objectType="annotation"),
        name=name,
    )
    assert detect(root) == "qupath"
    dataset = open_dataset(root)
    (field,) = dataset
    assert field.path == tmp_path / "a.png" and (field.width, field.height) == (200, 100)
    assert [c.label for c in field.cells] == ["white cell", "lymphocyte", None]
    assert [c.ignore for c in field.cells] == [False, False, True]
    assert field.cells[0].box == (10, 20, 30, 40)
    assert field.cells[0].attributes == {"cell_size": "large"}
    assert ["without a class" in p or "no polygon" in p for p in messages(dataset.issues)] == [
        True
    ] * 2


def test_old_files_of_qupath(tmp_path):
    """A bare list, types in `id`, measurements as pairs, objects within objects."""
    inner = feature(classification={"name": "monocyte"}, measurements=[{"name": "b", "value": 1}])
    outer = feature(square(0, 0, 99, 99), classification={"name": "Region*"}, childObjects=[inner])
    content = [outer | {"id": "PathAnnotationObject"}]
    content[0]["properties"]["childObjects"][0]["id"] = "PathCellObject"
    picture(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_text(json.dumps(content))
    (field,) = open_dataset(tmp_path)
    assert field.region == Region.rect(0, 0, 99, 99)
    assert field.cells == (Cell((10, 20, 30, 40), "monocyte"),)


def test_a_hole_in_a_region_is_not_known(tmp_path):
    rings = [ring(0, 0, 90, 90), ring(30, 30, 20, 20)]
    holed = {"type": "MultiPolygon", "coordinates": [rings, [ring(100, 0, 50, 50)]]}
    root = qupath(tmp_path, feature(holed, classification={"name": "Region*"}))
    (field,) = open_dataset(root)
    inside = field.region.contains([(10, 10), (40, 40), (80, 80), (120, 10), (95, 10)])
    assert inside.tolist() == [True, False, True, True, False]


def test_an_image_without_objects_is_not_annotated(tmp_path):
    root = qupath(tmp_path)
    picture(root / "b.png")
    dataset = open_dataset(root)
    assert [f.region.is_nothing for f in dataset] == [False, True]
    assert "b.png: image without a *.geojson" in messages(dataset.issues)[0]


def test_one_file_is_one_image(images, tmp_path):
    fields = tuple(Field(p, 64, 48) for p in images[2:])
    with pytest.raises(DataError, match="one image; name a folder"):
        save_dataset(Dataset("x", fields), tmp_path / "x.geojson", "qupath")
    save_dataset(Dataset("x", fields[:1]), tmp_path / "x.geojson", "qupath")
    assert open_dataset(tmp_path / "x.geojson")[0].path == images[2]


def test_a_uuid_stays_the_objects_identity(images, tmp_path):
    idents = ("0b9d5ff4-49ba-4d95-8e7c-0c3fcb0d8b0a", "12", None)
    cells = tuple(Cell((1, 1, 9, 9), "monocyte", id=i) for i in idents)
    domain = Domain("H", 40, "C2", 0.562)
    field = Field(images[-1], 64, 48, cells, domain=domain)
    save_dataset(Dataset("x", (field,)), tmp_path / "x.geojson", "qupath")
    features = json.loads((tmp_path / "x.geojson").read_text())["features"]
    assert [f.get("id") for f in features[1:]] == [idents[0], None, None]
    (read,) = open_dataset(tmp_path / "x.geojson")
    assert [c.id for c in read.cells] == list(idents) and read.domain == domain


# ---- broken files ----------------------------------------------------------------------------

BROKEN = {
    ("label_studio", b"["): "ill-formed JSON",
    ("label_studio", b"[]"): "no task is read from it",
    ("label_studio", b"3"): "holds no list of tasks",
    ("label_studio", b"[1]"): "task 1: is no task",
    ("label_studio", b'[{"data": {"text": "x"}}]'): "its data name no image",
    ("label_studio", b"[\xe4]"): "is not UTF-8 (in Windows-1252 it is 'ä'); save the file as UTF-8",
    ("label_studio", b"[" * 100_000): "JSON that cannot be used",
    ("cvat", b"<annotations>"): "ill-formed XML",
    ("cvat", b"<annotations/>"): "no image is read from it",
    ("cvat", b"<svg/>"): "holds <svg>, not <annotations>",
    ("cvat", b"<annotations>\xe4</annotations>"): "is not UTF-8",
    ("cvat", b'<!DOCTYPE a [<!ENTITY b "x">]><annotations>&b;</annotations>'): "declares entities",
    ("qupath", b"{}"): "holds no list of features",
    ("qupath", b'{"type": "FeatureCollection", "features": 3}'): "holds no list of features",
    ("qupath", b"{"): "ill-formed JSON",
    ("qupath", b"\xff\xfe{"): "is not UTF-16",
}


@pytest.mark.parametrize(("format", "content"), BROKEN)
def test_a_broken_file_is_one_line_with_file_place_and_remedy(tmp_path, format, content):
    file = tmp_path / f"x{PROGRAMS[format] or '.geojson'}"
    file.write_bytes(content)
    with pytest.raises(DataError) as said:
        open_dataset(file, format)
    line = str(said.value)
    assert BROKEN[format, content] in line and file.name in line
    assert "\n" not in line and (";" in line)


@pytest.mark.parametrize("format", PROGRAMS)
def test_an_empty_folder_or_a_file_that_is_none_is_one_line(tmp_path, format):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="here"):
        open_dataset(tmp_path / "empty", format)
    stray = tmp_path / "stray.bin"
    stray.write_bytes(b"\x00\xff")
    with pytest.raises(DataError, match=r"stray\.bin"):
        open_dataset(stray, format)


@pytest.mark.parametrize("format", PROGRAMS)
def test_links_in_circles_and_two_images_of_one_name(images, tmp_path, format):
    dataset = Dataset("set", (Field(images[-1], 64, 48, (Cell((1, 1, 9, 9), "monocyte"),)),))
    save_dataset(dataset, tmp_path / "x", format, images="copy")
    (tmp_path / "x" / "loop").symlink_to(tmp_path / "x")
    (image,) = (tmp_path / "x" / "images").iterdir()
    for folder in ("one", "two"):
        (tmp_path / "x" / folder).mkdir()
        image.replace(tmp_path / "x" / folder / image.name)
        (tmp_path / "x" / "images" / image.name).write_bytes(
            (tmp_path / "x" / folder / image.name).read_bytes()
        )
    image.unlink()
    read = open_dataset(tmp_path / "x", format)
    said = [line for line in messages(read.issues) if "may be any of 2 images" in line]
    assert len(said) == 1 and not any(f.cells for f in read)
