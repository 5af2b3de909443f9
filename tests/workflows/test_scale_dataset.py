"""A data set whose fields have the scale at which they are analysed, and what it leaves out."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

import bloodfilm
from bloodfilm.active_learning.field_scale import is_implausible, origin_of
from bloodfilm.cli.app import app
from bloodfilm.core import DEFAULT_TAXONOMY, Cell, Dataset, Domain, Field
from bloodfilm.core.errors import BloodfilmError, DataError, OutputError
from bloodfilm.core.issue_codes import (
    FIELD_FAILED,
    SCALE_ASSUMED,
    SCALE_CONFLICT,
    SCALE_CORRECTED,
    SCALE_UNCERTAIN,
    issue,
)
from bloodfilm.core.progress import NoProgress
from bloodfilm.formats import open_dataset, save_dataset
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.inference.runner import analyze_many
from bloodfilm.training.data.canonical_fields import training_view
from bloodfilm.workflows.scale_dataset import ScalingJob, scale_dataset
from fake_bundle import Disc, box_of, dark, draw, lay_out, save, write_bundle

STATED = Domain("Scope", 100, pixel_aspect_ratio=1.0, um_per_px=0.05)
LOW_UM, SQUEEZE = 0.3, 0.75


class Reports(NoProgress):
    """Keeps what is reported."""

    def __init__(self):
        self.issues = []

    def report(self, issue):
        self.issues.append(issue)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def model(bundle):
    with bloodfilm.load_model(bundle, device="cpu") as loaded:
        yield loaded


def field_of(path, discs, um_per_px, squeeze=1.0, size_um=(120.0, 80.0), **more):
    """A drawn field that states a wrong scale; its nucleated cells are labelled."""
    width, height = round(size_um[0] / um_per_px * squeeze), round(size_um[1] / um_per_px)
    save(path, draw(discs, (width, height), um_per_px, squeeze))
    cells = tuple(
        Cell(tuple(float(v) for v in box_of(d, um_per_px, squeeze)), "monocyte")
        for d in discs
        if d.colour == dark("monocyte")
    )
    return Field(path, width, height, cells, domain=STATED, **more)


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Two folders of two magnifications, one with a close-up, and an empty field by itself."""
    place = tmp_path_factory.mktemp("fields")
    found = []
    for i in range(8):
        discs = lay_out(120.0, 80.0, [(30.0 + 4 * i, 40.0, "monocyte")])
        found.append(field_of(place / "high" / f"{i}.png", discs, 0.25, split="train"))
        if i < 4:
            path = place / "low" / f"{i}.png"
            found.append(field_of(path, discs, LOW_UM, SQUEEZE, split="val", meta={"film": "a"}))
    near = [Disc(60.0, 40.0, 34.0, dark("monocyte"))]
    found.append(field_of(place / "high" / "near.png", near, 0.25, split="train"))
    found.append(field_of(place / "empty" / "glass.png", [], 0.25, split="val"))
    return tuple(found)


