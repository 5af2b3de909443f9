"""Check the bytes of an ONNX graph before ONNX Runtime loads them.

A tensor of an ONNX graph may keep its values in another file ("external data"). ONNX Runtime opens
that file, whatever it is, and no checksum of a bundle covers it; so a graph with such a tensor is
refused, wherever the tensor lies: initializers, attributes of nodes, sub-graphs, functions, sparse
tensors. So is a graph with a loop, whose number of rounds a few bytes can make endless.

Analysis is installed without the `onnx` package, so the serialised form is walked here: protocol
buffers (https://protobuf.dev/programming-guides/encoding/) of the messages in `onnx.proto`, up to
ONNX 1.23. Whatever is not of that form, or of a field that is not listed, is refused: what this
module cannot parse it cannot verify.
"""

from collections.abc import Iterator
from pathlib import Path

from bloodfilm.core.errors import BundleError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
EXTERNAL_DATA, DATA_LOCATION, TENSOR_NAME = 13, 14, 8
OPERATOR = 4
LOOPS = (b"Loop", b"Scan")

# The messages that can hold a tensor at some depth: their fields, and for those that can hold one
# the name of the message. Fields of other messages and of plain values lead nowhere: `None`.
FIELDS: dict[str, dict[int, str | None]] = {
    "ModelProto": {
        **dict.fromkeys((1, 2, 3, 4, 5, 6, 8, 14, 26)),
        7: "GraphProto",
        20: "TrainingInfoProto",
        25: "FunctionProto",
    },
    "GraphProto": {
        **dict.fromkeys((2, 10, 11, 12, 13, 14, 16)),
        1: "NodeProto",
        5: "TensorProto",
        15: "SparseTensorProto",
    },
    "NodeProto": {**dict.fromkeys((1, 2, 3, 4, 6, 7, 8, 9, 10)), 5: "AttributeProto"},
    "AttributeProto": {
        **dict.fromkeys((1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20, 21)),
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "TensorProto": dict.fromkeys(range(1, 17)),
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto", 3: None},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto", 3: None, 4: None},
    "FunctionProto": {
        **dict.fromkeys((1, 4, 5, 6, 8, 9, 10, 12, 13, 14)),
        7: "NodeProto",
        11: "AttributeProto",
    },
}


class _NotOnnxError(ValueError):
    """The bytes are not a serialised ONNX model, as far as it is known here."""


def check_graph(graph: bytes, place: Path) -> None:
    """Refuse a graph that is malformed, keeps tensors in other files, or has loops.

    Args:
        graph: a serialised `ModelProto`.
        place: where it comes from, for messages.

    Raises:
        BundleError: in one line that begins with `place`.
    """
    pending = [("ModelProto", 0, len(graph))]
    try:
        while pending:
            message, start, stop = pending.pop()
            if message == "TensorProto":
                _check_tensor(graph, start, stop, place)
                continue
            for number, wire, at, end in _fields(graph, start, stop):
                kind = _kind(message, number)
                if message == "NodeProto" and number == OPERATOR and graph[at:end] in LOOPS:
                    raise BundleError(
                        f"{place}: has the operator {graph[at:end].decode()}, which could run "
                        "without end; save the graph without loops"
                    )
                if kind is None:
                    continue
                if wire != LENGTH:
                    raise _NotOnnxError(f"field {number} of {message} is no message")
                pending.append((kind, at, end))
    except _NotOnnxError as error:
        raise BundleError(f"{place}: not an ONNX graph that this program reads ({error})") from None


def _check_tensor(graph: bytes, start: int, stop: int, place: Path) -> None:
    name, external = b"", False
    for number, wire, at, end in _fields(graph, start, stop):
        _kind("TensorProto", number)
        if number == TENSOR_NAME and wire == LENGTH:
            name = graph[at:end]
        # The default location, written out, is 0; a value of any other form is none either.
        external |= number == EXTERNAL_DATA
        external |= number == DATA_LOCATION and (
            wire != VARINT or any(graph[at:end].strip(b"\x80"))
        )
    if external:
        shown = name[:80].decode("utf-8", "replace")
        raise BundleError(
            f"{place}: tensor {shown!r} keeps its values in another file (external data), which "
            "could be any file of this computer; save the graph with all of its tensors inside"
        )


def _kind(message: str, number: int) -> str | None:
    try:
        return FIELDS[message][number]
    except KeyError:
        raise _NotOnnxError(f"{message} has an unknown field, {number}") from None


def _fields(data: bytes, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, and where the value begins and ends, of a message's fields."""
    while at < stop:
        tag, at = _varint(data, at, stop)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise _NotOnnxError(f"field number {number} at byte {at}")
        if wire == VARINT:
            end = _varint(data, at, stop)[1]
        elif wire == LENGTH:
            length, at = _varint(data, at, stop)
            end = at + length
        elif wire in (FIXED64, FIXED32):
            end = at + (8 if wire == FIXED64 else 4)
        else:
            raise _NotOnnxError(f"wire type {wire} at byte {at}")
        if end > stop:
            raise _NotOnnxError(f"cut short at byte {stop}")
        yield number, wire, at, end
        at = end


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    """Return a varint (seven bits per byte, least significant first), and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= stop:
            raise _NotOnnxError(f"cut short at byte {stop}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _NotOnnxError(f"a number without an end at byte {at}")
