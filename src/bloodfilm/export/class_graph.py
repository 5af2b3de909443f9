"""A classifier's graph taken apart at the description of the cell, and given further classes.

The description is what all heads of the classifier share. A new class is a row of weights on it:
the nodes of the graph stay as they are, so every old class keeps its logit to the last bit, and so
do attributes and verification. The new class takes its probability from the others in equal
proportion: its logit is a score of its own above the log of the summed exponentials of the known
ones, so that the score alone is the log odds of "the new class" against "one that was known".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats, Pixels
from bloodfilm.core.errors import BundleError
from bloodfilm.inference.bundle import Bundle, open_session
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.inference.manifest import FILM_CLASSES, Manifest

CLASSES, DESCRIPTION = "classes", "description"
_HEAD = "class_head"
BATCH = 64
TOLERANCE = 1e-2
"""Largest difference of a probability from what the rows were fitted to give."""


@dataclass(frozen=True)
class ClassRows:
    """Rows of weights on the description, for classes that are new and for those corrected.

    Attributes:
        new: by class, its weights (size,) and its bias: the log odds against all known classes.
        corrected: by class, what is added to its logit over the temperature, as weights and bias.
    """

    new: Mapping[str, tuple[Floats, float]]
    corrected: Mapping[str, tuple[Floats, float]]


@dataclass(frozen=True)
class Described:
    """What a classifier's graph says of crops.

    Attributes:
        description: (n, size).
        outputs: of the graph, by name.
    """

    description: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]


class Describer:
    """Runs a bundle's classifier and also returns the descriptions of the cells.

    Args:
        bundle: whose classifier was exported by this program.
        threads: of ONNX Runtime.

    Raises:
        BundleError: if its graph was made otherwise.
    """

    def __init__(self, bundle: Bundle, threads: int = 1) -> None:
        place = bundle.path / bundle.manifest.classifier.file
        proto = parse_graph(place.read_bytes(), place)
        self.place, self.name = place, description_tensor(proto, place)
        self.outputs = [output.name for output in proto.graph.output]
        proto.graph.output.append(float_tensor(self.name))
        self._session = open_session(proto.SerializeToString(), place, "cpu", threads)
        self._head = open_session(_head_of(proto, self.name, place), place, "cpu", threads)

    def describe(self, crops: Pixels) -> Described:
        """Describe crops (n, S, S, 3) as the classifier sees them."""
        names = [self.name, *self.outputs]
        parts = [
            self._session.run(names, {"crops": crops[i : i + BATCH]})
            for i in range(0, len(crops), BATCH)
        ]
        if not parts:
            raise ValueError("no crops to describe")
        whole = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return Described(whole[0], dict(zip(self.outputs, whole[1:], strict=True)))

    def classify(self, description: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the class logits (n, leaves) that the graph gives to descriptions (n, size)."""
        (logits,) = self._head.run([CLASSES], {self.name: description.astype(np.float32)})
        return np.asarray(logits)


def description_tensor(proto: Any, place: Path) -> str:
    """Return the name of the tensor that holds the description, in a parsed graph.

    Raises:
        BundleError: if the graph has none.
    """
    for node in proto.graph.node:
        if node.op_type in ("Gemm", "MatMul") and f"/{_HEAD}/{_HEAD}.0/" in node.name:
            return str(node.input[0])
    raise BundleError(
        f"{place}: has no layer {_HEAD!r}, whose input describes a cell; the graph was not "
        "exported by this program"
    )


def parse_graph(graph: bytes, place: Path) -> Any:
    """Return the parsed bytes of an ONNX graph; `BundleError` if they are none."""
    import onnx

    try:
        return onnx.load_from_string(graph)
    except Exception as error:  # protobuf's own errors share no base class
        reason = " ".join(str(error).split())[:120]
        raise BundleError(f"{place}: is no ONNX graph ({reason})") from None


