"""Graphs that keep tensors in other files are refused before ONNX Runtime opens any."""

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bloodfilm.core.errors import BundleError
from bloodfilm.inference.bundle import default_bundle, open_session
from bloodfilm.inference.graph_check import FIELDS, check_graph
from fake_bundle import detector, reader

PLACE = Path("reader.onnx")
SECRET = b"SECRET"


def external(name="weights", location="secret.bin"):
    tensor = TensorProto(name=name, data_type=TensorProto.UINT8, dims=[len(SECRET)])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(len(SECRET)))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def graph_of(nodes=(), tensors=()):
    output = helper.make_tensor_value_info("y", TensorProto.UINT8, [len(SECRET)])
    return helper.make_graph(list(nodes), "g", [], [output], list(tensors))


def model_of(nodes=(), tensors=()):
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph_of(nodes, tensors), opset_imports=opset, ir_version=8)


def leaking(location="secret.bin"):
    """A valid model whose output is what the file holds."""
    nodes = [helper.make_node("Identity", ["weights"], ["y"])]
    return model_of(nodes, [external(location=location)]).SerializeToString()


def attribute(**fields):
    node = onnx.NodeProto(op_type="Constant", output=["y"])
    node.attribute.append(onnx.AttributeProto(name="value", **fields))
    return node


def function(**fields):
    model = model_of()
    model.functions.append(onnx.FunctionProto(name="f", domain="d", **fields))
    return model


def trained(field):
    model = model_of()
    getattr(model.training_info.add(), field).CopyFrom(graph_of(tensors=[external()]))
    return model


def sparse(field):
    return onnx.SparseTensorProto(dims=[6], **{field: external()})


def with_sparse_initializer(field):
    model = model_of()
    model.graph.sparse_initializer.append(sparse(field))
    return model


def only(field):
    tensor = external()
    tensor.ClearField(field)
    return model_of(tensors=[tensor])


HIDING = {
    "initializer": model_of(tensors=[external()]),
    "constant": model_of([attribute(t=external())]),
    "constants": model_of([attribute(tensors=[external()])]),
    "sub-graph": model_of([attribute(g=graph_of(tensors=[external()]))]),
    "sub-graphs": model_of([attribute(graphs=[graph_of([attribute(t=external())])])]),
    "sparse constant": model_of([attribute(sparse_tensor=sparse("values"))]),
    "sparse constants": model_of([attribute(sparse_tensors=[sparse("indices")])]),
    "sparse values": with_sparse_initializer("values"),
    "sparse indices": with_sparse_initializer("indices"),
    "function": function(node=[attribute(t=external())]),
    "default of a function": function(
        attribute_proto=[onnx.AttributeProto(name="a", t=external())]
    ),
    "training": trained("initialization"),
    "training step": trained("algorithm"),
    "location only": only("external_data"),
    "address only": only("data_location"),
}


@pytest.mark.parametrize("how", HIDING)
def test_external_data_is_found_wherever_it_lies(how):
    with pytest.raises(BundleError, match=r"^reader\.onnx: tensor 'weights' .*another file"):
        check_graph(HIDING[how].SerializeToString(), PLACE)


def test_a_second_graph_field_hides_nothing():
    # Protocol buffers merge a message that comes twice.
    plain, hidden = model_of().SerializeToString(), leaking()
    for data in (plain + hidden, hidden + plain):
        assert len(onnx.load_from_string(data).graph.initializer) == 1
        with pytest.raises(BundleError, match="another file"):
            check_graph(data, PLACE)


def test_deep_nesting_is_followed():
    graph = graph_of(tensors=[external()])
    for _ in range(25):
        graph = graph_of([attribute(g=graph)])
    data = helper.make_model(graph).SerializeToString()
    with pytest.raises(BundleError, match="another file"):
        check_graph(data, PLACE)