@pytest.fixture(scope="module")
def source(fields, tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    save_dataset(Dataset("drawn", fields, licence="CC0"), folder, "bloodfilm")
    return folder


@pytest.fixture(scope="module")
def scaled(source, model, tmp_path_factory):
    """The set with its scales, what the work returned, and what it reported."""
    out = tmp_path_factory.mktemp("scaled") / "set"
    reports = Reports()
    result = scale_dataset(ScalingJob(dataset=source, out=out), reports, model)
    return open_dataset(out), result, reports.issues


def test_each_field_has_the_scale_at_which_it_is_analysed(scaled, fields, model):
    """The set's own statement has no part in it, and training sees the fields at that scale."""
    dataset, _, _ = scaled
    run = bloodfilm.analyze(fields[0].path.parent.parent, model)
    views = {r.path: r.view for r in run}
    assert len(dataset) == len(fields) - 1
    for field in dataset:
        view = views[str(field.path)]
        assert field.domain.um_per_px == view.um_per_px_y
        assert field.domain.pixel_aspect_ratio == view.um_per_px_y / view.um_per_px_x
        trained = training_view(field, open_field(field), "red cell")
        assert (trained.um_per_px_x, trained.um_per_px_y) == pytest.approx(
            (view.um_per_px_x, view.um_per_px_y), rel=1e-12
        )


def test_two_magnifications_stay_apart_and_pixels_need_not_be_square(scaled):
    dataset, _, _ = scaled
    high, low = (
        {
            f.domain.um_per_px
            for f in dataset
            if f.path.parent.name == name and "near" not in f.path.name
        }
        for name in ("high", "low")
    )
    assert len(high) == len(low) == 1
    assert low.pop() / high.pop() == pytest.approx(LOW_UM / 0.25, rel=0.04)
    squeezed = [f.domain.pixel_aspect_ratio for f in dataset if f.path.parent.name == "low"]
    assert squeezed == pytest.approx([SQUEEZE] * 4, rel=0.03)


def test_a_close_up_has_a_scale_of_its_own(scaled):
    dataset, result, _ = scaled
    (near,) = [f for f in dataset if f.path.name == "near.png"]
    usual = next(f for f in dataset if f.path.name == "0.png" and f.path.parent.name == "high")
    assert near.domain.um_per_px < 0.7 * usual.domain.um_per_px
    assert near.meta["scale_source"] == "close-up" and usual.meta["scale_source"] == "pooled"
    assert result.origins == {"pooled": 12, "close-up": 1}


def test_all_else_stays_as_it_was(scaled, fields):
    dataset, _, _ = scaled
    assert (dataset.name, dataset.licence) == ("drawn, scaled", "CC0")
    kept = [f for f in fields if f.path.name != "glass.png"]
    for field, before in zip(dataset, kept, strict=True):
        meta = {k: v for k, v in field.meta.items() if k != "scale_source"}
        domain = replace(field.domain, um_per_px=0.05, pixel_aspect_ratio=1.0)
        assert replace(field, domain=domain, meta=meta) == before


def test_a_field_whose_scale_is_assumed_is_left_out_and_named(scaled, fields):
    _, result, issues = scaled
    assert [p.name for p in result.left_out] == ["glass.png"]
    (said,) = [i for i in issues if i.code == SCALE_ASSUMED]
    assert said.data["paths"] == [str(fields[-1].path)] and "1 field left out" in said.message


def test_a_field_whose_own_red_cells_contradict_its_folder_is_counted(
    source, model, tmp_path, monkeypatch
):
    """The analysis keeps to the folder's scale, and so does the set."""

    def contradicted(images, *args, **options):
        for outcome in analyze_many(images, *args, **options):
            said = [issue(SCALE_CONFLICT, "")] if outcome.path.endswith("2.png") else []
            yield replace(outcome, issues=(*outcome.issues, *said))

    monkeypatch.setattr("bloodfilm.workflows.scale_dataset.analyze_many", contradicted)
    out = tmp_path / "out"
    result = bloodfilm.scale_dataset(source, out, model, splits=["val"])
    assert [p.name for p in result.contradicted] == ["2.png"]
    assert result.origins == {"pooled": 4} and len(open_dataset(out)) == 4


def test_groups_tell_microscope_and_folder(scaled):
    _, result, _ = scaled
    high, low = result.groups
    assert (high.fields, low.fields) == (9, 4)
    assert high.group.startswith("Scope/100X, ") and high.group.endswith("high")
    assert high.least < high.median == high.largest


def test_what_a_set_states_is_kept_if_asked_for(source, fields, model, tmp_path):
    """Fields that state none get one from their whole folder, as ever."""
    known = open_dataset(source)
    one, two = (
        i for i, f in enumerate(known) if f.path.parent.name == "high" and f.path.stem in "12"
    )
    some = list(known.fields)
    for place in (one, two):
        some[place] = replace(some[place], domain=replace(STATED, um_per_px=None))
    save_dataset(replace(known, fields=tuple(some)), tmp_path / "set", "bloodfilm")
    out = tmp_path / "out"
    result = bloodfilm.scale_dataset(tmp_path / "set", out, model, keep_stated=True)
    assert result.origins == {"stated": len(fields) - 2, "pooled": 2} and not result.left_out
    got = open_dataset(out)
    assert [f.domain.um_per_px == 0.05 for f in got] == [i not in (one, two) for i in range(14)]
    assert got[one].domain.um_per_px == got[two].domain.um_per_px
    with pytest.raises(DataError, match="states the scale of all its fields"):
        bloodfilm.scale_dataset(source, tmp_path / "other", model, keep_stated=True)
    assert not (tmp_path / "other").exists()


def test_files_that_cannot_be_used_are_named_and_the_rest_is_done(fields, bundle, tmp_path):
    (tmp_path / "cut.png").write_bytes(fields[0].path.read_bytes()[:500])
    bad = [replace(fields[0], path=tmp_path / name) for name in ("cut.png", "gone.png")]
    good = [f for f in fields if f.path.parent.name == "low"]
    save_dataset(Dataset("d", (*good, *bad)), tmp_path / "set", "bloodfilm")
    command = ["annotate", "scale", str(tmp_path / "set"), "--bundle", str(bundle), "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert done.exit_code == 1 and "Traceback" not in done.output
    assert "cut.png: " in done.stderr and "gone.png: " in done.stderr
    assert "4 fields with a scale" in done.stdout and "pooled     4" in done.stdout
    assert "not read   2 files" in done.stdout and "Scope/100X" in done.stdout
    again = CliRunner().invoke(app, [*command, str(tmp_path / "out"), "--quiet"])
    assert again.exit_code == 2 and "holds a data set" in again.stderr
    assert len(open_dataset(tmp_path / "out")) == 4


def test_another_image_in_the_place_of_the_labelled_one_is_a_failure(fields, model, tmp_path):
    pytest.importorskip("pyarrow", reason="an index keeps sizes, and needs pyarrow")
    low = [f for f in fields if f.path.parent.name == "low"]
    for field in low:
        (tmp_path / field.path.name).write_bytes(field.path.read_bytes())
    moved = tuple(f.moved(tmp_path / f.path.name) for f in low)
    save_dataset(Dataset("d", moved), tmp_path / "set.parquet", "index")
    save(moved[0].path, draw(lay_out(120.0, 80.0), (480, 320)))
    result = bloodfilm.scale_dataset(tmp_path / "set.parquet", tmp_path / "out", model)
    (failure,) = result.failures
    assert failure.path == str(moved[0].path) and len(result.fields) == 3
    assert failure.reason.startswith("is 480 x 320 px, its labels are of an image of 300 x 267")


def test_figures_as_json(source, bundle, tmp_path):
    command = ["annotate", "scale", str(source), "--bundle", str(bundle), "--split", "val"]
    done = CliRunner().invoke(app, [*command, "--json", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["origins"] == {"pooled": 4} and len(made["fields"]) == 4
    assert [p.endswith("glass.png") for p in made["left_out"]] == [True]
    assert made["groups"][0]["fields"] == 4 and made["fields"][0]["origin"] == "pooled"


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"splits": ("test",)}, "no field of split 'test'; there: train, val"),
        ({"microscopes": ("Axio",)}, "no field of microscope 'Axio'; there: Scope"),
        ({"clean_splits": True}, "has no option 'clean_splits'"),
    ],
)
def test_what_cannot_be_done_is_one_line(source, tmp_path, given, line):
    with pytest.raises(BloodfilmError) as raised:
        scale_dataset(ScalingJob(dataset=source, out=tmp_path / "out", **given))
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_set_without_any_scale_is_refused(fields, model, tmp_path):
    gone = replace(fields[0], path=tmp_path / "gone.png")
    save_dataset(Dataset("glass", (fields[-1], gone)), tmp_path / "set", "bloodfilm")
    reports = Reports()
    with pytest.raises(DataError) as raised:
        scale_dataset(ScalingJob(dataset=tmp_path / "set", out=tmp_path / "out"), reports, model)
    assert "the scale of 1 field can only be assumed, 1 file cannot be used" in str(raised.value)
    assert [i.code for i in reports.issues] == [FIELD_FAILED, SCALE_ASSUMED]
    assert not (tmp_path / "out").exists()


