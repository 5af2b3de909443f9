"""Results: plain data and back, ids, forms for other programs, files of versions 1 and 2."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bloodfilm.core import issue_codes
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import BloodfilmError, DataError
from bloodfilm.core.issue_codes import issue
from bloodfilm.core.issues import codes
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import (
    AnalysisRun,
    AttributeResult,
    CaseResult,
    CellResult,
    CellShape,
    FieldFailure,
    FieldResult,
    ImageRef,
    SlideRecord,
    StoredFields,
    json_line,
    with_ids,
)
from fixtures.made_up_results import make_failure, make_model, make_run, make_view

VERSION_1 = Path(__file__).parents[2] / "golden" / "old_versions" / "v1" / "result.json"


def a_cell(**changes):
    data = {
        "box": (1.04, 2.0, 30.06, 31.0),
        "confidence": 0.91234567,
        "object_type": "nucleated cell",
        "label": "lymphocyte",
        "label_confidence": 0.8,
        "probabilities": {"lymphocyte": 0.8, "monocyte": 0.2},
        "attributes": {"cell_size": AttributeResult(None, 0.4, {"small": 0.4, "large": 0.6})},
        "issues": (issue(issue_codes.LOW_STAIN_CONTRAST, "low", stain_contrast=0.1),),
        "diameter_um": 11.987,
        "nucleated_probability": 0.75,
        "stain_contrast": 0.1234,
    }
    return CellResult(**{**data, **changes})


def a_field(name="a.png", cells=None, **changes):
    cells = (a_cell(), a_cell(box=(9.0, 9.0, 4.0, 4.0))) if cells is None else cells
    image = ImageRef(name, 640, 480, "ab" * 32)
    found = with_ids(cells, image.sha256)
    return replace(FieldResult(image, make_view(640, 480), found, timings={"open": 0.1}), **changes)


# ---- records ------------------------------------------------------------------------------------


def test_a_field_becomes_plain_data_and_comes_back():
    blurred = issue(issue_codes.LOW_SHARPNESS, "blurred", sharpness=9.0)
    record = a_field(issues=(blurred,)).to_json()
    again = FieldResult.from_json(json.loads(json_line(record)))
    assert again.to_json() == record
    assert again.issues == (blurred,) and record["problems"] == ["blurred"]
    assert again.cells[0].box == (1.0, 2.0, 30.1, 31.0) and again.cells[0].confidence == 0.9123
    assert again.timings == {} and "timings" not in record


@pytest.mark.parametrize("missing", ["image", "view", "cells", "sha256", "width"])
def test_a_field_without_a_key_is_refused(missing):
    record = a_field().to_json()
    del record[missing]
    with pytest.raises(DataError, match="not the record of a field"):
        FieldResult.from_json(record)


def test_a_name_that_is_no_utf8_is_kept_as_valid_json():
    line = json_line({"image": "a\udcff.png"})
    assert json.loads(line.encode())["image"] == "a\udcff.png"


def test_ids_depend_on_image_type_and_rounded_box_alone():
    first = with_ids([a_cell()], "image")[0].id
    assert with_ids([a_cell(label="monocyte", confidence=0.1)], "image")[0].id == first
    assert with_ids([a_cell(box=(1.0, 2.0, 30.1, 31.0))], "image")[0].id == first
    others = [a_cell(box=(2.0, 2.0, 30.1, 31.0)), a_cell(object_type="red cell")]
    ids = {c.id for c in with_ids(others, "image")} | {with_ids([a_cell()], "other")[0].id}
    assert len(ids) == 3 and first not in ids


def test_ids_of_equal_cells_differ():
    ids = [c.id for c in with_ids([a_cell()] * 3, "image")]
    assert len(set(ids)) == 3 and ids[1] == f"{ids[0]}-2"


def test_a_failure_names_its_cause_by_code():
    errors = [DataError("a.png: not an image; convert it"), MemoryError(), KeyError("x")]
    failures = [FieldFailure.from_error("a.png", error) for error in errors]
    wanted = [issue_codes.UNREADABLE_IMAGE, issue_codes.OUT_OF_MEMORY, issue_codes.INTERNAL_ERROR]
    assert [f.issue.code for f in failures] == wanted
    assert failures[0].reason == "not an image; convert it"
    assert [FieldFailure.from_json(f.to_json()) for f in failures] == failures


def test_attention_is_asked_for_by_severity():
    rounded = issue(issue_codes.ASPECT_ROUNDED, "1 is used")
    assert not a_field(issues=(rounded,)).needs_attention
    assert a_field(issues=(rounded, issue(issue_codes.NO_CELLS, "nothing"))).needs_attention


# ---- other forms --------------------------------------------------------------------------------


def test_a_reviewed_field_knows_only_what_was_reviewed():
    result = a_field(cells=(a_cell(), a_cell(box=(300.0, 300.0, 40.0, 40.0))))
    field = result.to_field(Region.rect(0, 0, 100, 100))
    assert [c.id for c in field.cells] == [result.cells[0].id]
    assert field.region == Region.rect(0, 0, 100, 100)
    assert (field.width, field.height, field.path) == (640, 480, Path("a.png"))
    assert field.cells[0].label == "lymphocyte" and field.cells[0].attributes == {}
    assert (field.domain.um_per_px, field.domain.pixel_aspect_ratio) == (0.25, 1.0)


def test_a_field_nobody_reviewed_has_proposals_and_an_empty_region():
    sized = a_cell(attributes={"cell_size": AttributeResult("large", 0.9, {})})
    field = a_field(cells=(sized,), view=make_view(640, 480, source="assumed")).to_field()
    assert len(field.cells) == 1 and field.region.is_nothing
    assert field.cells[0].attributes == {"cell_size": "large"}
    assert field.domain.um_per_px is None and field.domain.pixel_aspect_ratio is None


def test_coco_counts_categories_by_the_labels_given():
    result = a_field(cells=(a_cell(), a_cell(label="monocyte")))
    document = result.to_coco(["monocyte"])
    assert [c["name"] for c in document["categories"]] == ["monocyte", "lymphocyte"]
    assert [a["category_id"] for a in document["annotations"]] == [2, 1]
    first = document["annotations"][0]
    assert first["bbox"] == [1.0, 2.0, 30.1, 31.0] and first["area"] == pytest.approx(933.1)
    assert first["cell_id"] == result.cells[0].id
    run = make_run([result, a_field("b.png")])
    assert [i["file_name"] for i in run.to_coco()["images"]] == ["a.png", "b.png"]
    names = [c["name"] for c in run.to_coco()["categories"]]
    assert names == list(run.model.taxonomy.names)
    json.dumps(run.to_coco(), allow_nan=False)


@pytest.mark.parametrize(
    ("module", "call", "install"),
    [
        ("pandas", lambda f: f.to_dataframe(), "bloodfilm[dataframe]"),
        ("supervision", lambda f: f.to_supervision(), "supervision"),
        ("matplotlib", lambda f: f.plot(np.zeros((480, 640, 3), np.uint8)), "bloodfilm[plot]"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, module, call, install):
    loaded = [name for name in sys.modules if name.partition(".")[0] == module]
    for name in {module, *loaded}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BloodfilmError, match=f"{module}.*pip install '{re.escape(install)}'") as e:
        call(a_field())
    assert isinstance(e.value, ImportError)


def test_data_frame():
    pytest.importorskip("pandas")
    frame = a_field().to_dataframe()
    assert list(frame["class"]) == ["lymphocyte", "lymphocyte"]
    assert list(frame.columns[9:11]) == ["cell_size", "cell_size_probability"]
    run = make_run([a_field(), a_field("b.png")]).to_dataframe()
    assert list(run["image"]) == ["a.png", "a.png", "b.png", "b.png"]
    assert run["x"].dtype == float and "nucleolus" in run.columns


def test_supervision_detections():
    supervision = pytest.importorskip("supervision")
    found = a_field(cells=(a_cell(), a_cell(label="monocyte"))).to_supervision()
    assert isinstance(found, supervision.Detections)
    assert found.class_id.tolist() == [0, 1]
    assert found.data["class_name"].tolist() == ["lymphocyte", "monocyte"]
    assert found.xyxy[0].tolist() == pytest.approx([1.04, 2.0, 31.1, 33.0])
    assert len(a_field(cells=()).to_supervision()) == 0
    with pytest.raises(DataError, match="'lymphocyte' is not among the labels"):
        a_field().to_supervision(["monocyte"])


def test_plot(field, tmp_path):
    pytest.importorskip("matplotlib").use("Agg")
    result = field()
    axes = result.plot()
    assert len(axes.patches) == len(result.cells)
    named = [c for c in result.cells if c.probabilities]
    assert len(axes.texts) == len(named) > 0
    with pytest.raises(DataError, match="pass the right image"):
        result.plot(np.zeros((10, 10, 3), np.uint8))
    Path(result.path).unlink()
    with pytest.raises(DataError, match="cannot be read again"):
        result.plot()


# ---- result.json --------------------------------------------------------------------------------


@pytest.fixture
def run():
    return make_run(
        [a_field(), a_field("ü.png", cells=())], (make_failure("\udcff.tif", "no image"),)
    )


def test_a_run_comes_back_and_stays_on_disk(run, tmp_path):
    path = run.write(tmp_path)
    assert path == tmp_path / "result.json"
    again = AnalysisRun.read(tmp_path)
    assert isinstance(again.fields, StoredFields) and len(again) == 2
    assert [f.to_json() for f in again] == [f.to_json() for f in run]
    assert again.fields[-1].path == "ü.png" and [f.path for f in again.fields[:1]] == ["a.png"]
    assert (again.version, again.model, again.settings) == (run.version, run.model, run.settings)
    assert again.failures == run.failures and again.issues == ()


def test_a_run_is_written_again_over_the_file_it_is_read_from(run, tmp_path):
    path = run.write(tmp_path)
    before = path.read_bytes()
    AnalysisRun.read(path).write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("fields", [0, 1])
@pytest.mark.parametrize("failures", [0, 2])
def test_empty_lists_come_back(tmp_path, fields, failures):
    failed = [make_failure("x", "y")] * failures
    path = make_run([a_field()] * fields, failed).write(tmp_path / "r.json")
    again = AnalysisRun.read(path)
    assert (len(again), list(again.failures)) == (fields, failed)
    json.loads(path.read_text("utf-8"))


def test_any_layout_is_read(run, tmp_path):
    path = run.write(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")), indent=2), "utf-8")
    again = AnalysisRun.read(path)
    assert [f.to_json() for f in again] == [f.to_json() for f in run]
    assert again.failures == run.failures


@pytest.mark.parametrize("cut", [2, 40, 400, 2000])
def test_a_file_that_ends_early_is_refused(run, tmp_path, cut):
    path = run.write(tmp_path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"result\.json: not JSON") as error:
        AnalysisRun.read(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_damaged_field_is_named_by_its_place(run, tmp_path):
    path = run.write(tmp_path)
    text = path.read_bytes()
    at = text.index(b'{"image": "a.png"')
    path.write_bytes(text.replace(b'"width": 640', b'"width": nul', 1))
    with pytest.raises(DataError, match=rf"byte {at}: the line is damaged"):
        list(AnalysisRun.read(path))


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("class_score", 7.5, "class_score: 7.5, expected a number from 0 to 1"),
        ("score", "0.5", "score: '0.5', expected a finite number"),
        ("score", True, "score: 'True', expected a finite number"),
        (
            "nucleated_probability",
            -0.1,
            "nucleated_probability: -0.1, expected a number from 0 to 1",
        ),
        ("box", [1, 2, -3, 4], "box: -3 x 4 px"),
        ("box", [1, 2, 3, float("nan")], "box: 'nan', expected a finite number"),
        ("diameter_um", float("inf"), "diameter_um: 'inf', expected a finite number"),
        ("probabilities", {"lymphocyte": 2}, "lymphocyte: 2, expected a number from 0 to 1"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(run, tmp_path, key, value, says):
    path = run.write(tmp_path)
    document = json.loads(path.read_bytes())
    document["fields"][0]["cells"][0][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=re.escape(says)) as error:
        list(AnalysisRun.read(path))
    assert "field 0: cell 0: " in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("class", "wombat", "cell 0: class: the model has no class 'wombat'"),
        ("object_type", "wombat", "cell 0: object_type: the model has no object type 'wombat'"),
        ("probabilities", {"wombat": 0.5}, "cell 0: probabilities: the model has no class"),
        (
            "attributes",
            {"wombat": {"value": None, "probability": 0, "probabilities": {}}},
            "cell 0: attributes: the model has no attribute 'wombat'",
        ),
        (
            "attributes",
            {"cell_size": {"value": "vast", "probability": 0.5, "probabilities": {}}},
            "cell 0: cell_size: the model has no value 'vast'",
        ),
        (
            "attributes",
            {"cell_size": {"value": None, "probability": 0.5, "probabilities": {"vast": 0.5}}},
            "cell 0: cell_size: the model has no value 'vast'",
        ),
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_name_that_the_model_does_not_have_is_refused(run, tmp_path, key, value, says, indent):
    path = run.write(tmp_path)
    whole = json.loads(path.read_bytes())
    cell = whole["fields"][0]["cells"][0]
    if indent:  # a layout that is read at once
        cell[key] = value
        path.write_text(json.dumps(whole, indent=indent))
    else:  # the layout of `write`, read field by field
        changed = json_line({**cell, key: value})
        path.write_text(path.read_text().replace(json_line(cell), changed, 1))
    with pytest.raises(DataError, match=re.escape(says)) as error:
        list(AnalysisRun.read(path))
    assert str(path) in str(error.value) and len(str(error.value).splitlines()) == 1


def with_value(document, keys, value):
    """Return a copy of plain data with one value, given by its keys, replaced."""
    copy = json.loads(json.dumps(document))
    part = copy
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return copy


NO_FIGURES = [True, "7", None, [], -1, 10**400, float("nan"), float("inf")]
FIGURES = [
    *((*("fields", 0), key) for key in ("width", "height")),
    *(
        ("fields", 0, "view", key)
        for key in ("um_per_px_x", "um_per_px_y", "confidence", "red_cells", "width", "height")
    ),
    ("fields", 0, "view", "white_point", 1),
    ("fields", 0, "view", "veiling_glare"),
    ("fields", 0, "slide", "zone_mm2"),
    ("fields", 0, "slide", "tiles"),
    ("fields", 0, "slide", "counts", "platelet"),
    *(
        ("fields", 0, "cells", 0, "shape", key)
        for key in ("area_um2", "diameter_um", "length_um", "nucleus_ratio", "lobes")
    ),
    *(("model", key) for key in ("class_confidence", "attribute_confidence", "crop_um")),
]


@pytest.mark.parametrize("keys", FIGURES, ids=lambda keys: "-".join(map(str, keys)))
def test_a_figure_that_cannot_be_is_refused_by_its_key(tmp_path, keys):
    outline = (10.0, 10.0), (20.0, 10.0), (20.0, 20.0)
    shape = CellShape(
        outline, (outline,), 50.0, 20.0, 8.0, 9.0, 7.0, 0.4, 0.9, 0.8, 2, (9, 8, 7), None
    )
    slide = SlideRecord("whole", 2.0, 2.0, {"platelet": 9}, tiles=4)
    run = make_run([a_field(cells=(a_cell(shape=shape),), slide=slide)])
    document = json.loads(run.write(tmp_path).read_text())
    path = tmp_path / "other.json"
    for value in NO_FIGURES:
        path.write_text(json.dumps(with_value(document, keys, value), indent=1))
        with pytest.raises(DataError) as error:
            list(AnalysisRun.read(path))
        name = next(key for key in reversed(keys) if isinstance(key, str) and key != "platelet")
        said = str(error.value)
        assert said.startswith(str(path)) and f"{name}: " in said, said
        assert len(said) < 300 + len(str(path)) and len(said.splitlines()) == 1
        assert keys[0] == "model" or "field 0: " in said
    path.write_text(json.dumps(document, indent=1))
    assert [f.to_json() for f in AnalysisRun.read(path)] == [f.to_json() for f in run]


@pytest.mark.parametrize(
    "box", [[-2, 0, 9, 9], [0, -1e9, 9, 9], [632, 0, 20, 9], [0, 470, 9, 1e300]]
)
def test_a_box_beyond_its_image_is_refused(run, tmp_path, box):
    path = run.write(tmp_path)
    document = with_value(json.loads(path.read_text()), ("fields", 0, "cells", 1, "box"), box)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"field 0: cell 1: box: .* beyond the image of 640 x 480"):
        list(AnalysisRun.read(path))


def test_outlines_are_rounded_as_single_numbers_are():
    rng = np.random.default_rng(0)
    half_way = rng.integers(0, 4000, 300) / 20  # of which each binary value lies on one side
    near = half_way + rng.choice([-1e-9, 0.0, 1e-9], 300)
    for values in (rng.uniform(0, 640, 300), half_way, near, rng.uniform(0, 1e5, 300)):
        corners = tuple(zip(values[::2].tolist(), values[1::2].tolist(), strict=True))
        shape = CellShape(corners, (), *[1.0] * 7, None, 0, None, None)
        assert shape.to_json()["outline"] == [round(v, 1) for v in values.tolist()]


@pytest.mark.parametrize("place", [("outline", 2), ("nucleus", 0, 3)])
@pytest.mark.parametrize("value", [-2, 700, 1e308])
def test_an_outline_beyond_its_image_is_refused(tmp_path, place, value):
    outline = (10.0, 10.0), (20.0, 10.0), (20.0, 20.0)
    shape = CellShape(
        outline, (outline,), 50.0, 20.0, 8.0, 9.0, 7.0, 0.4, 0.9, 0.8, 2, (9, 8, 7), None
    )
    path = make_run([a_field(cells=(a_cell(shape=shape),))]).write(tmp_path)
    keys = ("fields", 0, "cells", 0, "shape", *place)
    path.write_text(json.dumps(with_value(json.loads(path.read_text()), keys, value)))
    with pytest.raises(DataError, match=rf"field 0: cell 0: {place[0]}: reaches beyond the image"):
        AnalysisRun.read(path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (("classified",), "classified: 'wombat'"),
        (("object_types", 0), "object_types: 'wombat'"),
        (("untrained", "classes", 0), "untrained.classes: 'wombat'"),
        (("untrained", "attributes", 0), "untrained.attributes: 'wombat'"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(run, tmp_path, keys, says):
    path = run.write(tmp_path)
    document = with_value(json.loads(path.read_text()), ("model", *keys), "wombat")
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=re.escape(says)):
        AnalysisRun.read(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "not a result of an analysis"),
        ('{"format": "bloodfilm-dataset"}', "not a result of an analysis"),
        ('{"format": "bloodfilm-result", "version": 4, "fields": []}', "reads versions 1 to 3"),
        ('{"format": "bloodfilm-result", "version": 1}', 'no list "fields"'),
        ('{"format": "bloodfilm-result", "version": 2, "fields": []}', "model is damaged"),
        ("\ufeff", "not JSON"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, text, says):
    path = tmp_path / "r.json"
    path.write_text(text, "utf-8")
    with pytest.raises(DataError, match=says):
        AnalysisRun.read(path)


def test_a_missing_and_an_unfinished_run_are_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        AnalysisRun.read(tmp_path)
    (tmp_path / "results.part.jsonl").write_text("")
    with pytest.raises(DataError, match="--resume"):
        AnalysisRun.read(tmp_path)


def test_version_1_is_read():
    run = AnalysisRun.read(VERSION_1)
    assert codes(run.issues) == {issue_codes.MODEL_NOT_RECORDED}
    assert run.model.name == "fake" and len(run) == 3
    field = run.fields[0]
    assert field.view.scale_source == field.view.aspect_source == "pooled"
    assert (field.image.sha256, field.cells[0].id) == ("", "")
    whole = json.loads(VERSION_1.read_text("utf-8"))["fields"]
    flags = [f for item in whole for c in item["cells"] for f in c["flags"]]
    found = [i.code for item in run for c in item.cells for i in c.issues]
    assert len(found) == len(flags)
    assert issue_codes.UNCODED not in found


def test_the_flags_of_version_1_get_their_codes():
    record = json.loads(VERSION_1.read_text("utf-8"))["fields"][0]["cells"][0]
    record["flags"] = ["a closer look doubts that it is a nucleated cell", "something else"]
    cell = CellResult.from_json(record)
    wanted = [issue_codes.LOW_NUCLEATED_PROBABILITY, issue_codes.UNCODED]
    assert [i.code for i in cell.issues] == wanted
    assert cell.issues[1].message == "something else"


def test_the_record_of_a_model_comes_back():
    model = make_model()
    data = json.loads(json.dumps(model.to_json()))
    assert type(model).from_json(model.identity, data) == model
    del data["schema"]
    with pytest.raises(DataError, match="not the record of one"):
        type(model).from_json({}, data)


def test_a_model_keeps_by_what_it_names_cells():
    from bloodfilm.core.results import ModelInfo

    plain, sets = ModelInfo({}), ModelInfo({}, class_coverage=0.9)
    assert "class_coverage" not in plain.to_json()
    assert ModelInfo.from_json({}, sets.to_json()) == sets
    assert ModelInfo.from_json({}, plain.to_json()).class_coverage is None
    with pytest.raises(DataError, match="class_coverage: 7, expected a number from 0 to 1"):
        ModelInfo.from_json({}, sets.to_json() | {"class_coverage": 7})


def test_results_are_shown_in_a_line(run):
    """A notebook shows what a cell of it returns: a run of many fields is no page of text."""
    assert repr(run) == f"<AnalysisRun by {run.model.name!r}: 2 fields, 1 failure>"
    first = run.fields[0]
    assert repr(first).startswith(f"<FieldResult {first.path!r}: ") and "nucleated cells" in repr(
        first
    )
    case = CaseResult("film 7", run.fields, (), (), model=run.model)
    assert repr(case) == "<CaseResult 'film 7': 2 fields, 0 cells counted>"
    for shown in (run, first, case, run.model, first.cells[0], Dataset("one", ())):
        assert repr(shown).startswith(f"<{type(shown).__name__} ") and len(repr(shown)) < 200
