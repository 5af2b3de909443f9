"""Descriptions of training cells in a bundle: collected, stored, refused."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.errors import BundleError
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.export.adapted import adapted_manifest, copy_bundle
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import (
    EXEMPLARS_FILE,
    Exemplars,
    collect_exemplars,
    read_exemplars,
    set_exemplars,
)
from bloodfilm.export.manifest_writer import BundleInfo
from bloodfilm.export.publish import write_bundle
from bloodfilm.export.recovered import recover_classifier
from bloodfilm.export.trained import IntendedUse, open_classifier, open_detector
from bloodfilm.inference.bundle import load_bundle
from learnable import write_learnable
from tiny import write_set

LABELS = ("neutrophil", "basophil")


def some(count=6, size=4):
    rng = np.random.default_rng(3)
    return Exemplars(
        rng.normal(size=(count, size)).astype(np.float32),
        np.arange(count) % 2,
        np.arange(count) // 3,
        LABELS,
        ("a: x", "b: y"),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_set(root / "discs", 4, 3)
    write_learnable(root / "bundle")
    return root


def test_they_are_read_as_they_were_written_but_for_rounding(tmp_path):
    kept = some()
    data = kept.to_bytes()
    assert data == kept.to_bytes()
    again = Exemplars.from_bytes(data, tmp_path)
    step = np.abs(kept.description).max(0) / 127
    assert (np.abs(again.description - kept.description) <= step / 2 + 1e-6).all()
    assert (again.label == kept.label).all() and (again.domain == kept.domain).all()
    assert (again.labels, again.domains) == (kept.labels, kept.domains)
    assert again.counts() == {"neutrophil": 3, "basophil": 3}


def test_a_label_at_an_inner_node_stands_for_its_leaves():
    leaves = ("band neutrophil", "segmented neutrophil", "basophil")
    allowed = some().allowed(DEFAULT_TAXONOMY, leaves)
    assert allowed[:2].tolist() == [[True, True, False], [False, False, True]]


def test_the_cells_of_both_are_numbered_anew():
    other = Exemplars(
        np.ones((2, 4), np.float32),
        np.array([0, 1]),
        np.zeros(2, int),
        ("hairy cell", "basophil"),
        ("c",),
    )
    both = some().join(other)
    assert both.labels == (*LABELS, "hairy cell") and both.domains == ("a: x", "b: y", "c")
    assert both.label[-2:].tolist() == [2, 1] and both.domain[-2:].tolist() == [2, 2]
    assert both.take(both.label == 2).counts() == {"hairy cell": 1}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK\x03\x04 and no more",
        some().to_bytes()[:-40],
        Exemplars(
            np.ones((2, 3), np.float32), np.array([0, 7]), np.zeros(2, int), LABELS, ("a",)
        ).to_bytes(),
    ],
)
def test_damaged_ones_are_one_line(data, tmp_path):
    with pytest.raises(BundleError, match=r"holds no exemplars .* damaged"):
        Exemplars.from_bytes(data, tmp_path / EXEMPLARS_FILE)


def test_they_are_described_from_all_training_sets_by_the_stored_graph(root):
    bundle = load_bundle(root / "bundle")
    found = collect_exemplars(bundle, root, per_label=3)
    assert found.counts() == {"lymphocyte": 3, "monocyte": 3, "basophil": 3}
    assert found.domains == ("discs: unknown",)
    assert (
        found.description.shape[1]
        == Describer(bundle).describe(np.zeros((1, 128, 128, 3), np.uint8)).description.shape[1]
    )
    again = collect_exemplars(bundle, root, per_label=3)
    assert (again.description == found.description).all()


def test_a_copy_of_the_bundle_gets_them_and_its_networks_stay(root, tmp_path):
    out = tmp_path / "described"
    command = ["exemplars", str(root / "bundle"), "--data", str(root), "--out", str(out)]
    result = CliRunner().invoke(app, [*command, "--per-class", "2"])
    assert result.exit_code == 0, result.output
    assert "6 cells described" in result.stdout and "2 monocyte" in result.stdout
    parent, child = load_bundle(root / "bundle"), load_bundle(out)
    for name in ("detector.onnx", "reader.onnx"):
        assert (parent.path / name).read_bytes() == (child.path / name).read_bytes()
    assert child.manifest.version == 5 and child.manifest.exemplars.file == EXEMPLARS_FILE
    assert child.manifest.exemplars.labels == read_exemplars(child).counts()
    assert EXEMPLARS_FILE in (out / "SHA256SUMS").read_text()
    assert "2 lymphocyte" in (out / "MODEL_CARD.md").read_text()
    copied = tmp_path / "copied"
    copied.mkdir()
    copy_bundle(child, copied)
    assert (copied / EXEMPLARS_FILE).read_bytes() == (out / EXEMPLARS_FILE).read_bytes()
    # What is in the way is left alone.
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2 and "already" in again.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_bundle_without_them_says_how_to_get_them(root):
    with pytest.raises(BundleError, match=r"bloodfilm exemplars .* --data FOLDER --out NEW"):
        read_exemplars(load_bundle(root / "bundle"))


def test_a_changed_file_or_a_class_the_bundle_has_not_is_damage(root, tmp_path):
    folder = write_learnable(tmp_path / "bundle")
    set_exemplars(folder, some())
    assert len(read_exemplars(load_bundle(folder))) == 6
    place = folder / EXEMPLARS_FILE
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + b"\1")
    with pytest.raises(BundleError, match="damaged"):
        load_bundle(folder)
    place.unlink()
    with pytest.raises(BundleError, match="missing"):
        load_bundle(folder)
    place.write_bytes(whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["exemplars"]["labels"] = {"nobody": 3}
    (folder / "SHA256SUMS").unlink()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="'nobody' is not in the taxonomy"):
        load_bundle(folder)


def test_a_classifier_that_is_taken_over_keeps_them_and_another_drops_them(root, tmp_path):
    parent = write_learnable(tmp_path / "parent")
    set_exemplars(parent, some())
    plain, out = root / "bundle", tmp_path / "out"

    def export(classifier):
        part = open_classifier(classifier, root, IntendedUse())
        write_bundle(out, open_detector(plain, root), part, BundleInfo("joined", "CC0-1.0"))
        return load_bundle(out)

    joined = export(parent)
    assert read_exemplars(joined).counts() == some().counts()
    assert export(plain).manifest.exemplars is None
    assert not (out / EXEMPLARS_FILE).exists()


def test_an_adapted_bundle_has_none_and_one_that_learnt_cannot_be_trained_on(root, tmp_path):
    folder = write_learnable(tmp_path / "bundle")
    set_exemplars(folder, some())
    manifest = load_bundle(folder).manifest
    assert adapted_manifest(manifest, None, {"method": "statistics"}, {}).exemplars is None
    data = manifest.to_json()
    data["training"] = {**data["training"], "learnt": [{}]}
    type(manifest).model_validate(data).write(folder)
    with pytest.raises(BundleError, match="has learnt classes on top of its network"):
        recover_classifier(load_bundle(folder), np.zeros((1, 128, 128, 3), np.uint8))