def test_the_set_that_is_read_is_not_replaced(source, model, tmp_path):
    before = (source / "bloodfilm.json").read_bytes()
    with pytest.raises(DataError, match="is there already, in the input"):
        bloodfilm.scale_dataset(source, source, model, overwrite=True)
    with pytest.raises(OutputError, match="holds a data set"):
        bloodfilm.scale_dataset(source, source, model)
    assert (source / "bloodfilm.json").read_bytes() == before


def test_cells_of_a_size_that_none_has_are_a_sign_of_a_wrong_scale(fields, model, tmp_path):
    """The labels say that the smallest objects, red cells to the model, are white cells."""
    wrong = []
    for field in (f for f in fields if f.path.parent.name == "low"):
        cells = tuple(
            replace(c, box=(c.box[0] - 60, c.box[1] - 60, c.box[2] + 120, c.box[3] + 120))
            if field.path.stem == "2"
            else c
            for c in field.cells
        )
        wrong.append(replace(field, cells=cells))
    save_dataset(Dataset("d", tuple(wrong)), tmp_path / "set", "bloodfilm")
    reports = Reports()
    job = ScalingJob(dataset=tmp_path / "set", out=tmp_path / "out")
    result = scale_dataset(job, reports, model)
    assert [p.name for p in result.implausible] == ["2.png"] and len(result.fields) == 4
    (said,) = reports.issues
    assert said.code == SCALE_UNCERTAIN and said.message.startswith(
        "1 field where a nucleated cell"
    )


