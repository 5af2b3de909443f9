"""`bloodfilm adapt` from drawn fields to a bundle: taken, refused, stopped and resumed."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bloodfilm
from bloodfilm.cli.app import app
from bloodfilm.core import Cell, Dataset, Field
from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import BloodfilmError
from bloodfilm.core.progress import CancelledError, NoProgress
from bloodfilm.export import adaptation
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import collect_exemplars, set_exemplars
from bloodfilm.export.onnx_graphs import ClassifierGraph, classifier_onnx
from bloodfilm.formats import save_dataset
from bloodfilm.training import marked_correction
from bloodfilm.training.config import parse_config
from bloodfilm.training.networks import build_classifier
from bloodfilm.workflows import adapt_candidates
from bloodfilm.workflows.adapt import MIN_CELLS, WORK, AdaptJob, adapt
from fake_bundle import box_of, draw, lay_out, save, write_bundle
from learnable import film_network, write_film_bundle
from tiny import VOCABULARY, config, write_set

pytestmark = pytest.mark.slow
FIELDS = 10
STEPS = 8
MARKED = "marked.json"


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Ten fields of nine nucleated cells each."""
    return draw_fields(tmp_path_factory.mktemp("scope"))


def draw_fields(root):
    """Draw the fields into a folder, and mark them all in the data set `marked` in it."""
    names, marked = ("monocyte", "lymphocyte", "basophil"), []
    for number in range(FIELDS):
        places = [
            (28.0 + 42 * column, 26.0 + 39 * row, names[(row + column + number) % 3])
            for row in range(3)
            for column in range(3)
        ]
        discs = lay_out(150, 130, places, step=13.0, keep_away=13.0)
        image = draw(discs, (600, 520))
        rng = np.random.default_rng(number)
        noise = rng.normal(0, 4, image.shape)
        image = cv2.GaussianBlur(np.clip(image + noise, 0, 255).astype(np.uint8), (0, 0), 0.8)
        save(root / f"{number}.png", image)
        cells = tuple(
            Cell(tuple(float(v) for v in box_of(disc)), name)
            for disc, (*_, name) in zip(discs, places, strict=False)
        )
        marked.append(Field(root / f"{number}.png", 600, 520, cells=cells))
    save_dataset(Dataset("marked", tuple(marked), licence="CC0-1.0"), root / MARKED, "bloodfilm")
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The fake detector, and a real, untrained classifier that describes drawn cells."""
    folder = tmp_path_factory.mktemp("parent")
    settings = config("classifier", appearance={"normalise": False})
    settings["augment"] |= {"stain": 0.3, "light": 0.5}
    torch.manual_seed(0)
    net = build_classifier(parse_config(settings, "test"), VOCABULARY).eval()
    with torch.no_grad():
        net.class_head[-1].weight *= 40.0  # sure of itself
    graph = classifier_onnx(ClassifierGraph(net), torch.zeros(2, 128, 128, 3, dtype=torch.uint8))

    def change(data):
        data["reader"]["sha256"] = hashlib.sha256(graph).hexdigest()
        data["reader"]["class_confidence"] = 0.2
        data["training"] = {"reader": {"config": settings}}

    write_bundle(folder, change)
    (folder / "reader.onnx").write_bytes(graph)
    root = write_set(tmp_path_factory.mktemp("known") / "discs", 8, 6).parent
    set_exemplars(folder, collect_exemplars(bloodfilm.load_bundle(folder), root))
    return folder


def job(bundle, fields, out, **more):
    return AdaptJob(bundle=bundle, target=[fields], out=out, steps=STEPS, threads=1, **more)


def trained(bundle, fields, out, **more):
    return job(bundle, fields, out, method="self-training", **more)


@pytest.fixture
def agreed(monkeypatch):
    """No figure without labels speaks against a change."""
    monkeypatch.setattr(adapt_candidates, "reasons_to_refuse", lambda *_: [])


def graphs(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix == ".onnx"}


def test_without_labels_nothing_is_changed_unless_it_is_asked_for(bundle, fields, tmp_path):
    out = tmp_path / "new"
    arguments = ["--target", fields, "--out", out, "--threads", 1, "--max-fields", 2]
    result = CliRunner().invoke(app, ["adapt", str(bundle), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "not returned: no fields are marked (--labelled)" in result.output
    assert graphs(out) == graphs(bundle)
    report = json.loads((out / "adaptation.json").read_text())
    assert not report["accepted"] and report["method"] == "original"
    assert report["target"]["cells"] == report["original"]["cells"] < MIN_CELLS
    (only,) = report["candidates"]
    assert only["name"] == "correction" and not only["returned"]
    assert only["marked"] is None and only["unlabelled"] is None


@pytest.mark.usefixtures("agreed")
def test_an_adapted_bundle_has_its_parents_detector_and_licence(bundle, fields, tmp_path):
    out = tmp_path / "new"
    said = Said()
    done = adapt(trained(bundle, fields, out), said)
    assert done.accepted and not done.failures
    (unproven,) = said.issues
    assert unproven.code == "adaptation-unproven"
    assert "whether it still names myeloblast, " in unproven.message
    assert not (out / WORK).exists()  # no crop of a patient is left
    parent, child = bloodfilm.load_bundle(bundle), bloodfilm.load_bundle(out)
    assert child.manifest.licence == parent.manifest.licence
    assert child.manifest.detector.sha256 == parent.manifest.detector.sha256
    assert child.manifest.classifier.sha256 != parent.manifest.classifier.sha256
    assert child.manifest.classifier.temperatures == parent.manifest.classifier.temperatures
    record = child.manifest.training["adaptation"]
    assert record["parent"]["sha256"] == parent.sha256
    assert record["target"]["fields"] == FIELDS
    assert record == json.loads((out / "adaptation.json").read_text())
    (only,) = record["candidates"]
    assert only["name"] == record["method"] == "self-training" and only["returned"]
    assert record["target"]["cells"] >= MIN_CELLS > only["unlabelled"]["after"]["cells"] > 0
    assert only["unlabelled"]["before"] == record["original"]
    assert "## Adaptation" in (out / "MODEL_CARD.md").read_text()
    with bloodfilm.load_model(out) as model:
        assert model.analyze(fields / "0.png").cells


def test_a_refused_one_is_the_original_byte_for_byte(bundle, fields, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt_candidates, "reasons_to_refuse", lambda *_: ["it would harm"])
    out = tmp_path / "new"
    arguments = ["--target", fields, "--out", out, "--steps", STEPS, "--threads", 1]
    arguments += ["--method", "self-training"]
    result = CliRunner().invoke(app, ["adapt", str(bundle), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "  not returned: it would harm" in result.output
    assert bloodfilm.load_bundle(out).sha256 == bloodfilm.load_bundle(bundle).sha256
    assert graphs(out) == graphs(bundle)
    report = json.loads((out / "adaptation.json").read_text())
    assert report["reasons"] == ["self-training: it would harm"]


class Said(NoProgress):
    """Keeps what was reported."""

    def __init__(self):
        self.issues = []

    def report(self, issue):
        self.issues.append(issue)


class StopsAt(NoProgress):
    """Asks to stop when a stage has come so far."""

    def __init__(self, stage, done):
        self.at, self.now = (stage, done), None

    def update(self, stage, done, total):
        self.now = (stage, done)

    def check_cancelled(self):
        if self.now == self.at:
            raise CancelledError("stopped on request")


@pytest.mark.usefixtures("agreed")
def test_a_stopped_run_goes_on_to_the_same_bundle(bundle, fields, tmp_path):
    whole = adapt(trained(bundle, fields, tmp_path / "whole"))
    out = tmp_path / "parts"
    with pytest.raises(CancelledError):
        adapt(trained(bundle, fields, out), StopsAt("self-training", 3))
    assert (out / WORK / "last.pt").exists()
    with pytest.raises(BloodfilmError, match="stopped adaptation of other images or settings"):
        adapt(trained(bundle, fields, out, seed=1))
    parts = adapt(trained(bundle, fields, out))
    assert parts.report == whole.report
    assert graphs(out) == graphs(tmp_path / "whole")


@pytest.mark.usefixtures("agreed")
def test_self_training_goes_back_to_a_share_of_the_original(bundle, fields, tmp_path):
    """Classes that the new fields do not show fade otherwise; all of the original is no change."""
    assert 0.5 < adaptation.ORIGINAL_SHARE < 1
    changes = []
    for share in (0.0, adaptation.ORIGINAL_SHARE, 1.0):
        out = tmp_path / str(share)
        settings = partial(adaptation.AdaptationSettings, original_share=share)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adaptation, "AdaptationSettings", settings)
            adapt(trained(bundle, fields, out))
        crops = np.random.default_rng(0).integers(0, 255, (8, 128, 128, 3)).astype(np.uint8)
        one, two = (Describer(bloodfilm.load_bundle(b)).describe(crops) for b in (bundle, out))
        changes.append(float(np.abs(one.outputs["classes"] - two.outputs["classes"]).mean()))
    whole, part, none = changes
    assert whole > part > none and none < 0.05 * whole


@pytest.mark.usefixtures("agreed")
def test_statistics_of_the_new_microscope(bundle, fields, tmp_path):
    done = adapt(job(bundle, fields, tmp_path / "new", method="statistics"))
    assert done.report["method"] == "statistics"
    assert graphs(tmp_path / "new") != graphs(bundle)


def test_a_network_that_names_cells_by_their_film_is_not_changed(fields, tmp_path):
    folder = write_film_bundle(tmp_path / "parent", film_network())
    done = adapt(trained(folder, fields, tmp_path / "new"))
    (only,) = done.report["candidates"]
    assert not done.accepted and "the bundle names cells by their film" in only["reasons"][0]
    assert graphs(tmp_path / "new") == graphs(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"method": "magic"}, "method 'magic': choose from correction, self-training, statistics"),
        ({"labelled_fields": 2}, "labelled fields: name the data set"),
        ({"source": "x"}, "source: only the method `statistics` uses it"),
        (
            {"max_fields": 2, "method": "self-training"},
            f"self-training needs {MIN_CELLS}: give more fields",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(bundle, fields, tmp_path, change, complaint):
    with pytest.raises(BloodfilmError) as error:
        adapt(job(bundle, fields, tmp_path / "new", **change))
    assert complaint in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()


def test_folders_with_something_in_them_are_left_alone(bundle, fields, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(BloodfilmError, match=r"holds notes\.txt already"):
        adapt(job(bundle, fields, tmp_path))
    with pytest.raises(BloodfilmError, match="is the bundle itself"):
        adapt(job(bundle, fields, bundle))
    assert (tmp_path / "notes.txt").read_text() == "mine"


# ---- marked fields -------------------------------------------------------------------------------


def rightly_named(folder, fields):
    """The share of the drawn cells of all fields that a bundle finds likeliest as drawn."""
    dataset = bloodfilm.open_dataset(fields / MARKED)
    right = []
    with bloodfilm.load_model(folder) as model:
        for item in dataset:
            found = [c for c in model.analyze(item.path).cells if c.probabilities]
            for cell in item.cells:
                x, y = cell.box[0] + cell.box[2] / 2, cell.box[1] + cell.box[3] / 2
                middles = centres(np.array([c.box for c in found]))
                said = found[int(np.abs(middles - (x, y)).sum(1).argmin())].probabilities
                right.append(max(said, key=said.get) == cell.label)
    return np.mean(right)


@pytest.fixture(scope="module")
def corrected(bundle, fields, tmp_path_factory):
    out = tmp_path_factory.mktemp("corrected") / "new"
    with pytest.MonkeyPatch.context() as patch:
        # An untrained network describes cells nearly alike: only a strong correction tells them.
        patch.setattr(marked_correction, "PENALTIES", (1e-4,))
        return adapt(job(bundle, fields, out, labelled=fields / MARKED, labelled_fields=5))


def test_marked_fields_put_names_right_and_the_networks_stay(bundle, fields, corrected):
    assert corrected.accepted, corrected.report["labelled"]
    report = corrected.report
    (only,) = report["candidates"]
    assert report["method"] == only["name"] == "correction" and only["returned"]
    assert report["labelled"]["fields"] == 5 and report["labelled"]["cells"] == 45
    assert only["marked"]["cells"] == 45 and only["reasons"] == []
    before, after = only["marked"]["right"]
    assert after >= before + 2
    others = report["target"]["cells"] * (FIELDS - 5) / FIELDS  # cells of fields without a mark
    assert only["unlabelled"]["after"]["cells"] == pytest.approx(others, abs=5)
    before, after = (rightly_named(place, fields) for place in (bundle, corrected.out))
    assert after > before
    parent, child = bloodfilm.load_bundle(bundle), bloodfilm.load_bundle(corrected.out)
    assert child.manifest.detector.sha256 == parent.manifest.detector.sha256
    assert child.manifest.exemplars == parent.manifest.exemplars  # it can still learn classes
    assert child.manifest.classifier.novelty_threshold == (
        parent.manifest.classifier.novelty_threshold
    )
    assert child.manifest.training["adaptation"]["labelled"]["penalty"] is not None
    card = (corrected.out / "MODEL_CARD.md").read_text()
    assert "A person named 45 cells of 5 fields" in card
    assert f"| marked cells named rightly | 45 | {only['marked']['right'][0]} | " in card
    crops = np.random.default_rng(0).integers(0, 255, (3, 128, 128, 3)).astype(np.uint8)
    one, two = (Describer(b).describe(crops) for b in (parent, child))
    np.testing.assert_array_equal(one.description, two.description)
    np.testing.assert_array_equal(one.outputs["attributes"], two.outputs["attributes"])


def test_a_corrected_bundle_is_not_trained_on(corrected, fields, tmp_path):
    with pytest.raises(BloodfilmError, match="adapt the bundle that it was made from"):
        adapt(trained(corrected.out, fields, tmp_path / "new"))
    with pytest.raises(BloodfilmError, match="adapt the bundle that it was made from"):
        adapt(job(corrected.out, fields, tmp_path / "other", labelled=fields / MARKED))


def test_few_fields_are_enough_for_a_correction(bundle, fields, tmp_path, monkeypatch):
    """Self-training needs many unlabelled cells; marked ones correct names without it."""
    monkeypatch.setattr(marked_correction, "PENALTIES", (1e-4,))
    few = {"target": [fields / f"{n}.png" for n in range(4)], "labelled_fields": 5}
    done = adapt(
        replace(trained(bundle, fields, tmp_path / "new", labelled=fields / MARKED), **few)
    )
    correction, method = done.report["candidates"]
    assert done.accepted and correction["returned"] and correction["marked"]["cells"] == 45
    count = done.report["target"]["cells"]
    assert 0 < count < MIN_CELLS
    assert method["reasons"] == [
        f"{count} cells were found in 4 usable fields of 4; it needs {MIN_CELLS}"
    ]


@pytest.mark.usefixtures("agreed")
def test_marked_cells_must_speak_for_a_method_too(bundle, fields, tmp_path, monkeypatch):
    """What names as many of them rightly as before is no reason to change a bundle."""
    monkeypatch.setattr(marked_correction, "PENALTIES", (1e9,))  # moves nothing but frequencies
    monkeypatch.setattr(marked_correction, "MAX_LOSS", -1.0)  # whatever they do is a loss
    adapted = adaptation.adapt_classifier

    def as_before(*arguments):
        done = adapted(*arguments)
        return replace(done, marked=(done.marked[0], done.marked[0]))

    monkeypatch.setattr(adaptation, "adapt_classifier", as_before)
    out = tmp_path / "new"
    arguments = ["--target", fields, "--out", out, "--steps", STEPS, "--threads", 1]
    arguments += ["--labelled", fields / MARKED, "--method", "self-training"]
    result = CliRunner().invoke(app, ["adapt", str(bundle), *map(str, arguments)])
    assert result.exit_code == 0, result.output
    assert "not returned: balanced accuracy on what was known" in result.output
    assert result.output.count("90 marked cells: ") == 2
    method = json.loads((out / "adaptation.json").read_text())["candidates"][1]
    right = method["marked"]["right"][0]
    assert method["reasons"] == [
        f"{right} of 90 marked cells are named rightly, {right} as it is: 2 more are needed"
    ]
    assert graphs(out) == graphs(bundle)


@pytest.mark.usefixtures("agreed")
def test_a_method_that_marked_cells_speak_for_is_returned(bundle, fields, tmp_path, monkeypatch):
    monkeypatch.setattr(marked_correction, "PENALTIES", (1e9,))
    monkeypatch.setattr(marked_correction, "MAX_LOSS", -1.0)
    adapted = adaptation.adapt_classifier

    def all_right(*arguments):
        done = adapted(*arguments)
        leaves = bloodfilm.load_bundle(bundle).manifest.leaves
        named = arguments[3].marked
        assert len(named) == 90
        labels = [c.label for f in bloodfilm.open_dataset(fields / MARKED) for c in f.cells]
        return replace(
            done,
            marked=(done.marked[0], np.eye(len(leaves))[[leaves.index(label) for label in labels]]),
        )

    monkeypatch.setattr(adaptation, "adapt_classifier", all_right)
    said = Said()
    done = adapt(trained(bundle, fields, tmp_path / "new", labelled=fields / MARKED), said)
    assert done.accepted and done.report["method"] == "self-training"
    unjudged = done.report["candidates"][1]["unjudged"]
    known = set(bloodfilm.load_bundle(bundle).manifest.trained_leaves)
    assert set(unjudged) == known - {"monocyte", "lymphocyte", "basophil"}
    assert "adaptation-unproven" in [i.code for i in said.issues]
    assert done.report["candidates"][1]["marked"]["accuracy"][1] == 1.0


def test_names_that_the_bundle_does_not_know_are_one_line(bundle, fields, tmp_path):
    dataset = bloodfilm.open_dataset(fields / MARKED)
    first = dataset.fields[0]
    strange = first.with_cells((replace(first.cells[0], label="hairy cell"), *first.cells[1:]))
    place = tmp_path / "strange.json"
    save_dataset(replace(dataset, fields=(strange,)), place, "bloodfilm")
    with pytest.raises(BloodfilmError, match="no class of the bundle is called 'hairy cell'") as e:
        adapt(job(bundle, fields, tmp_path / "new", labelled=place))
    assert 'bloodfilm learn --new "hairy cell=GROUP"' in str(e.value) and "\n" not in str(e.value)
    few = {"labelled": fields / MARKED, "labelled_fields": 99}
    with pytest.raises(BloodfilmError, match="99 labelled fields are asked for, it has 10"):
        adapt(job(bundle, fields, tmp_path / "other", **few))