def float_tensor(name: str, shape: Sequence[str | int] | None = None) -> Any:
    """Return the description of an input or output of floats; `None` is any shape."""
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _head_of(proto: Any, description: str, place: Path) -> bytes:
    """Return the part of a graph that leads from the description to the class logits."""
    from onnx import TensorProto, helper

    makers = {output: node for node in proto.graph.node for output in node.output}
    needed: set[int] = set()
    wanted = [CLASSES]
    while wanted:
        name = wanted.pop()
        node = makers.get(name)
        if name == description or node is None or id(node) in needed:
            continue
        needed.add(id(node))
        wanted += node.input
    nodes = [node for node in proto.graph.node if id(node) in needed]
    used = {name for node in nodes for name in node.input}
    if description not in used or "crops" in used:
        raise BundleError(
            f"{place}: its classes do not follow from the description of the cell alone; the graph "
            "was not exported by this program"
        )
    size = ["n", None]
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(description, TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info(CLASSES, TensorProto.FLOAT, size)],
        [t for t in proto.graph.initializer if t.name in used],
    )
    model = helper.make_model(graph, opset_imports=list(proto.opset_import))
    model.ir_version = proto.ir_version
    data: bytes = model.SerializeToString()
    return data


# ---- further classes ---------------------------------------------------------------------------


def with_rows(
    bundle: Bundle,
    leaves: Sequence[str],
    rows: ClassRows,
    means: Mapping[str, Floats],
) -> bytes:
    """Return a bundle's classifier as a graph with further classes.

    Args:
        bundle: the original.
        leaves: the classes of the new graph in order: all of the bundle's, and new ones.
        rows: of classes that are new or were untrained, and of those that are corrected.
        means: by class in `rows.new`, the mean description of its cells, from which it is known
            that they are not unfamiliar.

    Raises:
        BundleError: if the graph was not exported by this program.
    """
    manifest = bundle.manifest
    place = bundle.path / manifest.classifier.file
    proto = parse_graph(place.read_bytes(), place)
    graph = GraphExtension(proto, description_tensor(proto, place))
    old, learnt = manifest.leaves, manifest.trained_leaves
    temperature = manifest.classifier.temperatures.get("class", 1.0)
    at = [old.index(leaf) for leaf in learnt]
    names = list(rows.new)
    order = [len(old) + names.index(leaf) if leaf in names else old.index(leaf) for leaf in leaves]
    outputs = [CLASSES] if manifest.classifier.film_offset is None else [CLASSES, FILM_CLASSES]
    for output in outputs:
        known = graph.rename_output(output)
        scaled = graph.op("Mul", known, graph.constant(np.float32(1 / temperature)))
        among = graph.op("Gather", scaled, graph.constant(np.array(at, np.int64)), axis=1)
        total = graph.op("ReduceLogSumExp", among, axes=[1], keepdims=1)
        parts = [known]
        if rows.corrected:
            shift = graph.linear([rows.corrected.get(leaf) for leaf in old], temperature)
            parts = [graph.op("Add", known, shift)]
        if names:
            score = graph.op("Add", graph.linear([rows.new[name] for name in names]), total)
            parts.append(graph.op("Mul", score, graph.constant(np.float32(temperature))))
        joined = graph.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
        graph.op("Gather", joined, graph.constant(np.array(order, np.int64)), axis=1, name=output)
    graph.set_means(old, leaves, means, place)
    return graph.finish(len(leaves))


def check_rows(
    graph: bytes,
    parent: Bundle,
    manifest: Manifest,
    probes: NDArray[np.uint8],
    expected: NDArray[np.float64],
) -> None:
    """Raise `BundleError` unless a graph with rows gives the probabilities that were fitted.

    Args:
        graph: ONNX bytes.
        parent: the bundle that it extends.
        manifest: of the new bundle.
        probes: (n, S, S, 3) crops as the classifier sees them.
        expected: (n, leaves) their class probabilities.
    """
    place = parent.path / manifest.classifier.file
    (logits,) = open_session(graph, place, "cpu", 1).run(["classes"], {"crops": probes})
    learnt = [leaf in manifest.trained_leaves for leaf in manifest.leaves]
    found = leaf_probabilities(logits, learnt, manifest.classifier.temperatures.get("class", 1.0))
    difference = float(np.abs(found - expected).max())
    if not difference < TOLERANCE:
        raise BundleError(
            f"{place}: with the new rows its probabilities differ by {difference:.3g} from "
            "those that were fitted; please report it"
        )


