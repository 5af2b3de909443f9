"""Trained networks as ONNX graphs: uint8 pixels in, what the runtime needs out."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.models.outlines import OutlineNet

OPSET = 17


class DetectorGraph(nn.Module):
    """The detector as a bundle holds it: uint8 pixels in, scores and distances out."""

    outputs = ("scores", "boxes")

    def __init__(self, model: CellDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B, K, h, w) and boxes (B, 4, h, w) of pixels (B, H, W, 3)."""
        outputs = self.model(image.permute(0, 3, 1, 2).float())
        return outputs["types"].sigmoid(), outputs["boxes"]


class ClassifierGraph(nn.Module):
    """The classifier as a bundle holds it: uint8 crops in, logits and novelty out.

    Args:
        model: a trained classifier.
        confirms: whether its verification head was trained and belongs to the outputs.

    Attributes:
        outputs: names of the outputs, in order.
    """

    def __init__(self, model: CellClassifierNet, confirms: bool = False) -> None:
        super().__init__()
        self.model = model
        self.outputs = ("classes", "attributes", "novelty", *(["nucleated"] if confirms else ()))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Return `outputs` for crops (N, S, S, 3).

        These are classes (N, leaves), attributes (N, values), novelty (N,) and nucleated (N,).
        """
        found = self.model(crops.permute(0, 3, 1, 2).float())
        found["novelty"] = self.model.novelty(found["description"])
        return tuple(found[name] for name in self.outputs)


class OutlineGraph(nn.Module):
    """The outline network as a bundle holds it: uint8 crops in, logits of two maps out."""

    outputs = ("maps",)

    def __init__(self, model: OutlineNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, crops: Tensor) -> tuple[Tensor]:
        """Return maps (N, 2, S/2, S/2) of cell and nucleus for crops (N, S, S, 3)."""
        return (self.model(crops.permute(0, 3, 1, 2).float()),)


def detector_onnx(graph: DetectorGraph, example: Tensor) -> bytes:
    """Return a detector as ONNX bytes; the batch and the image size stay free.

    Args:
        graph: in evaluation mode.
        example: (1, H, W, 3) uint8 to trace with.
    """
    axes: dict[str, dict[int, str]] = {"image": {0: "n", 1: "height", 2: "width"}}
    axes |= {name: {0: "n", 2: "rows", 3: "columns"} for name in graph.outputs}
    return to_onnx(graph, example, "image", graph.outputs, axes)


def classifier_onnx(graph: ClassifierGraph, example: Tensor) -> bytes:
    """Return a classifier as ONNX bytes; the batch stays free.

    Args:
        graph: in evaluation mode.
        example: (n, S, S, 3) uint8 to trace with.
    """
    axes: dict[str, dict[int, str]] = {name: {0: "n"} for name in ("crops", *graph.outputs)}
    return to_onnx(graph, example, "crops", graph.outputs, axes)


def outlines_onnx(graph: OutlineGraph, example: Tensor) -> bytes:
    """Return an outline network as ONNX bytes; the batch stays free.

    Args:
        graph: in evaluation mode.
        example: (n, S, S, 3) uint8 to trace with.
    """
    return to_onnx(graph, example, "crops", graph.outputs, {n: {0: "n"} for n in ("crops", "maps")})


def to_onnx(
    graph: nn.Module,
    example: Tensor,
    name: str,
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
) -> bytes:
    """Trace a graph into ONNX bytes.

    Args:
        graph: set to evaluation mode.
        example: input to trace with.
        name: of the input; outputs: names of the outputs, in order.
        axes: by input and output, the axes whose size stays free, and what to call them.
    """
    buffer = io.BytesIO()
    graph.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of sizes that are constant on purpose
        torch.onnx.export(
            graph,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[name],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return fuse_padding(buffer.getvalue())


def fuse_padding(model: bytes) -> bytes:
    """Fold constant zero padding into the convolution that alone consumes it.

    A "SAME" convolution pads more on one side than on the other. torch exports it as two nodes, and
    ONNX Runtime then copies the whole map to pad it; an ONNX `Conv` can pad four sides differently.
    """
    import onnx

    proto = onnx.load_from_string(model)
    graph = proto.graph
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        users = [node for node in graph.node if pad.output[0] in node.input]
        shown = any(pad.output[0] == output.name for output in graph.output)
        sides = _zero_sides(graph, pad)
        if sides is None or shown or len(users) != 1 or not _takes_padding(users[0], pad.output[0]):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in users[0].attribute}
        before = attributes.get("pads", [0, 0, 0, 0])
        total = [a + b for a, b in zip(before, sides, strict=True)]
        for old in [a for a in users[0].attribute if a.name == "pads"]:
            users[0].attribute.remove(old)
        users[0].attribute.append(onnx.helper.make_attribute("pads", total))
        users[0].input[0] = pad.input[0]
        graph.node.remove(pad)
    _drop_unused(graph)
    onnx.checker.check_model(proto)
    data: bytes = proto.SerializeToString()
    return data


def _zero_sides(graph: Any, pad: Any) -> list[int] | None:
    """Return top, left, bottom, right of a padding of maps with zeros, `None` if it is not one."""
    from onnx.helper import get_attribute_value

    mode = next((get_attribute_value(a) for a in pad.attribute if a.name == "mode"), b"constant")
    amounts = _constant(graph, pad.input[1])
    fill = [_constant(graph, name) for name in pad.input[2:3] if name]
    axes = [name for name in pad.input[3:4] if name]
    if mode != b"constant" or amounts is None or axes or any(f is None or f.any() for f in fill):
        return None
    if len(amounts) != 8 or amounts.min() < 0 or amounts[[0, 1, 4, 5]].any():
        return None
    return [int(v) for v in amounts[[2, 3, 6, 7]]]


def _takes_padding(node: Any, data: str) -> bool:
    """Whether a node is a convolution of that data (not by it) with explicit padding."""
    automatic = [a.s for a in node.attribute if a.name == "auto_pad"]
    return (
        node.op_type == "Conv"
        and list(node.input).count(data) == 1
        and node.input[0] == data
        and automatic in ([], [b"NOTSET"])
    )


def _constant(graph: Any, name: str) -> NDArray[Any] | None:
    """Evaluate a value that depends on no input; `None` if it does depend on one."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    maker = {output: node for node in graph.node for output in node.output}
    given = {tensor.name: tensor for tensor in graph.initializer}
    wanted, seen = [name], set()
    while wanted:
        step = wanted.pop()
        if not step or step in seen:
            continue
        seen.add(step)
        if step in maker:
            wanted += maker[step].input
        elif step not in given:
            return None
    nodes = [node for node in graph.node if seen & set(node.output)]
    kept = [tensor for key, tensor in given.items() if key in seen]
    goal = helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)
    values: Any = ReferenceEvaluator(
        helper.make_model(
            helper.make_graph(nodes, "constant", [], [goal], kept),
            opset_imports=[helper.make_opsetid("", OPSET)],
        )
    ).run(None, {})
    return np.asarray(values[0])


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants whose results are not used."""
    while True:
        used = {name for node in graph.node for name in node.input}
        used |= {output.name for output in graph.output}
        dead = [node for node in graph.node if not used & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
