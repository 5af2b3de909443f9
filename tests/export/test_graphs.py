"""ONNX graphs: what they compute is what torch computes, or no bundle is written."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from bloodfilm.core import LLD_SCHEMA
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.export import onnx_graphs, publish
from bloodfilm.export.manifest_writer import BundleInfo
from bloodfilm.export.onnx_graphs import (
    ClassifierGraph,
    DetectorGraph,
    classifier_onnx,
    detector_onnx,
    fuse_padding,
)
from bloodfilm.export.parity import crop_parity, detector_parity
from bloodfilm.export.publish import write_bundle
from bloodfilm.export.trained import TrainedClassifier, TrainedDetector
from bloodfilm.inference.bundle import load_bundle, open_session
from bloodfilm.inference.manifest import VERSION
from bloodfilm.models import CellClassifierNet, CellDetector
from bloodfilm.training.calibration import ClassifierCalibration
from bloodfilm.training.records import ClassifierRecord, DetectorRecord
from tiny import OBJECT_TYPES, VOCABULARY

torch.set_num_threads(1)
LEAVES = VOCABULARY.leaves
PADDED = "mobilenetv2_035"  # one whose "SAME" convolutions pad unevenly
LIMITS = dict.fromkeys(OBJECT_TYPES, 0.1)


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


IMAGES = [pixels(64, 96), pixels(32, 64, seed=1)]
CROPS = pixels(3, 64, 64)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    model = CellDetector(PADDED, 3, 8).eval()
    with torch.no_grad():
        model.kind_head.bias.fill_(-1.5)
    return DetectorGraph(model).eval()


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    sizes = [len(a.values) for a in LLD_SCHEMA.attributes]
    return ClassifierGraph(CellClassifierNet(len(LEAVES), sizes, PADDED, width=8).eval()).eval()


def exported(detector, classifier):
    return (
        detector_onnx(detector, torch.from_numpy(IMAGES[0][None])),
        classifier_onnx(classifier, torch.from_numpy(CROPS[:2])),
    )


READ = ("classes", "attributes", "novelty")


@pytest.fixture(scope="module")
def graphs(detector, classifier):
    return exported(detector, classifier)


def operators(data):
    return [node.op_type for node in onnx.load_from_string(data).graph.node]


def answers(data, feed, *names):
    return open_session(data, Path("graph.onnx"), "cpu", 1).run(list(names) or None, feed)


@pytest.mark.slow
def test_graphs_compute_what_torch_does(detector, classifier, graphs):
    found = detector_parity(detector, graphs[0], IMAGES, LIMITS)
    assert found["score"] < 1e-4 and found["box_px"] < 1e-2
    assert max(crop_parity(classifier, graphs[1], CROPS, "classifier.onnx").values()) < 1e-3


@pytest.mark.slow
def test_no_padding_is_left_and_the_answers_stay(detector, classifier, graphs, monkeypatch):
    monkeypatch.setattr(onnx_graphs, "fuse_padding", lambda data: data)
    feeds = ({"image": IMAGES[1][None]}, {"crops": CROPS})
    for plain, fused, feed in zip(exported(detector, classifier), graphs, feeds, strict=True):
        assert operators(plain).count("Pad") >= 4 and "Pad" not in operators(fused)
        assert operators(plain).count("Conv") == operators(fused).count("Conv")
        assert len(operators(fused)) < len(operators(plain))
        for a, b in zip(answers(plain, feed), answers(fused, feed), strict=True):
            assert np.abs(a - b).max() < 1e-4 * max(1, np.abs(a).max())


def padded(
    mode="constant", amounts=(0, 0, 0, 1, 0, 0, 1, 2), fill=0.0, users=1, shown=False, **conv
):
    """A graph of one padding and one convolution or more."""
    rng = np.random.default_rng(0)
    channels = 2 + amounts[1] + amounts[5]
    weight = rng.normal(size=(3, channels, 3, 3)).astype(np.float32)
    constants = [
        numpy_helper.from_array(np.array(amounts, np.int64), "amounts"),
        numpy_helper.from_array(np.array(fill, np.float32), "fill"),
        numpy_helper.from_array(weight, "weight"),
    ]
    nodes = [helper.make_node("Pad", ["x", "amounts", "fill"], ["wide"], mode=mode)]
    names = [f"y{i}" for i in range(users)]
    nodes += [helper.make_node("Conv", ["wide", "weight"], [n], **conv) for n in names]
    names += ["wide"] * shown
    graph = helper.make_graph(
        nodes,
        "padded",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, "h", "w"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, None, None, None]) for n in names],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fused", "case"),
    [
        (True, {}),
        (True, {"strides": [2, 2], "pads": [1, 0, 2, 0]}),
        (True, {"auto_pad": "NOTSET"}),
        (False, {"mode": "reflect"}),
        (False, {"fill": 1.0}),
        (False, {"users": 2}),
        (False, {"shown": True}),
        (False, {"amounts": (0, 1, 0, 0, 0, 0, 1, 1)}),
        (False, {"amounts": (0, 0, -1, 0, 0, 0, 1, 1)}),
        (False, {"auto_pad": "SAME_UPPER"}),
    ],
)
def test_only_zeros_around_maps_of_one_convolution_are_folded(fused, case):
    before = padded(**case)
    after = fuse_padding(before)
    assert ("Pad" not in operators(after)) == fused
    x = np.random.default_rng(1).normal(size=(1, 2, 7, 8)).astype(np.float32)
    for a, b in zip(answers(before, {"x": x}), answers(after, {"x": x}), strict=True):
        assert a.shape == b.shape and np.allclose(a, b, atol=1e-5)
    left = {t.name for t in onnx.load_from_string(after).graph.initializer}
    assert left == ({"weight"} if fused else {"weight", "amounts", "fill"})


def disturbed(data, output, change):
    """The graph with one output changed by an operator."""
    proto = onnx.load_from_string(data)
    for node in proto.graph.node:
        for i, name in enumerate(node.output):
            if name == output:
                node.output[i] = "honest"
    operator, number = change
    proto.graph.initializer.append(
        numpy_helper.from_array(np.array(number, np.float32), "disturbance")
    )
    proto.graph.node.append(helper.make_node(operator, ["honest", "disturbance"], [output]))
    return proto.SerializeToString()


@pytest.mark.parametrize(
    ("output", "change", "what"),
    [
        ("scores", ("Add", 0.01), "scores|cells"),
        ("scores", ("Add", np.nan), "scores|cells"),
        ("boxes", ("Mul", 1.02), "boxes|cells"),
        ("scores", ("Mul", 0.0), "scores|cells"),
        ("classes", ("Add", 0.1), "class"),
        ("attributes", ("Mul", np.nan), "attribute"),
        ("novelty", ("Add", 0.5), "novelty"),
    ],
)
def test_a_graph_that_differs_is_refused_and_nothing_is_written(
    detector, classifier, graphs, tmp_path, monkeypatch, output, change, what
):
    wrong = [disturbed(g, output, change) if (output in READ) == i else g
             for i, g in enumerate(graphs)]  # fmt: skip
    use(monkeypatch, wrong)
    with pytest.raises(BundleError, match=rf"({what}).*not written"):
        write(tmp_path / "out", detector, classifier)
    assert not (tmp_path / "out").exists()


def use(monkeypatch, graphs):
    """Let these be what the networks are exported to."""
    monkeypatch.setattr(publish, "detector_onnx", lambda *_: graphs[0])
    monkeypatch.setattr(publish, "classifier_onnx", lambda *_: graphs[1])


RUN = {
    "version": "0",
    "config": {},
    "sources": {},
    "um_per_px": 0.25,
    "vocabulary": VOCABULARY.to_json(),
}
DETECTOR = DetectorRecord(**RUN)
CLASSIFIER = ClassifierRecord(**RUN, size=64, untrained={})


def write(out, detector, classifier):
    calibration = ClassifierCalibration({"class": 1.5}, 0.7, 0.6, None, {"class_ece": 0.1})
    return write_bundle(
        out,
        TrainedDetector(detector, DETECTOR, {"ap": 0.5}, LIMITS, IMAGES),
        TrainedClassifier(classifier, CLASSIFIER, {"score": 1.0}, calibration, {}, CROPS),
        BundleInfo("tiny", "CC0-1.0"),
    )


@pytest.mark.slow
def test_a_bundle_is_written_and_replaced_but_nothing_else_is(
    detector, classifier, graphs, tmp_path, monkeypatch
):
    use(monkeypatch, graphs)
    out = tmp_path / "deep" / "bundle"
    for _ in range(2):
        parity = write(out, detector, classifier)
        bundle = load_bundle(out)
        assert bundle.manifest.name == "tiny" and bundle.manifest.detector.stride == 4
        assert set(bundle.manifest.metrics["parity"]) == set(parity)
        assert bundle.manifest.metrics["validation"]["detector"] == {"ap": 0.5}
        bundle.detector("cpu"), bundle.classifier("cpu")
        assert bundle.manifest.version == VERSION and (out / "SHA256SUMS").is_file()
        assert not list(out.glob("*.part"))

    (tmp_path / "file").write_text("precious")
    site = tmp_path / "site"
    site.mkdir()
    (site / "manifest.json").write_text(json.dumps({"name": "a web app"}))
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("precious")
    for place in (tmp_path / "file", site, other):
        before = sorted((f, f.read_bytes()) for f in tmp_path.rglob("*") if f.is_file())
        with pytest.raises(ConfigError, match="is no bundle"):
            write(place, detector, classifier)
        assert before == sorted((f, f.read_bytes()) for f in tmp_path.rglob("*") if f.is_file())
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", detector, classifier)


@pytest.mark.slow
def test_a_network_of_a_bundle_is_taken_over_unchanged(
    detector, classifier, graphs, tmp_path, monkeypatch
):
    use(monkeypatch, graphs)
    write(tmp_path / "first", detector, classifier)
    taken = publish.open_classifier(tmp_path / "first", tmp_path, publish.ANY_USE)
    again = TrainedDetector(detector, DETECTOR, {"ap": 0.75}, LIMITS, IMAGES)
    write_bundle(tmp_path / "second", again, taken, BundleInfo("next", "CC0-1.0"))
    before, after = (load_bundle(tmp_path / n).manifest for n in ("first", "second"))
    assert after.classifier == before.classifier and after.name == "next"
    assert after.taxonomy == before.taxonomy and after.untrained == before.untrained
    assert after.metrics["validation"] == before.metrics["validation"] | {"detector": {"ap": 0.75}}
    assert after.metrics["parity"].keys() == before.metrics["parity"].keys()
    with pytest.raises(ConfigError, match="leave out --prior and --calibration"):
        publish.open_classifier(
            tmp_path / "first", tmp_path, publish.IntendedUse({"monocyte": 0.5})
        )


@pytest.mark.slow
def test_a_graph_of_a_replaced_bundle_does_not_stay(
    detector, classifier, graphs, tmp_path, monkeypatch
):
    use(monkeypatch, graphs)
    out = tmp_path / "bundle"
    write(out, detector, classifier)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "detector.onnx").rename(out / "finder.onnx")
    manifest["detector"]["file"] = "finder.onnx"
    (out / "manifest.json").write_text(json.dumps(manifest))
    write(out, detector, classifier)
    assert not (out / "finder.onnx").exists()
    load_bundle(out)


@pytest.mark.slow
def test_a_network_that_answers_nan_is_refused(graphs):
    class Blank(nn.Module):
        outputs = DetectorGraph.outputs

        def forward(self, image):
            grid = (1, 1, image.shape[1] // 4, image.shape[2] // 4)
            return torch.full(grid, torch.nan).expand(-1, 3, -1, -1), torch.ones(grid).expand(
                -1, 4, -1, -1
            )

    data = disturbed(graphs[0], "scores", ("Mul", np.nan))
    with pytest.raises(BundleError, match="scores"):
        detector_parity(Blank(), data, IMAGES[:1], LIMITS)
