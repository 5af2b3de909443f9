"""The Python API, as a user calls it."""

from pathlib import Path

import pytest

import bloodfilm
from bloodfilm.core import issue_codes
from bloodfilm.core.issues import codes
from fake_bundle import draw, lay_out, save, write_bundle
from golden.running import OLD, draw_discs


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bloodfilm.load_model(write_bundle(tmp_path_factory.mktemp("bundle")), device="cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Fields `a.png` to `c.png`, a file that is no image, and labels of the fields."""
    place = tmp_path_factory.mktemp("api")
    draw_discs(place / "fields")
    (place / "fields" / "d.png").write_bytes(b"not an image")
    (place / "dataset.json").write_bytes((OLD / "v1" / "dataset.json").read_bytes())
    return place


def test_many_images_are_analysed_in_memory(folder, model):
    run = bloodfilm.analyze(folder / "fields", model)
    assert [Path(f.path).name for f in run] == ["a.png", "b.png", "c.png"]
    (failure,) = run.failures
    assert failure.path.endswith("d.png") and failure.issue.code == issue_codes.UNREADABLE_IMAGE
    assert run.model.name == "fake" and bloodfilm.differential(run).white == 6
    ids = [c.id for f in run for c in f.cells]
    assert len(set(ids)) == len(ids) and all(ids)


def test_results_in_a_folder_are_those_in_memory(folder, model, tmp_path):
    kept = bloodfilm.analyze(folder / "fields", model)
    run = bloodfilm.analyze([folder / "fields"], model, out=tmp_path / "out")
    assert [f.to_json() for f in run] == [type(f).from_json(f.to_json()).to_json() for f in kept]
    again = bloodfilm.read_run(str(tmp_path / "out"))
    assert again.failures == run.failures == kept.failures and again.model == kept.model
    names = {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")}
    assert names >= {"result.json", "cells.csv", "report.html", "report_files", "cases.csv"}
    with pytest.raises(bloodfilm.OutputError):
        bloodfilm.analyze(folder / "fields", model, out=tmp_path / "out")
    bloodfilm.analyze(folder / "fields", model, out=tmp_path / "out", overwrite=True, report=False)
    assert not (tmp_path / "out" / "report.html").exists()
    assert not (tmp_path / "out" / "report_files").exists()


def test_a_report_is_written_from_what_was_read(folder, model, tmp_path):
    bloodfilm.analyze(folder / "fields", model, out=tmp_path, report=False)
    path = bloodfilm.write_report(bloodfilm.read_run(tmp_path), tmp_path / "later")
    assert "What the model cannot name" in path.read_text("utf-8")


@pytest.mark.parametrize(
    "options", [{"resume": True, "overwrite": True}, {"resume": True}, {"overwrite": True}]
)
def test_options_that_exclude_each_other_are_refused(folder, model, options):
    with pytest.raises(bloodfilm.ConfigError, match="resume"):
        bloodfilm.analyze(folder / "fields", model, **options)


def test_no_image_and_no_bundle_are_one_line(tmp_path, model):
    with pytest.raises(bloodfilm.BloodfilmError) as error:
        bloodfilm.analyze(tmp_path, model)
    assert str(tmp_path) in str(error.value)
    with pytest.raises(bloodfilm.BundleError, match="no such bundle"):
        bloodfilm.load_model(tmp_path / "gone")


def test_the_same_image_twice_is_an_issue_and_keeps_ids_apart(tmp_path, model):
    size = (480, 320)
    save(tmp_path / "a.png", draw(lay_out(120.0, 80.0, [(60.0, 40.0, "monocyte")]), size))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    run = bloodfilm.analyze(tmp_path, model)
    one, two = run.fields
    assert one.image.sha256 == two.image.sha256
    assert issue_codes.DUPLICATE_IMAGE not in codes(one.issues)
    (issue,) = [i for i in two.issues if i.code == issue_codes.DUPLICATE_IMAGE]
    assert issue.data["path"] == one.path and two.needs_attention
    assert [c.box for c in one.cells] == [c.box for c in two.cells]
    assert not {c.id for c in one.cells} & {c.id for c in two.cells}
    run = bloodfilm.analyze(tmp_path, model, out=tmp_path / "out", report=False)
    assert [f.to_json() for f in run] == [one.to_json(), two.to_json()]


def test_evaluation_of_a_model_and_of_its_results(folder, model, tmp_path):
    dataset = bloodfilm.open_dataset(folder / "dataset.json")
    evaluation = bloodfilm.evaluate(dataset, model, bootstrap=0)
    assert evaluation.detection is not None
    per_class = evaluation.to_json()["detection"]["scores"]["per_class"]
    assert per_class["nucleated cell"]["ap50"] == pytest.approx(1.0)
    bloodfilm.analyze(folder / "fields", model, out=tmp_path, report=False)
    of_file = bloodfilm.evaluate(
        folder / "dataset.json", predictions=tmp_path / "result.json", bootstrap=0
    )
    per_class = of_file.to_json()["detection"]["scores"]["per_class"]
    assert per_class["nucleated cell"]["recall50"] == pytest.approx(1.0)
    with pytest.raises(bloodfilm.ConfigError, match="predictions need no model"):
        bloodfilm.evaluate(dataset, model, predictions=tmp_path / "result.json")
    with pytest.raises(bloodfilm.ConfigError, match="iou"):
        bloodfilm.evaluate(dataset, model, iou=0.33)
    with pytest.raises(bloodfilm.DataError, match="no field in split 'gone'"):
        bloodfilm.evaluate(dataset, model, split="gone")


def test_the_work_can_be_followed_and_stopped(folder, model):
    class Stop(bloodfilm.Progress):
        def __init__(self):
            self.seen = []

        def update(self, stage, done, total):
            self.seen.append((stage, done, total))

        def report(self, issue):
            self.seen.append(issue.code)

        def check_cancelled(self):
            if ("fields", 1, 4) in self.seen:
                raise bloodfilm.CancelledError("enough")

    stop = Stop()
    with pytest.raises(bloodfilm.CancelledError, match="enough"):
        bloodfilm.analyze(folder / "fields", model, progress=stop)
    assert stop.seen[:2] == [("fields", 0, 4), ("fields", 1, 4)]


def test_models_are_compared_on_data_sets(folder, model):
    labelled = bloodfilm.open_dataset(folder / "dataset.json")
    images = {f.path.name for f in labelled}
    found = bloodfilm.cross_evaluate(
        {"discs": labelled}, {"ours": model}, bootstrap=0, by="set", trained_on={"ours": ["discs"]}
    )
    (cell,) = found.to_json()["cells"]
    assert (cell["method"], cell["domain"], cell["fields"]) == ("ours", "discs", len(images))
    assert cell["new_to"] == {"detector": False, "classifier": False}
    with pytest.raises(bloodfilm.ConfigError, match="'theirs': no such model; there are ours"):
        bloodfilm.cross_evaluate([labelled], {"ours": model}, fixed_input={"theirs": 640})
