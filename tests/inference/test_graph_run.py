"""Graphs that return what is no number or no probability: the field fails, by name and reason."""

import csv
import hashlib
import json

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from bloodfilm.cli.app import app
from bloodfilm.core.errors import BundleError
from bloodfilm.inference.graph_run import check_probabilities, run_graph
from fake_bundle import detector, draw, lay_out, reader, save, spoiled, write_bundle

NAN, INF = float("nan"), float("inf")
OF_THE_DETECTOR = [
    ("scores", NAN),
    ("scores", INF),
    ("scores", 7.0),
    ("boxes", NAN),
    ("boxes", INF),
]
OF_THE_READER = [
    ("classes", NAN),
    ("classes", INF),
    ("attributes", NAN),
    ("attributes", -INF),
    ("novelty", NAN),
    ("nucleated", NAN),
    ("nucleated", INF),
]


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """One field with a nucleated cell, one without: the classifier sees only the first."""
    folder = tmp_path_factory.mktemp("fields")
    for name, nucleated in (("cell", [(40.0, 40.0, "lymphocyte")]), ("none", [])):
        save(folder / f"{name}.png", draw(lay_out(120.0, 80.0, nucleated), (480, 320)))
    return folder


def bundle_with(folder, part, data):
    digest = hashlib.sha256(data).hexdigest()
    write_bundle(folder, lambda m: m[part].update(sha256=digest), confirms=True)
    (folder / f"{part}.onnx").write_bytes(data)
    return folder


def analyze(fields, bundle, out):
    """Exit code, reasons of failures by file name, names of the images with cells in the table."""
    arguments = ["analyze", fields, "--bundle", bundle, "--out", out, "--threads", 1]
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    record = json.loads((out / "result.json").read_text(), parse_constant=pytest.fail)
    failures = {f["image"].rpartition("/")[2]: f["reason"] for f in record["failures"]}
    with (out / "cells.csv").open(newline="") as file:
        listed = {row["image"].rpartition("/")[2] for row in csv.DictReader(file)}
    return result.exit_code, failures, listed


@pytest.mark.parametrize(("output", "value"), OF_THE_DETECTOR)
def test_a_detector_without_sense_fails_every_field(fields, tmp_path, output, value):
    bundle = bundle_with(tmp_path / "b", "detector", spoiled(detector(), output, value))
    code, failures, listed = analyze(fields, bundle, tmp_path / "out")
    assert code == 2
    assert set(failures) == {"cell.png", "none.png"} and not listed
    says = "7 in 'scores', which is no probability" if value == 7.0 else "NaN or infinity"
    for reason in failures.values():
        assert says in reason and f"'{output}'" in reason and "detector.onnx" in reason


@pytest.mark.parametrize(("output", "value"), OF_THE_READER)
def test_a_classifier_without_sense_fails_the_fields_it_sees(fields, tmp_path, output, value):
    data = spoiled(reader(confirms=True), output, value)
    bundle = bundle_with(tmp_path / "b", "reader", data)
    code, failures, listed = analyze(fields, bundle, tmp_path / "out")
    assert code == 1
    assert set(failures) == {"cell.png"} and not listed
    assert f"NaN or infinity in '{output}'" in failures["cell.png"]
    assert "reader.onnx" in failures["cell.png"]


def test_the_same_bundle_unspoiled_finds_the_cell(fields, tmp_path):
    bundle = bundle_with(tmp_path / "b", "reader", reader(confirms=True))
    assert analyze(fields, bundle, tmp_path / "out") == (0, {}, {"cell.png"})


def test_an_output_of_another_shape_fails_the_field(fields, tmp_path):
    # One answer too few; that its size is not declared lets the graph open.
    model = onnx.load_from_string(reader(confirms=True))
    (node,) = (n for n in model.graph.node if "novelty" in n.output)
    node.output[0] = "all"
    for name, value in (("from", 1), ("to", 2**31)):
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(np.array([value], np.int64), name)
        )
    model.graph.node.append(onnx.helper.make_node("Slice", ["all", "from", "to"], ["novelty"]))
    bundle = bundle_with(tmp_path / "b", "reader", model.SerializeToString())
    code, failures, _ = analyze(fields, bundle, tmp_path / "out")
    assert code == 1
    assert "'novelty' of shape (0,) where (1,) is wanted" in failures["cell.png"]


class Session:
    def __init__(self, *outputs):
        self.outputs = [np.asarray(o, dtype=np.float32) for o in outputs]

    def run(self, _names, _inputs):
        return self.outputs


def test_sound_outputs_pass_in_the_order_asked_for():
    one, two = run_graph(Session([1, 2], [[3]]), "g.onnx", {}, {"a": (2,), "b": (1, 1)})
    assert one.tolist() == [1, 2] and two.tolist() == [[3]]
    assert run_graph(Session(np.zeros((0, 4))), "g.onnx", {}, {"a": (0, 4)})[0].shape == (0, 4)


@pytest.mark.parametrize("values", [[], [0, 1], [-0.0005, 1.0005]])
def test_probabilities_may_be_rounded(values):
    check_probabilities(np.array(values, dtype=np.float32), "g.onnx", "scores")


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_what_lies_beyond_is_no_probability(value):
    with pytest.raises(BundleError, match=f"returned {value} in 'scores'"):
        check_probabilities(np.array([0.5, value], dtype=np.float32), "g.onnx", "scores")


def test_a_graph_that_fails_as_it_runs_is_refused_once(fields, tmp_path, capfd):
    """It asks for a tensor larger than any memory; ONNX Runtime would print a line of its own."""
    model = onnx.load_from_string(detector())
    helper, kind = onnx.helper, onnx.TensorProto
    graph = model.graph
    # From the picture's own size, so that it is not known before the graph runs.
    graph.initializer.append(helper.make_tensor("times", kind.INT64, [1], [1 << 31]))
    graph.initializer.append(helper.make_tensor("no_axes", kind.INT64, [1], [0]))
    output = graph.output[0].name
    maker = next(node for node in graph.node if output in node.output)
    maker.output[list(maker.output).index(output)] = "before"
    graph.node.extend(
        [
            helper.make_node("Shape", [graph.input[0].name], ["sides"]),
            helper.make_node("Mul", ["sides", "times"], ["huge"]),
            helper.make_node("ConstantOfShape", ["huge"], ["much"]),
            helper.make_node("ReduceMax", ["much"], ["most"], keepdims=0),
            helper.make_node("Add", ["before", "most"], [output]),
        ]
    )
    bundle = bundle_with(tmp_path / "b", "detector", model.SerializeToString())
    code, failures, _ = analyze(fields, bundle, tmp_path / "out")
    assert code == 2 and set(failures) == {"cell.png", "none.png"}
    for reason in failures.values():
        assert "detector.onnx cannot be run" in reason or "not enough memory" in reason
        assert len(reason.splitlines()) == 1
    assert "onnxruntime" not in capfd.readouterr().err