@pytest.mark.parametrize("operator", ["Loop", "Scan"])
def test_loops_are_refused_wherever_they_lie(operator):
    node = helper.make_node(operator, ["a"], ["b"])
    inner = helper.make_graph([node], "inner", [], [])
    nested = helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner)
    for nodes in ([node], [nested]):
        graph = helper.make_model(helper.make_graph(nodes, "g", [], [])).SerializeToString()
        with pytest.raises(BundleError) as said:
            check_graph(graph, Path("b/detector.onnx"))
        assert str(said.value).startswith(f"b/detector.onnx: has the operator {operator}")


@pytest.mark.parametrize("how", ["here", "parent", "absolute"])
def test_no_session_is_opened_for_it(tmp_path, monkeypatch, how):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (tmp_path, tmp_path / "here"):
        (folder / "secret.bin").write_bytes(SECRET)
    location = {
        "here": "secret.bin",
        "parent": "../secret.bin",
        "absolute": str(tmp_path / "secret.bin"),
    }[how]
    with pytest.raises(BundleError, match="another file"):
        open_session(leaking(location), PLACE, "cpu", 1)


def test_graphs_that_hold_all_of_their_tensors_pass():
    default = Path(default_bundle().path)
    shipped = [path.read_bytes() for path in sorted(default.glob("*.onnx"))]
    assert len(shipped) == len(default_bundle().manifest.graphs)
    for graph in (detector(), reader(confirms=True), *shipped):
        check_graph(graph, PLACE)
    inside = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    inside.data_location = TensorProto.DEFAULT  # written out
    check_graph(model_of(tensors=[inside]).SerializeToString(), PLACE)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"no graph at all", "wire type|cut short|unknown field"),
        (leaking()[:-1], "cut short"),
        (b"\x08", "cut short"),
        (b"\x08" + b"\xff" * 10, "without an end"),
        (b"\x00\x00", "field number 0"),
        (b"\x3b\x3c", "wire type 3"),
        (b"\x38\x01", "field 7 of ModelProto is no message"),
        (b"\xf8\x07\x01", "unknown field, 127"),
        (b"\x18\x00\x00\x00ORTM" + bytes(64), "not an ONNX graph"),
    ],
)
def test_what_is_no_onnx_graph_is_refused_in_one_line(data, says):
    with pytest.raises(BundleError, match=f"(?s)^reader.onnx: .*({says})") as caught:
        check_graph(data, PLACE)
    assert "\n" not in str(caught.value)


def test_the_fields_are_those_of_onnx():
    """Every field of every message is listed, and every way to a tensor is followed."""
    reached, pending = {}, [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name not in reached:
            reached[message.name] = message
            pending += [f.message_type for f in message.fields if f.message_type]

    def holds_tensors(name, seen=()):
        children = {f.message_type.name for f in reached[name].fields if f.message_type}
        return "TensorProto" in {name} | children or any(
            holds_tensors(child, (*seen, name)) for child in children - {name, *seen}
        )

    holding = {name for name in reached if holds_tensors(name)}
    assert set(FIELDS) == holding
    for name in holding:
        known = {
            f.number: f.message_type.name
            if f.message_type and f.message_type.name in holding
            else None
            for f in reached[name].fields
        }
        # `onnx` may be older than the list, never newer.
        assert known.items() <= FIELDS[name].items(), name


def tensors_of(message):
    """All tensors anywhere in a message, by the `onnx` package."""
    for field, value in message.ListFields():
        if field.message_type:
            for item in [value] if hasattr(value, "ListFields") else value:
                if isinstance(item, TensorProto):
                    yield item
                else:
                    yield from tensors_of(item)


@given(
    st.sampled_from(sorted(HIDING)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_damage_never_lets_external_data_through(how, edits):
    data = bytearray(HIDING[how].SerializeToString())
    for where, value in edits:
        data[min(int(where * len(data)), len(data) - 1)] = value
    try:
        check_graph(bytes(data), PLACE)
    except BundleError:
        return
    try:
        model = onnx.load_from_string(bytes(data))
    except Exception:
        return
    assert not any(t.external_data or t.data_location for t in tensors_of(model))
