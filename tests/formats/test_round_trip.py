"""Every format: what is written is read back, but for the losses its writer states."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bloodfilm.core import (
    DEFAULT_TAXONOMY,
    LLD_SCHEMA,
    Cell,
    Dataset,
    Domain,
    Field,
    Region,
    dataset_codes,
)
from bloodfilm.core.issues import SEVERITIES, Issue, messages
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.formats.lld.codes import CLASSES

WIDTH, HEIGHT = 64, 48
LLD_CLASSES = [name for name in CLASSES.values() if name != "none"]

text = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=6)


@st.composite
def boxes(draw):
    x = draw(st.floats(0, WIDTH - 3))
    y = draw(st.floats(0, HEIGHT - 3))
    return (x, y, draw(st.floats(1, WIDTH - x)), draw(st.floats(1, HEIGHT - y)))


def cells(labels, box=None):
    box = boxes() | st.none() if box is None else box
    attributes = st.fixed_dictionaries(
        {}, optional={a.name: st.sampled_from(a.values) for a in LLD_SCHEMA.attributes}
    )
    return st.builds(
        Cell, box, st.none() | st.sampled_from(labels), attributes, st.booleans(), st.none() | text
    )


points = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))
regions = st.one_of(
    st.just(Region.everything()),
    st.just(Region.nothing()),
    st.just(Region.rect(8, 6, 32, 30)),
    st.builds(
        Region, st.lists(st.lists(points, min_size=3, max_size=5).map(tuple), max_size=2).map(tuple)
    ),
)
domains = st.builds(
    Domain,
    st.none() | text,
    st.none() | st.sampled_from([10.0, 40.0, 100.0]),
    st.none() | text,
    st.none() | st.floats(0.1, 2),
    st.none() | st.floats(0.01, 1),
    st.none() | text,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[Path]:
    """Five real images, two of one name; all have the same size."""
    root = tmp_path_factory.mktemp("pixels")
    names = ("a/one.png", "b/one.png", "two.png", "b/three.jpg", "7_1_2_400_AML.png")
    for name in names:
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / name)
    return [root / name for name in names]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Callable[[], Path]:
    """A function that names a new place to write to."""
    root, numbers = tmp_path_factory.mktemp("written"), itertools.count()
    return lambda: root / f"out{next(numbers)}"


def datasets(images, cell=None, **kwargs):
    options = {
        "region": regions,
        "domain": domains,
        "patient": st.none() | text,
        "split": st.none() | st.sampled_from(["train", "val", "test"]),
        "diagnosis": st.none() | text,
        "meta": st.dictionaries(text, text, max_size=2),
    } | kwargs
    cell = cells(DEFAULT_TAXONOMY.names) if cell is None else cell

    def one(path):
        listed = st.lists(cell, max_size=3).map(tuple)
        return st.builds(Field, st.just(path), st.just(WIDTH), st.just(HEIGHT), listed, **options)

    def build(fields):
        return Dataset("drawn", tuple(fields))

    return st.permutations(images).flatmap(
        lambda order: st.tuples(*(one(p) for p in order[:3])).map(build)
    )


def same_boxes(read: Dataset, expected: dict[str, Field]) -> None:
    """Check fields one by one; boxes to 1e-6 px, everything else exactly."""
    assert {f.path.resolve().as_posix() for f in read} == set(expected)
    for field in read:
        wanted = expected[field.path.resolve().as_posix()]
        for cell, other in itertools.zip_longest(field.cells, wanted.cells):
            assert cell.box == pytest.approx(other.box, abs=1e-6)
            assert replace(cell, box=None) == replace(other, box=None)
        assert replace(field, cells=(), path=wanted.path) == replace(wanted, cells=())


def by_path(dataset: Dataset, change: Callable[[Field], Field]) -> dict[str, Field]:
    return {f.path.resolve().as_posix(): change(f) for f in dataset}


issues = st.builds(
    Issue,
    st.sampled_from(sorted(set(dataset_codes.CODES) - {dataset_codes.UNSEALED})),
    st.sampled_from(SEVERITIES),
    text,
    st.dictionaries(text, st.none() | st.integers(-9, 9) | text, max_size=2),
)


# ---- formats that lose nothing ---------------------------------------------------------------


@pytest.mark.parametrize(("format", "suffix"), [("bloodfilm", ".json"), ("index", ".parquet")])
def test_native_and_index_lose_nothing(images, fresh, format, suffix):
    if format == "index":
        pytest.importorskip("pyarrow")

    @settings(max_examples=10)
    @given(datasets(images), st.lists(issues, max_size=2).map(tuple), st.none() | text)
    def check(dataset, found, licence):
        dataset = replace(dataset, issues=found, licence=licence)
        file = fresh().with_suffix(suffix)
        assert save_dataset(dataset, file, format) == []
        read = open_dataset(file)
        assert read.source == file
        assert replace(read, source=None) == dataset

    check()


def test_coco_loses_only_cells_without_a_box(images, fresh):
    @settings(max_examples=10)
    @given(datasets(images))
    def check(dataset):
        file = fresh().with_suffix(".json")
        lost = list(messages(save_dataset(dataset, file, "coco")))
        without = sum(c.box is None for f in dataset for c in f.cells)
        assert len(lost) == bool(without)
        assert all(str(without) in line for line in lost)
        boxed = [f.with_cells(tuple(c for c in f.cells if c.box)) for f in dataset]
        read = open_dataset(file)
        assert read.fields == tuple(boxed)
        assert read.issues == ()
        assert read.name == dataset.name

    check()


# ---- formats with images in place ------------------------------------------------------------


def test_voc_loses_only_cells_without_a_box(images, fresh):
    def expected(field: Field) -> Field:
        return field.with_cells(tuple(c for c in field.cells if c.box))

    @settings(max_examples=15)
    @given(datasets(images))
    def check(dataset):
        folder = fresh()
        save_dataset(dataset, folder, "voc", images="link")
        same_boxes(open_dataset(folder), by_path(dataset, expected))

    check()


def test_lld_json_keeps_all_but_boxless_cells(images, fresh):
    def expected(field: Field) -> Field:
        return field.with_cells(tuple(c for c in field.cells if c.box))

    @settings(max_examples=15)
    @given(datasets(images))
    def check(dataset):
        folder = fresh()
        save_dataset(dataset, folder, "lld", images="link")
        same_boxes(open_dataset(folder, "lld"), by_path(dataset, expected))

    check()


def test_yolo_keeps_boxes_classes_and_splits(images, fresh):
    def cell(cell: Cell) -> Cell:
        return Cell(cell.box, None if cell.ignore else cell.label, {}, cell.ignore)

    def expected(field: Field) -> Field:
        kept = tuple(cell(c) for c in field.cells if c.box)
        unknown = field.region.is_nothing and not kept
        region = Region.nothing() if unknown else Region.everything()
        return Field(field.path, WIDTH, HEIGHT, kept, region, split=field.split)

    @settings(max_examples=15)
    @given(datasets(images))
    def check(dataset):
        folder = fresh()
        lost = list(messages(save_dataset(dataset, folder, "yolo", images="link")))
        same_boxes(open_dataset(folder), by_path(dataset, expected))
        stated = any(c.attributes for f in dataset for c in f.cells if c.box)
        assert any("attributes" in line for line in lost) == stated
        assert any("patient" in line for line in lost) == any(f.patient for f in dataset)

    check()


@pytest.mark.parametrize("columns", [5, 11, 12, 15, 16])
def test_lld_text_keeps_what_its_columns_hold(images, fresh, columns):
    names = {5: (), 11: LLD_SCHEMA.names[1:], 15: LLD_SCHEMA.names[1:]}
    kept = names.get(columns, LLD_SCHEMA.names)
    patch = Region.rect(8, 6, 40, 30)
    inside = st.builds(lambda x, y, w, h: (x, y, w, h), *[st.floats(16, 24), st.floats(12, 20)] * 2)
    cell = cells(LLD_CLASSES, inside).filter(lambda c: c.ignore or c.label)

    def read_back(cell: Cell) -> Cell:
        known = {k: v for k, v in cell.attributes.items() if k in kept}
        if cell.ignore and known.get("cell_size") == "large":
            del known["cell_size"]
        return Cell(cell.box, None if cell.ignore else cell.label, known, cell.ignore)

    def expected(field: Field, sparse: set[str | None]) -> Field:
        has_patch = columns in (15, 16) and field.cells
        region = field.region if has_patch else Region.everything()
        if not field.cells and (field.split in sparse or field.region.is_nothing):
            region = Region.nothing()
        meta = {"annotated": "white cell"}
        plain = Field(field.path, WIDTH, HEIGHT, tuple(read_back(c) for c in field.cells), region)
        if not field.path.name.startswith("7_"):
            return replace(plain, split=field.split, meta=meta)
        told = {"patient": "7", "diagnosis": "AML", "domain": Domain(magnification=40)}
        meta |= {"field": "1", "photograph": "2"}
        unread = field.region.is_nothing and not field.cells
        size = {"width": None, "height": None} if unread else {}
        return replace(plain, split=field.split, meta=meta, **told, **size)

    @settings(max_examples=25)
    @given(datasets(images, cell, region=st.sampled_from([Region.everything(), patch])))
    def check(dataset):
        folder = fresh()
        lost = list(
            messages(
                save_dataset(dataset, folder, "lld", images="link", labels="text", columns=columns)
            )
        )
        marked = {f.split for f in dataset if f.cells and f.region == patch}
        sparse = marked if columns in (15, 16) else set()
        same_boxes(open_dataset(folder, "lld"), by_path(dataset, lambda f: expected(f, sparse)))
        empty = any(not f.cells and f.split in sparse for f in dataset)
        assert any("was looked at" in line for line in lost) == empty

    check()


def test_folder_keeps_the_class_of_single_cells(images, fresh):
    def read_back(field: Field) -> Field:
        kept = tuple(
            Cell(None, None if c.ignore else c.label, ignore=c.ignore) for c in field.cells
        )
        named = {"patient": "7", "diagnosis": "AML", "domain": Domain(magnification=40)}
        named["meta"] = {"field": "1", "photograph": "2"}
        told = named if field.path.name.startswith("7_") else {}
        return Field(field.path, None, None, kept, Region.nothing(), split=field.split, **told)

    @settings(max_examples=15)
    @given(datasets(images))
    def check(dataset):
        folder = fresh()
        lost = list(messages(save_dataset(dataset, folder, "folder", images="link")))
        single = dataset.where(lambda f: len(f.cells) < 2)
        several = len(dataset) - len(single)
        assert any("more than one cell" in line for line in lost) == bool(several)
        if len(single):
            same_boxes(open_dataset(folder, "folder"), by_path(single, read_back))

    check()
