"""From data sets to canonical fields: no leak, the right scale, truth in the right pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bloodfilm.core import Cell, Dataset, Domain, Field, Region
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.imaging.canonical import canonical_view
from bloodfilm.imaging.sources import ArraySource
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.canonical_fields import FieldLoader, training_view
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import check_split_disjoint, open_sources
from fake_bundle import box_of, draw, lay_out, save
from tiny import VOCABULARY, silent, write_set

SET = Dataset("set", ())
RULER = "red cell"
LOADER = FieldLoader(VOCABULARY, 0.25)


def sourced(name="a.png", dataset=SET, **more):
    return SourcedField(Field(Path(name), **more), dataset, 1.0)


@pytest.mark.parametrize(
    ("what", "left", "right"),
    [
        ("field", sourced("x/../a.png"), sourced("a.png")),
        ("patient", sourced(patient="7"), sourced("b.png", patient="7")),
        ("twin group", sourced(meta={"twin": "t1"}), sourced("b.png", meta={"twin": "t1"})),
    ],
)
def test_leaks_are_refused(what, left, right):
    with pytest.raises(ConfigError, match=f"{what} .* in training and in validation"):
        check_split_disjoint([sourced("other.png"), left], [right, sourced("more.png")])


def test_likeness_that_is_no_leak():
    other = Dataset("other set", ())
    check_split_disjoint(
        [sourced(patient="7", meta={"twin": ""}), sourced("b.png")],
        [sourced("c.png", other, patient="7", meta={"twin": ""}), sourced("d.png")],
    )


def test_sources_are_their_splits(tmp_path):
    write_set(tmp_path / "discs", 2, 1)
    train = open_sources([DatasetConfig(path="discs", splits=("train",), repeat=2.0)], tmp_path)
    assert [s.field.patient for s in train] == ["train0", "train1"]
    assert {s.repeat for s in train} == {2.0}
    assert len(open_sources([DatasetConfig(path="discs")], tmp_path)) == 3
    with pytest.raises(ConfigError, match="no field in splits test"):
        open_sources([DatasetConfig(path="discs", splits=("test",))], tmp_path)


def squeezed(um_per_px=0.2, squeeze=0.6):
    discs = lay_out(60, 50)
    size = round(60 * squeeze / um_per_px), round(50 / um_per_px)
    boxes = [tuple(float(v) for v in box_of(d, um_per_px, squeeze)) for d in discs]
    return draw(discs, size, um_per_px, squeeze), boxes


def test_red_cells_boxes_are_the_ruler():
    image, boxes = squeezed()
    cells = tuple(Cell(b, "red cell") for b in boxes)
    # Half of another cell, cut by the edge, tells nothing of size; nor does a white cell.
    cells += tuple(Cell((0.0, y, 6.0, 30.0), "red cell") for y in range(9))
    cells += (Cell((30.0, 30.0, 60.0, 60.0), "neutrophil"),)
    view = training_view(
        Field(Path("a"), cells=cells, domain=Domain(um_per_px=9.9)), ArraySource(image), RULER
    )
    assert view.um_per_px_y == pytest.approx(0.2)
    assert view.um_per_px_x == pytest.approx(0.2 / 0.6)
    assert view.red_cells == len(boxes)


def test_nearly_round_cells_are_round():
    image, _ = squeezed()
    cells = tuple(Cell((10.0 + i, 10.0, 30.0, 31.0), "red cell") for i in range(5))
    view = training_view(Field(Path("a"), cells=cells), ArraySource(image), RULER)
    assert view.um_per_px_x == view.um_per_px_y == pytest.approx(7.5 / np.sqrt(30 * 31))


def test_without_boxes_the_metadata_scale_is_used():
    image, _ = squeezed()
    domain = Domain(um_per_px=0.3, pixel_aspect_ratio=0.5)
    view = training_view(Field(Path("a"), domain=domain), ArraySource(image), RULER)
    assert (view.um_per_px_y, view.um_per_px_x) == (0.3, 0.6)
    view = training_view(Field(Path("a"), domain=Domain(um_per_px=0.3)), ArraySource(image), RULER)
    assert view.um_per_px_x == view.um_per_px_y == 0.3


def test_without_either_the_picture_tells():
    image = draw(lay_out(100, 90), (500, 450), 0.2)
    view = training_view(Field(Path("a")), ArraySource(image), RULER)
    assert view == canonical_view(image) and view.scale_source == "measured"
    assert view.um_per_px_y == pytest.approx(0.2, rel=0.1)


@pytest.mark.parametrize(
    ("label", "kind"),
    [("neutrophil", 0), ("white cell", 0), ("erythroblast", 0), ("red cell", 1), ("platelet", 2)],
)
def test_a_label_of_any_depth_has_a_kind(label, kind):
    assert VOCABULARY.object_type_of(label, SET.taxonomy) == kind


def test_a_label_that_could_be_several_kinds_has_none():
    for label in ("cell", None, "no such class"):
        assert VOCABULARY.object_type_of(label, SET.taxonomy) is None


def test_truth_and_region_come_to_canonical_pixels(tmp_path):
    image, boxes = squeezed()
    path = save(tmp_path / "a.png", image)
    height, width = image.shape[:2]
    cells = (
        Cell(boxes[0], "red cell"),
        Cell(boxes[1], "neutrophil"),
        Cell(boxes[2], None),
        Cell(boxes[3], "neutrophil", ignore=True),
        Cell(boxes[4], "cell"),
        Cell(None, "monocyte"),
    )
    half = Region.rect(0, 0, width / 2, height)
    field = Field(
        path, cells=cells, region=half, domain=Domain(um_per_px=0.2, pixel_aspect_ratio=0.6)
    )
    loaded = LOADER.load(SourcedField(field, SET, 2.5))
    assert loaded.image.shape == (200, 240, 3) and loaded.repeat == 2.5
    assert loaded.type_ids.tolist() == [1, 0] and len(loaded.ignore) == 3
    assert np.allclose(loaded.boxes[:, 2:], 30, atol=0.2)
    assert np.allclose(loaded.boxes[0], np.array(boxes[0]) * [4 / 3, 0.8, 4 / 3, 0.8], atol=0.2)
    mask = loaded.region.mask(240, 200)
    assert mask[:, :120].all() and not mask[:, 120:].any()


def test_a_field_that_cannot_be_opened_is_left_out(tmp_path, caplog):
    image, _boxes = squeezed()
    good = Field(save(tmp_path / "a.png", image), domain=Domain(um_per_px=0.2))
    (tmp_path / "b.png").write_bytes(b"rubbish")
    bad = replace(good, path=tmp_path / "b.png")
    fields = [SourcedField(bad, SET, 9.0), SourcedField(good, SET, 2.0)]
    assert [f.repeat for f in LOADER.load_all(fields, silent)] == [2.0]
    assert "b.png" in caplog.text
    with pytest.raises(ConfigError, match="none of the fields"):
        LOADER.load_all(fields[:1], silent)


def test_a_picture_of_another_size_is_not_the_one_that_was_labelled(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), "white").save(path)
    with pytest.raises(DataError, match=r"is 64 x 48 px, its labels are of an image of 640 x 480"):
        open_field(Field(path, 640, 480))
    for known in (Field(path, 64, 48), Field(path)):
        assert open_field(known).size == (64, 48)


def test_the_pixel_size_of_a_file_is_used_where_nothing_else_is_known(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (64, 48), "white").save(path, dpi=(25400 / 0.2, 25400 / 0.2))
    view = training_view(Field(path), open_field(Field(path)), RULER)
    assert view.scale_source == "metadata" and view.um_per_px_y == pytest.approx(0.2)


def test_a_thinned_source_keeps_some_fields_of_every_class(tmp_path):
    write_set(tmp_path / "discs", 8, 1)
    every = open_sources([DatasetConfig(path="discs", splits=("train",))], tmp_path)
    few = [open_sources([DatasetConfig(path="discs", most=2)], tmp_path) for _ in "ab"]
    labels = [s.field.cells[0].label for s in few[0]]
    assert sorted(labels) == sorted(2 * sorted({s.field.cells[0].label for s in every}))
    assert [s.field.path for s in few[0]] == [s.field.path for s in few[1]]
    paths = [s.field.path for s in few[0]]
    assert paths == sorted(paths)
    whole = open_sources([DatasetConfig(path="discs", splits=("train",), most=99)], tmp_path)
    assert [s.field.path for s in whole] == [s.field.path for s in every]
