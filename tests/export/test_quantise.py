"""Eight-bit forms of a bundle's networks: what stays in floating point, and how they are judged."""

import numpy as np
import onnx
import pytest
import torch

from bloodfilm.export.bundle import ReaderGraph, to_onnx
from bloodfilm.export.quantise import WIDE, agreement, quantise_reader, same_answers
from bloodfilm.inference.bundle import open_session
from bloodfilm.inference.decode import Detections
from bloodfilm.models.reader import CellReader

NAMES = ("classes", "attributes", "novelty")


@pytest.fixture(scope="module")
def crops():
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 240, (8, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def graphs(crops):
    torch.manual_seed(0)
    reader = CellReader(5, [2, 3], width=16).eval()
    reader.set_prototypes(np.zeros((5, reader.size), np.float32), np.ones(reader.size, np.float32))
    plain = to_onnx(ReaderGraph(reader), torch.from_numpy(crops[:2]), ("crops", NAMES))
    return plain, quantise_reader(plain, list(crops))


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


def test_an_eight_bit_reader_says_nearly_the_same(graphs, crops):
    from pathlib import Path

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
    same = same_answers(told([0, 1, 2, 3]), told([0, 1, 2, 3]), values)
    assert same == {"int8_answers": 1.0, "int8_novelty": 0.0}
    other = same_answers(told([0, 1, 2, 3]), told([0, 1, 2, 0], 1.1), values)
    assert other["int8_answers"] == pytest.approx(0.75)
    assert other["int8_novelty"] == pytest.approx(0.1)
    # An attribute nobody marked does not count.
    first, second = told([0, 1]), told([0, 1])
    second["attributes"][:, 4:] = second["attributes"][:, 4:][:, ::-1]
    assert same_answers(first, second, values[:1])["int8_answers"] == 1.0
    assert same_answers(first, second, values)["int8_answers"] == pytest.approx(2 / 3)


def test_detections_agree_where_boxes_of_one_kind_meet():
    def found(x, kinds):
        n = len(x)
        boxes = np.stack([np.array(x), np.zeros(n), np.full(n, 10), np.full(n, 10)], axis=1)
        return Detections(boxes.astype(float), np.linspace(0.9, 0.5, n), np.array(kinds))

    assert agreement([found([0, 50], [0, 1])], [found([0, 50], [0, 1])]) == {
        "int8_agreement": 1.0, "int8_iou": 1.0
    }  # fmt: skip
    shifted = agreement([found([0, 50], [0, 1])], [found([1, 50], [0, 0])])
    assert shifted["int8_agreement"] == 0.5
    assert shifted["int8_iou"] == pytest.approx(9 / 11)
