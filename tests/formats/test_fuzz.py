"""Whatever a label file holds, a reader gives a sound data set or one `DataError`."""

import copy
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bloodfilm.core import Cell, DataError, Dataset, Domain, Field, Region
from bloodfilm.core.issues import messages
from bloodfilm.formats import open_dataset, save_dataset

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**20),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["..", "WBC", "train", "nan", [], {}, [1], {"a": 1}, [[1, 2]] * 3]),
)
words = st.one_of(
    st.sampled_from(["0", "1", "14", "nan", "-inf", "1e400", ".5", "-0.1", "x", "", "\x00"]),
    st.floats().map(repr),
)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder in LLD's layout with one image, and a set that shows all a file can hold."""
    place = tmp_path_factory.mktemp("fuzz") / "H_40X_C2"
    (place / "Images" / "train").mkdir(parents=True)
    Image.new("RGB", (64, 48)).save(place / "Images" / "train" / "7_1_2_400_AML.png")
    return place


def example(root) -> Dataset:
    cells = (
        Cell((1, 2, 10, 12), "myeloblast", {"nuclear_shape": "regular"}, id="a"),
        Cell((30, 2, 10, 12), None, ignore=True),
    )
    path = root / "Images" / "train" / "7_1_2_400_AML.png"
    domain = Domain("H", 40, "C2", 0.562)
    region = Region.rect(0, 0, 50, 40)
    return Dataset("x", (Field(path, 64, 48, cells, region, domain, "7", "train", "AML"),))


def sound(dataset: Dataset) -> None:
    """Check what every reader promises of its boxes and labels."""
    for field in dataset:
        for cell in field.cells:
            assert cell.label is None or cell.label in dataset.taxonomy
            if cell.box is not None:
                x, y, w, h = cell.box
                assert all(map(math.isfinite, cell.box)) and w > 0 and h > 0
                if field.width and field.height:
                    assert x >= 0 and y >= 0
                    assert x + w <= field.width + 1e-6 and y + h <= field.height + 1e-6
    assert all("\n" not in line for line in messages(dataset.issues))


def places(content, path=()):
    """Yield the path of every value in nested lists and dicts."""
    yield path
    pairs = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in pairs if isinstance(content, dict | list) else ():
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def changed(content, path, value):
    content = copy.deepcopy(content)
    if not path:
        return value
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return content


@pytest.mark.parametrize("format", ["coco", "bloodfilm", "label_studio", "lld", "qupath"])
def test_any_value_anywhere_in_json(root, tmp_path, format):
    file = tmp_path / ("x.geojson" if format == "qupath" else "x.json")
    save_dataset(example(root), tmp_path / "out" if format == "lld" else file, format)
    if format == "lld":
        file = root / "json_labels" / "train.json"
        file.parent.mkdir(exist_ok=True)
        written = tmp_path / "out" / "H_40X_C2" / "json_labels" / "train.json"
        file.write_text(written.read_text())
    content = json.loads(file.read_text())
    assert len(open_dataset(file, format)[0].cells) == 2
    spots = sorted(places(content), key=str)

    @settings(max_examples=150)
    @given(st.sampled_from(spots), scalars)
    def check(spot, value):
        file.write_text(json.dumps(changed(content, spot, value)))
        try:
            sound(open_dataset(file, format))
        except DataError as error:
            assert "\n" not in str(error)

    check()


@pytest.mark.parametrize("format", ["yolo", "lld"])
def test_any_words_in_text_labels(root, tmp_path, format):
    save_dataset(example(root), tmp_path / "x", "yolo", images="copy")
    if format == "yolo":
        place, file = tmp_path / "x", tmp_path / "x" / "labels" / "train" / "7_1_2_400_AML.txt"
    else:
        place, file = root, root / "txt_labels" / "AttriDet" / "train" / "7_1_2_400_AML.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
    options = {} if format == "yolo" else {"labels": "AttriDet"}
    line = st.sampled_from([5, 6, 7, 11, 12, 15, 16]).flatmap(
        lambda n: st.lists(words, min_size=n, max_size=n)
    )

    @settings(max_examples=100)
    @given(st.lists(line, max_size=3))
    def check(lines):
        file.write_text("".join(" ".join(line) + "\n" for line in lines))
        try:
            sound(open_dataset(place, format, **options))
        except DataError as error:
            assert "\n" not in str(error)

    check()


@pytest.mark.parametrize("format", ["cvat", "voc"])
def test_any_change_of_an_xml_file(root, tmp_path, format):
    save_dataset(example(root), tmp_path / "x", format, images="copy")
    (file,) = (tmp_path / "x").rglob("*.xml")
    text = file.read_text()
    pieces = st.sampled_from(["", "<", "nan", "-1", "</object>", "{", "&", "1e400", "é", "<a>"])

    @settings(max_examples=100)
    @given(st.integers(0, len(text)), st.integers(0, 30), pieces)
    def check(start, length, piece):
        file.write_text(text[:start] + piece + text[start + length :], encoding="utf-8")
        try:
            sound(open_dataset(tmp_path / "x", format))
        except DataError as error:
            assert "\n" not in str(error)

    check()
