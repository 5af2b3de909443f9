"""Eight-bit forms of a bundle's networks: what stays in floating point, and how they are judged."""

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bloodfilm.core.detections import Detections
from bloodfilm.export.onnx_graphs import (
    ClassifierGraph,
    DetectorGraph,
    classifier_onnx,
    detector_onnx,
)
from bloodfilm.export.quantize import (
    WIDE,
    _detections,
    answer_agreement,
    detection_agreement,
    quantize_classifier,
    quantize_detector,
    with_novelty_moved,
)
from bloodfilm.inference.bundle import default_bundle, open_session
from bloodfilm.inference.manifest import DetectorSpec
from bloodfilm.models import CellClassifierNet, CellDetector
from tiny import OBJECT_TYPES

NAMES = ("classes", "attributes", "novelty")


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 240, (8, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def graphs(crops):
    torch.manual_seed(0)
    reader = CellClassifierNet(5, [2, 3], width=16).eval()
    reader.set_prototypes(np.zeros((5, reader.size), np.float32), np.ones(reader.size, np.float32))
    plain = classifier_onnx(ClassifierGraph(reader), torch.from_numpy(crops[:2]))
    return plain, quantize_classifier(plain, list(crops))


@pytest.mark.slow
def test_only_wide_pointwise_convolutions_are_in_eight_bits(graphs):
    graph = onnx.load_from_string(graphs[1]).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    # The weights of an eight-bit convolution reach it through a node that scales them back.
    scaled = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"}
    eight, floating = [], []
    for node in graph.node:
        if node.op_type == "Conv":
            small = node.input[1] in scaled
            shape = shapes[scaled.get(node.input[1], node.input[1])]
            (eight if small else floating).append(shape)
    assert len(eight) > 10 and len(floating) > 10
    assert all(shape[2:] == (1, 1) and max(shape[:2]) >= WIDE for shape in eight)
    assert not any(shape[2:] == (1, 1) and max(shape[:2]) >= WIDE for shape in floating)
    assert len(graphs[1]) < 0.6 * len(graphs[0])


@pytest.mark.slow
def test_an_eight_bit_reader_says_nearly_the_same(graphs, crops):
    sessions = [open_session(data, Path("reader.onnx"), "cpu", 1) for data in graphs]
    plain, small = (s.run(list(NAMES), {"crops": crops}) for s in sessions)
    for a, b in zip(plain, small, strict=True):
        assert a.shape == b.shape and np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.9
        assert not np.array_equal(a, b)


def told(classes, novelty=1.0):
    logits = np.eye(4, dtype=np.float32)[classes]
    return {
        "classes": logits,
        "attributes": np.tile(logits, 2),
        "novelty": np.full(len(classes), novelty, np.float32),
    }


def test_answers_are_compared_one_by_one():
    values = [slice(0, 4), slice(4, 8)]
    same = answer_agreement(told([0, 1, 2, 3]), told([0, 1, 2, 3]), values)
    assert same == {"int8_answers": 1.0, "int8_novelty": 0.0}
    other = answer_agreement(told([0, 1, 2, 3]), told([0, 1, 2, 0], 1.1), values)
    assert other["int8_answers"] == pytest.approx(0.75)
    assert other["int8_novelty"] == pytest.approx(0.1)
    # An attribute nobody marked does not count.
    first, second = told([0, 1]), told([0, 1])
    second["attributes"][:, 4:] = second["attributes"][:, 4:][:, ::-1]
    assert answer_agreement(first, second, values[:1])["int8_answers"] == 1.0
    assert answer_agreement(first, second, values)["int8_answers"] == pytest.approx(2 / 3)


def test_the_threshold_of_novelty_moves_with_novelty():
    manifest = default_bundle().manifest
    moved = with_novelty_moved(manifest, 0.1)
    before = manifest.classifier.novelty_threshold
    assert moved.classifier.novelty_threshold == pytest.approx(1.1 * before)
    spec = manifest.classifier.model_copy(update={"novelty_threshold": None})
    without = manifest.model_copy(update={"classifier": spec})
    assert with_novelty_moved(without, 0.1) is without


def boxes(*rows):
    """Rows of (x, kind): boxes of 10 x 10."""
    return Detections(
        np.array([(x, 0.0, 10.0, 10.0) for x, _ in rows]).reshape(-1, 4),
        np.full(len(rows), 0.5),
        np.array([k for _, k in rows], np.intp),
    )


def test_agreement_counts_cells_found_by_both_and_how_well_they_lie():
    same = boxes((0, 0), (30, 1))
    assert detection_agreement([same], [same]) == {"int8_agreement": 1.0, "int8_iou": 1.0}
    one_off = detection_agreement([same], [boxes((1, 0), (30, 1))])
    assert one_off["int8_agreement"] == 1.0
    assert one_off["int8_iou"] == pytest.approx((9 / 11 + 1) / 2)
    both = detection_agreement([boxes((0, 0), (50, 1))], [boxes((1, 0), (50, 0))])
    assert both["int8_agreement"] == 0.5 and both["int8_iou"] == pytest.approx(9 / 11)
    renamed = detection_agreement([same], [boxes((0, 0), (30, 2))])
    assert renamed["int8_agreement"] == pytest.approx(0.5)
    assert detection_agreement([same], [boxes()])["int8_agreement"] == 0.0
    assert detection_agreement([boxes()], [boxes()]) == {"int8_agreement": 1.0, "int8_iou": 1.0}


@pytest.mark.slow
def test_an_eight_bit_detector_is_smaller_and_finds_nearly_the_same():
    torch.manual_seed(0)
    model = CellDetector("mobilenetv2_035", 3, 16).eval()
    with torch.no_grad():
        model.kind_head.bias.fill_(-1.0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    example = torch.from_numpy(images[0][None])
    plain = detector_onnx(DetectorGraph(model), example)
    level = logging.getLogger().level
    small = quantize_detector(plain, images)
    assert logging.getLogger().level == level
    assert len(small) < 0.8 * len(plain)
    spec = DetectorSpec.model_construct(
        file="detector.onnx",
        thresholds=dict.fromkeys(OBJECT_TYPES, 0.2),
        stride=CellDetector.stride,
        nms_iou=0.6,
    )
    found = [_detections(m, images, spec) for m in (plain, small)]
    assert sum(map(len, found[0])) > 10 and detection_agreement(*found)["int8_iou"] > 0.7
