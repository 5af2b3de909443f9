"""`bloodfilm export`: two training runs to a bundle that finds and names cells."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.errors import BundleError
from bloodfilm.export import trained as module
from bloodfilm.export.trained import IntendedUse
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.model import Model
from bloodfilm.training import loop
from bloodfilm.training.checkpoint import load_checkpoint, save_checkpoint
from tiny import LEAVES, config, to_toml, write_set

pytestmark = pytest.mark.slow  # two networks are trained first


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_set(folder / "discs", 3, 3)
    return folder


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """A detector that has seen enough to find something, and a hardly trained classifier."""
    out = tmp_path_factory.mktemp("runs")
    some = {"epochs": 3, "samples": 96, "batch": 8, "lr": 5e-3, "ema": 0.5, "validate_every": 3}
    for task, optim in (("detector", some), ("classifier", {"epochs": 1})):
        data = config(task, optim=optim)
        (out / f"{task}.toml").write_text(to_toml(data))
        result = run(
            "train", out / f"{task}.toml", "--data", root, "--out", out / task, "--device", "cpu"
        )
        assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def bundle(root, runs):
    (runs / "evaluation.json").write_text(json.dumps({"fields": 3}))
    (runs / "notes.md").write_text("## Limits\n\nKnows nothing but discs.\n")
    result = run(
        "export", runs / "detector", runs / "classifier", "--data", root, "--out", runs / "bundle",
        "--name", "discs", "--licence", "CC0-1.0", "--metrics", runs / "evaluation.json",
        "--notes", runs / "notes.md",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "agree" in result.output and "MB" in result.output
    return runs / "bundle"


def test_the_bundle_says_what_it_is(bundle):
    manifest = load_bundle(bundle).manifest
    assert (manifest.name, manifest.licence) == ("discs", "CC0-1.0")
    assert not set(LEAVES) & set(manifest.untrained.classes)
    assert "monoblast" in manifest.untrained.classes
    assert "cell_size" not in manifest.untrained.attributes
    assert "nuclear_shape" in manifest.untrained.attributes
    assert manifest.training["detector"]["config"]["seed"] == 3
    assert manifest.training["classifier"]["sources"]["train"][0]["name"] == "discs"
    assert manifest.metrics["evaluation"] == {"fields": 3}
    assert manifest.classifier.novelty_threshold is not None
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "discs" in card and card.endswith("## Limits\n\nKnows nothing but discs.\n")
    # Valid JSON, which knows no NaN.
    json.loads((bundle / "manifest.json").read_text(), parse_constant=pytest.fail)


def test_its_checksums_are_of_the_last_manifest_written(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"CC0-1.0"', '"MIT"'))
    with pytest.raises(BundleError, match=r"manifest\.json: its checksum"):
        load_bundle(copy)


def test_an_analyzer_runs_with_it(bundle, root):
    loaded = load_bundle(bundle)
    image = open_image(root / "discs" / "v0.png")
    eager = Model(loaded, device="cpu", min_score=0.05)
    result = eager.analyze(image, prior=ScalePrior(0.25, 1.0))
    nucleated = [c for c in result.cells if c.object_type == "nucleated cell"]
    assert nucleated and all(c.attributes["nuclear_shape"].value is None for c in nucleated)
    assert all(set(c.probabilities) == set(LEAVES) for c in nucleated)
    json.dumps(result.to_json(), allow_nan=False)


def test_only_validation_data_are_chosen_on(runs, root, monkeypatch):
    seen = []

    def spy(place, name, first):
        real = getattr(place, name)

        def load(*arguments, **more):
            seen.extend(s.field.split for s in arguments[first])
            return real(*arguments, **more)

        monkeypatch.setattr(place, name, load)

    spy(module.FieldLoader, "load_all", 1)
    spy(module, "load_crops", 0)
    module.load_detector(runs / "detector", root)
    module.load_classifier(runs / "classifier", root, IntendedUse())
    assert seen == ["val"] * 6


def test_prior_odds_reach_the_graph_and_the_record(runs, root):
    weighted = module.load_classifier(runs / "classifier", root, IntendedUse({"monocyte": 0.1}))
    plain = module.load_classifier(runs / "classifier", root, IntendedUse())
    assert weighted.priors == {"monocyte": 0.1} and plain.priors == {}
    biases = [part.graph.model.class_bias.detach() for part in (weighted, plain)]
    temperature = plain.calibration.temperatures["class"]
    shift = np.log(0.1) * temperature
    assert weighted.calibration.temperatures["class"] == temperature
    where = weighted.record.read_vocabulary().leaves.index("monocyte")
    assert (biases[0] - biases[1])[where].item() == pytest.approx(shift, abs=1e-4)


def test_an_unfinished_classifier_calls_nothing_novel(runs, root, tmp_path, caplog):
    shutil.copytree(runs / "classifier", tmp_path / "classifier")
    kept = load_checkpoint(tmp_path / "classifier" / loop.BEST)
    kept.pop("finished")
    save_checkpoint(tmp_path / "classifier" / loop.BEST, kept)
    calibration = module.load_classifier(tmp_path / "classifier", root, IntendedUse()).calibration
    assert calibration.novelty_threshold is None and "not finished" in caplog.text


def test_what_cannot_be_exported_is_said_in_one_line(runs, root, tmp_path):
    detector, classifier = runs / "detector", runs / "classifier"
    shutil.copytree(classifier, tmp_path / "mixed")
    shutil.copy(detector / loop.BEST, tmp_path / "mixed" / loop.BEST)
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    out = tmp_path / "out"
    for arguments, said in (
        ((classifier, detector, "--out", out), "is wanted here"),
        ((tmp_path / "none", classifier, "--out", out), "No such file"),
        ((detector, tmp_path / "mixed", "--out", out), "other weights"),
        ((detector, classifier, "--out", out, "--metrics", tmp_path / "list.json"), "no record"),
        ((detector, classifier, "--out", tmp_path / "full"), "is no bundle"),
        ((detector, classifier, "--out", out, "--data", tmp_path / "none"), "no such folder"),
        ((detector, classifier, "--out", out, "--prior", "monocyte"), "CLASS=FACTOR"),
        ((detector, classifier, "--out", out, "--prior", "toad=0.1"), "needs one of"),
    ):
        result = run("export", "--data", root, *arguments)
        assert result.exit_code == 2, (said, result.output)
        (line,) = [x for x in result.stderr.splitlines() if x.startswith("error:")]
        assert said in line
    assert not out.exists()
    assert [f.name for f in (tmp_path / "full").iterdir()] == ["thesis.txt"]


def test_a_classifier_of_other_crops_is_refused(root, runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs / "classifier", other)
    record = json.loads((other / "run.json").read_text())
    record["size"] += 32
    (other / "run.json").write_text(json.dumps(record))
    result = run(
        "export", runs / "detector", other, "--data", root, "--out", tmp_path / "bundle",
        "--name", "discs", "--licence", "CC0-1.0",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "train it again" in result.output.replace("\n", " ")
    assert not (tmp_path / "bundle").exists()


def test_eight_bits_are_taken_only_if_they_say_the_same(root, runs, tmp_path, monkeypatch):
    from bloodfilm.export import quantize

    def export():
        return run(
            "export", runs / "detector", runs / "classifier", "--data", root,
            "--out", tmp_path / "small", "--int8",
        )  # fmt: skip

    for name in ("MIN_AGREEMENT", "MIN_IOU", "MIN_ANSWER_AGREEMENT"):  # hardly trained: no margin
        monkeypatch.setattr(quantize, name, 0.0)
    monkeypatch.setattr(quantize, "MAX_NOVELTY_SHIFT", 10.0)
    result = export()
    assert result.exit_code == 0, result.output
    manifest = load_bundle(tmp_path / "small").manifest  # verifies the checksums
    figures = manifest.metrics["parity"]
    assert {"int8_agreement", "int8_iou", "int8_answers", "int8_novelty"} <= set(figures)
    small = (tmp_path / "small" / "detector.onnx").read_bytes()

    monkeypatch.setattr(quantize, "MIN_ANSWER_AGREEMENT", 1.1)
    result = export()
    assert result.exit_code == 2 and "eight-bit classifier agrees" in result.output
    assert "Traceback" not in result.output
    load_bundle(tmp_path / "small")  # whole, and float
    assert len((tmp_path / "small" / "detector.onnx").read_bytes()) > len(small)


def test_the_detector_of_a_bundle_is_taken_over_unchanged(root, runs, bundle, tmp_path):
    out = tmp_path / "taken"
    result = run(
        "export", bundle, runs / "classifier", "--data", root, "--out", out, "--name", "again"
    )
    assert result.exit_code == 0, result.output
    before, after = (load_bundle(b).manifest for b in (bundle, out))
    assert (out / "detector.onnx").read_bytes() == (bundle / "detector.onnx").read_bytes()
    assert after.name == "again"
    assert after.training["detector"] == before.training["detector"]
    assert (after.object_types, after.roles) == (before.object_types, before.roles)
    kept = after.detector.model_dump(exclude={"thresholds"})
    assert kept == before.detector.model_dump(exclude={"thresholds"})


def test_a_bundle_that_does_not_say_how_it_was_trained_lends_no_detector(runs, bundle, tmp_path):
    silent = tmp_path / "silent"
    shutil.copytree(bundle, silent)
    manifest = load_bundle(silent).manifest
    manifest.model_copy(update={"training": {}}).write(silent)
    result = run("export", silent, runs / "classifier", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "manifest.json" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_calibration_on_sites_left_out_replaces_that_of_validation_cells(root, runs, tmp_path):
    record = {
        "calibration": {"temperature": 1.7, "confidence": 0.86, "metrics": {"class_ece": 0.04}}
    }
    (tmp_path / "sites.json").write_text(json.dumps(record))
    out = tmp_path / "bundle"
    result = run(
        "export", runs / "detector", runs / "classifier", "--data", root, "--out", out,
        "--calibration", tmp_path / "sites.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    manifest = load_bundle(out).manifest
    assert manifest.classifier.temperatures["class"] == 1.7
    assert manifest.classifier.class_confidence == 0.86
    assert manifest.metrics["validation"]["calibration"]["left_out_class_ece"] == 0.04


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"calibration": 3},
        {"calibration": {"temperature": 0, "confidence": 0.9, "metrics": {}}},
        {"calibration": {"temperature": 1, "confidence": 1.9, "metrics": {}}},
        {"calibration": {"temperature": "warm", "confidence": 0.9, "metrics": {}}},
    ],
)
def test_a_record_without_a_calibration_is_refused(root, runs, tmp_path, record):
    (tmp_path / "sites.json").write_text(json.dumps(record))
    result = run(
        "export", runs / "detector", runs / "classifier", "--data", root,
        "--out", tmp_path / "bundle", "--calibration", tmp_path / "sites.json",
    )  # fmt: skip
    assert result.exit_code == 2 and "sites.json" in result.stderr
    assert not (tmp_path / "bundle").exists()
