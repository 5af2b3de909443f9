"""Further classes in a classifier's graph: what they get, and that nothing else changes."""

import hashlib
import shutil

import numpy as np
import pytest

from bloodfilm.core.errors import BundleError
from bloodfilm.core.taxonomy import Node, Taxonomy
from bloodfilm.export.class_graph import ClassRows, Describer, with_rows
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.classifier import leaf_probabilities
from fake_bundle import write_bundle
from learnable import write_learnable

NEW = "hairy cell"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(write_learnable(tmp_path_factory.mktemp("learnable")))


@pytest.fixture(scope="module")
def crops():
    return np.random.default_rng(0).integers(0, 256, (5, 128, 128, 3)).astype(np.uint8)


def extended(bundle, leaves, rows, means, tmp_path):
    """The bundle with the classes of a graph with further rows."""
    folder = tmp_path / "extended"
    shutil.copytree(bundle.path, folder)
    graph = with_rows(bundle, leaves, rows, means)
    (folder / "reader.onnx").write_bytes(graph)
    data = bundle.manifest.to_json()
    nodes = (*bundle.taxonomy.nodes, Node(NEW, "lymphocyte lineage"))
    data["taxonomy"] = Taxonomy(nodes).to_json()
    data["leaves"] = list(leaves)
    absent = [leaf for leaf in data["untrained"]["classes"] if leaf not in rows.new]
    data["untrained"]["classes"] = absent
    data["classifier"]["sha256"] = hashlib.sha256(graph).hexdigest()
    type(bundle.manifest).model_validate(data).write(folder)
    return load_bundle(folder)


def of_classes(bundle, crops):
    return Describer(bundle).describe(crops)


def test_the_description_and_the_logits_are_those_of_the_graph(bundle, crops):
    describer = Describer(bundle)
    said = describer.describe(crops)
    session = bundle.classifier("cpu")
    for name, values in zip(
        said.outputs, session.run(list(said.outputs), {"crops": crops}), strict=True
    ):
        assert (said.outputs[name] == values).all()
    assert np.allclose(describer.classify(said.description), said.outputs["classes"], atol=1e-5)
    with pytest.raises(ValueError, match="no crops"):
        describer.describe(crops[:0])


def test_a_new_class_takes_its_share_and_the_others_keep_their_proportions(bundle, crops, tmp_path):
    before = of_classes(bundle, crops)
    size = before.description.shape[1]
    weights, bias = np.random.default_rng(1).normal(0, 0.01, size), 0.3
    leaves = (*bundle.manifest.leaves, NEW)
    rows = ClassRows({NEW: (weights, bias)}, {})
    after = of_classes(
        extended(bundle, leaves, rows, {NEW: before.description[0].astype(float)}, tmp_path), crops
    )
    known = after.outputs["classes"][:, :-1]
    assert (known == before.outputs["classes"]).all()  # to the last bit
    assert (after.outputs["attributes"] == before.outputs["attributes"]).all()
    learnt = [leaf in bundle.manifest.trained_leaves for leaf in bundle.manifest.leaves]
    p = leaf_probabilities(after.outputs["classes"], [*learnt, True])
    odds = before.description @ weights + bias
    assert np.allclose(p[:, -1], 1 / (1 + np.exp(-odds)), atol=1e-4)
    old = leaf_probabilities(before.outputs["classes"], learnt)
    assert np.allclose(p[:, :-1], old * (1 - p[:, -1:]), atol=1e-5)
    # A cell at the mean of the new class is not unfamiliar; no cell is more so than before.
    assert after.outputs["novelty"][0] == pytest.approx(0, abs=1e-4)
    assert (after.outputs["novelty"] <= before.outputs["novelty"] + 1e-6).all()


def test_an_untrained_class_gets_its_place_and_a_known_one_is_shifted(bundle, crops, tmp_path):
    before = of_classes(bundle, crops)
    size = before.description.shape[1]
    zero = np.zeros(size)
    leaves = (*bundle.manifest.leaves, NEW)
    rows = ClassRows({"monoblast": (zero, 0.0), NEW: (zero, -50.0)}, {"lymphocyte": (zero, 1.5)})
    mean = before.description.mean(0).astype(float)
    after = of_classes(
        extended(bundle, leaves, rows, {"monoblast": mean, NEW: mean}, tmp_path), crops
    )
    change = after.outputs["classes"][:, :-1] - before.outputs["classes"]
    old = bundle.manifest.leaves
    assert np.allclose(change[:, old.index("lymphocyte")], 1.5, atol=1e-5)
    same = [i for i, leaf in enumerate(old) if leaf not in ("lymphocyte", "monoblast")]
    assert (change[:, same] == 0).all()
    learnt = [leaf in bundle.manifest.trained_leaves for leaf in old]
    total = np.log(np.exp(before.outputs["classes"][:, learnt].astype(float)).sum(1))
    assert np.allclose(after.outputs["classes"][:, old.index("monoblast")], total, atol=1e-4)


def test_classes_can_be_added_again(bundle, crops, tmp_path):
    before = of_classes(bundle, crops)
    size, leaves = before.description.shape[1], (*bundle.manifest.leaves, NEW)
    mean = before.description.mean(0).astype(float)
    once = extended(
        bundle, leaves, ClassRows({NEW: (np.zeros(size), 0.0)}, {}), {NEW: mean}, tmp_path
    )
    again = with_rows(
        once, leaves, ClassRows({"monoblast": (np.zeros(size), 0.0)}, {}), {"monoblast": mean}
    )
    (tmp_path / "twice.onnx").write_bytes(again)
    import onnxruntime

    session = onnxruntime.InferenceSession(again)
    (logits,) = session.run(["classes"], {"crops": crops})
    first = of_classes(once, crops).outputs["classes"]
    place = leaves.index("monoblast")
    assert (np.delete(logits, place, 1) == np.delete(first, place, 1)).all()


def test_a_graph_of_another_make_is_refused(tmp_path):
    with pytest.raises(BundleError, match="was not exported by this program"):
        Describer(load_bundle(write_bundle(tmp_path)))