class GraphExtension:
    """Appends nodes to a parsed graph.

    Args:
        proto: the graph; changed.
        description: name of the tensor that describes a cell.
        purpose: begins the names of what is appended.
    """

    def __init__(self, proto: Any, description: str, purpose: str = "taught") -> None:
        self.proto, self.description = proto, description
        used = {name for node in proto.graph.node for name in (*node.input, *node.output)}
        used |= {tensor.name for tensor in proto.graph.initializer}
        number = 1
        while any(name.startswith(f"/{purpose}_{number}/") for name in used):
            number += 1
        self.prefix, self.count = f"/{purpose}_{number}/", 0

    def _next(self, what: str) -> str:
        self.count += 1
        return f"{self.prefix}{what}_{self.count}"

    def constant(self, value: NDArray[Any] | np.floating[Any]) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        name = self._next("constant")
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def optional_input(self, name: str, value: NDArray[np.float32]) -> None:
        """Add an input that has this value wherever none is given."""
        from onnx import numpy_helper

        self.proto.graph.input.append(float_tensor(name, list(value.shape)))
        self.proto.graph.initializer.append(numpy_helper.from_array(value, name))

    def op(self, kind: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node of one output; return the output's name."""
        from onnx import helper

        output = name or self._next(kind)
        node = helper.make_node(kind, list(inputs), [output], name=self._next("node"), **attributes)
        self.proto.graph.node.append(node)
        return output

    def linear(self, rows: Sequence[tuple[Floats, float] | None], factor: float = 1.0) -> str:
        """Append rows of weights on the description; `None` is a row of zeros."""
        size = next(len(row[0]) for row in rows if row is not None)
        weights = np.zeros((len(rows), size))
        bias = np.zeros(len(rows))
        for i, row in enumerate(rows):
            if row is not None:
                weights[i], bias[i] = row[0] * factor, row[1] * factor
        return self.op(
            "Gemm",
            self.description,
            self.constant(weights.astype(np.float32)),
            self.constant(bias.astype(np.float32)),
            transB=1,
        )

    def rename_output(self, output: str) -> str:
        """Give an output's tensor another name, so that a later node can produce it."""
        name = self._next(output)
        for node in self.proto.graph.node:
            for names in (node.input, node.output):
                for i, value in enumerate(names):
                    if value == output:
                        names[i] = name
        return name

    def set_means(
        self,
        old: Sequence[str],
        leaves: Sequence[str],
        means: Mapping[str, Floats],
        place: Path,
    ) -> None:
        """Set the mean descriptions that unfamiliar cells are far from."""
        from onnx import numpy_helper

        users = {
            name for node in self.proto.graph.node if node.op_type == "Sub" for name in node.input
        }
        for tensor in self.proto.graph.initializer:
            if tensor.name in users and list(tensor.dims)[:2] == [1, len(old)]:
                stored = numpy_helper.to_array(tensor)[0]
                rows = [
                    np.asarray(means[leaf], stored.dtype)
                    if leaf in means
                    else stored[old.index(leaf)]
                    for leaf in leaves
                ]
                tensor.CopyFrom(numpy_helper.from_array(np.stack(rows)[None], tensor.name))
                return
        raise BundleError(
            f"{place}: holds no mean descriptions of its classes; the graph was not exported by "
            "this program"
        )

    def finish(self, leaves: int) -> bytes:
        """Check the graph and return its bytes."""
        import onnx

        for output in self.proto.graph.output:
            if output.name in (CLASSES, FILM_CLASSES):
                output.type.tensor_type.shape.dim[1].dim_value = leaves
        del self.proto.graph.value_info[:]
        onnx.checker.check_model(self.proto)
        data: bytes = self.proto.SerializeToString()
        return data