def boxed(*boxes, um_per_px=0.1, label="lymphocyte"):
    return Field(
        "a.png", cells=tuple(Cell(b, label) for b in boxes), domain=Domain(um_per_px=um_per_px)
    )


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (boxed((50, 50, 90, 90)), False),
        (boxed((50, 50, 301, 301)), True),
        (boxed((50, 50, 39, 39)), True),
        (boxed((50, 50, 20, 90)), False),
        (boxed((50, 50, 39, 39), (90, 90, 80, 80), (200, 200, 90, 90)), False),
        (boxed((0, 50, 20, 20)), False),
        (boxed((380, 50, 20, 20)), False),
        (boxed((50, 50, 20, 20), label="platelet"), False),
        (boxed((50, 50, 20, 20), label=None), False),
        (boxed(None), False),
        (boxed(), False),
        (boxed((50, 50, 20, 20), um_per_px=None), False),
    ],
)
def test_implausible_sizes(field, expected):
    assert is_implausible(field, DEFAULT_TAXONOMY, (400, 400)) is expected


def test_ignored_boxes_say_nothing_of_a_scale():
    field = Field(
        "a.png", cells=(Cell((50, 50, 9, 9), None, ignore=True),), domain=Domain(um_per_px=1)
    )
    assert not is_implausible(field, DEFAULT_TAXONOMY, (400, 400))


@pytest.mark.parametrize(
    ("found", "seen", "origin"),
    [
        ((), "pooled", "pooled"),
        ((), "measured", "measured"),
        ((), "metadata", "metadata"),
        ((SCALE_CONFLICT,), "pooled", "pooled"),
        ((SCALE_CORRECTED,), "measured", "corrected"),
        ((SCALE_ASSUMED,), "assumed", "assumed"),
        ((SCALE_CORRECTED, SCALE_ASSUMED), "assumed", "close-up"),
    ],
)
def test_where_a_scale_comes_from(model, fields, found, seen, origin):
    result = model.analyze(fields[-1].path)
    view = replace(result.view, scale_source=seen)
    assert origin_of(replace(result, view=view, issues=tuple(issue(c, c) for c in found))) == origin
