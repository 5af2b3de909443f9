"""Networks recovered from a bundle's graphs, so that they can be trained on.

An exported graph holds every weight, but in another form: batch norms are folded into the
convolutions before them, and an eight-bit graph stores whole numbers and scales. The name of a node
is the path of the module it was traced from, so the weights find their way back. The recovered
network computes what the graph computes (an eight-bit one: but for the rounding of activations);
this is verified on real input before it is handed out. Batch norms only add a bias at first;
`unfold_batch_norm` gives them statistics to train with.

A bundle's graph alone is therefore enough to adapt or extend its model. What it does not hold are
the statistics that the batch norms had in training: methods that need these ask for source data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bloodfilm.core.arrays import Floats, Floats32
from bloodfilm.core.errors import BundleError
from bloodfilm.export.onnx_graphs import ClassifierGraph, DetectorGraph
from bloodfilm.imaging.tiles import pad
from bloodfilm.inference.bundle import Bundle, open_session
from bloodfilm.inference.manifest import CORRECTION
from bloodfilm.models.backbone import pair_batch_norms
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config, FilmOffsetSection, parse_config
from bloodfilm.training.networks import build_classifier, build_detector
from bloodfilm.training.vocabulary import Vocabulary

LEAST_AGREEMENT = 0.97
"""Correlation of the scores of the network and its graph."""
_OPERATION = re.compile(r"(Conv|Gemm|MatMul)(_\d+)?(_quant)?$")

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class GraphWeights:
    """The weights in a graph.

    Attributes:
        layers: by path of a convolution or linear layer, its weight and its bias (or zeros).
        tensors: those stored under the name they have in the network.
        constants: every stored floating-point tensor, for what has no name of its own.
        eight_bit: whether some weights are stored as eight-bit integers.
    """

    layers: Mapping[str, tuple[Floats32, Floats32]]
    tensors: Mapping[str, Floats32]
    constants: Sequence[Floats32]
    eight_bit: bool


def read_weights(graph: bytes, place: Path) -> GraphWeights:
    """Read the weights of an exported graph; eight-bit ones are converted to floats.

    Args:
        graph: ONNX bytes; place: where they are from, for messages.

    Raises:
        BundleError: if it is no graph.
    """
    import onnx

    try:
        proto = onnx.load_from_string(graph).graph
    except Exception as error:  # protobuf's own errors share no base class
        reason = " ".join(str(error).split())[:120]
        raise BundleError(f"{place}: is no ONNX graph ({reason})") from None
    constants = _Constants(proto)
    layers = {}
    for node in proto.node:
        path = module_path(node.name)
        if path is None:
            continue
        weight = constants.value(node.input[1])
        if weight is None:
            continue
        bias = constants.value(node.input[2]) if len(node.input) > 2 else None
        zeros = np.zeros(weight.shape[0], np.float32)
        layers[path] = (weight, zeros if bias is None else bias)
    floats = {name: v for name, v in constants.stored.items() if v.dtype == np.float32}
    named = {
        name.removeprefix("model."): v for name, v in floats.items() if name.startswith("model.")
    }
    return GraphWeights(layers, named, tuple(floats.values()), constants.eight_bit)


def module_path(node: str) -> str | None:
    """Return the path of the module that a weighted node was traced from, `None` for others.

    Containers appear with and without their members; a member replaces its container.

    >>> module_path("/model/backbone/body/blocks.2/blocks.2.0/conv_pw/Conv")
    'backbone.body.blocks.2.0.conv_pw'
    >>> module_path("/model/attribute_heads.17/attribute_heads.17.0/Gemm")
    'attribute_heads.17.0'
    """
    parts = node.split("/")
    if len(parts) < 4 or parts[:2] != ["", "model"] or not _OPERATION.fullmatch(parts[-1]):
        return None
    names: list[str] = []
    for part in parts[2:-1]:
        if names and part.startswith(f"{names[-1]}."):
            names[-1] = part
        else:
            names.append(part)
    return ".".join(names)


class _Constants:
    """The stored tensors of a graph, also those that are stored as whole numbers."""

    def __init__(self, proto: Any) -> None:
        from onnx import numpy_helper

        self.stored: dict[str, NDArray[Any]] = {
            t.name: numpy_helper.to_array(t) for t in proto.initializer
        }
        self.makers = {output: node for node in proto.node for output in node.output}
        self.eight_bit = any(node.op_type == "DequantizeLinear" for node in proto.node)

    def value(self, name: str) -> Floats32 | None:
        """Return a constant as floats; `None` if the value is computed from the input."""
        if name in self.stored:
            return np.asarray(self.stored[name], dtype=np.float32)
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        stored = [self.stored.get(item) for item in node.input]
        if stored[0] is None or stored[1] is None:
            return None
        number, scale = stored[0], np.asarray(stored[1], np.float32)
        zero = np.zeros_like(scale) if len(stored) < 3 or stored[2] is None else stored[2]
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [1] * number.ndim
        if scale.ndim:
            shape[axis if scale.ndim and number.ndim > 1 else 0] = -1
        difference = number.astype(np.float32) - np.asarray(zero, np.float32).reshape(shape)
        return np.asarray(difference * scale.reshape(shape), np.float32)


# ---- networks --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovered:
    """What a bundle's graph was recovered as.

    Attributes:
        config: that it was trained by.
        vocabulary: of the bundle.
        eight_bit: whether the graph is in eight bits.
        agreement: with the graph, on the probes: correlation of scores (`scores_agreement` of
            the classifier's).
    """

    config: Config
    vocabulary: Vocabulary
    eight_bit: bool
    agreement: float


def vocabulary_of(bundle: Bundle) -> Vocabulary:
    """Return classes, attributes and object types of a bundle as training uses them.

    Raises:
        BundleError: if its classes are in another order than training would give them.
    """
    m = bundle.manifest
    others = [n for n in m.leaves if not m.taxonomy.is_under(n, m.roles.classified)]
    record = (m.training.get("classifier") or {}).get("config") or {}
    other = (record.get("data") or {}).get("other") if others else None
    words = Vocabulary(m.taxonomy, m.attributes, m.object_types, m.roles, other)
    if words.leaves != m.leaves:
        raise BundleError(
            f"{bundle.path}: its classes are not in the order of its taxonomy; the bundle was not "
            "exported by this program"
        )
    return words


def config_of(bundle: Bundle, part: str) -> Config:
    """Return the configuration that a network of a bundle was trained by.

    Raises:
        BundleError: if the bundle does not record it.
    """
    record = bundle.manifest.training.get(part) or {}
    if not isinstance(record.get("config"), dict):
        raise BundleError(
            f"{bundle.path}: does not record how its {part} was trained; export it with this "
            "program, or train a new one"
        )
    return parse_config(record["config"], f"{bundle.path}: training of the {part}")


def check_unchanged(bundle: Bundle) -> None:
    """Refuse a bundle that holds something on top of its network, which a change would not fit.

    Raises:
        BundleError: if it has learnt classes, or is corrected.
    """
    if bundle.manifest.training.get("learnt"):
        raise BundleError(
            f"{bundle.path}: has learnt classes on top of its network, which can no longer be "
            "trained; train or adapt the bundle that it was made from, then let it learn them again"
        )
    if (bundle.manifest.training.get("adaptation") or {}).get("method") == CORRECTION:
        raise BundleError(
            f"{bundle.path}: is corrected on top of its network, which can no longer be trained; "
            "train or adapt the bundle that it was made from, with all marked fields"
        )


def recover_classifier(
    bundle: Bundle, probes: NDArray[np.uint8]
) -> tuple[CellClassifierNet, Recovered]:
    """Return a bundle's classifier as a network in evaluation mode.

    What names cells by their film is left out: it was fitted to this network's descriptions, and
    none that goes on from it can use it.

    Args:
        bundle: float or in eight bits.
        probes: (n, S, S, 3) crops as the runtime makes them, to verify it on.

    Raises:
        BundleError: if the graph was not made by this program, or they disagree.
    """
    check_unchanged(bundle)
    config, words = config_of(bundle, "classifier"), vocabulary_of(bundle)
    config = config.model_copy(update={"film_offset": FilmOffsetSection()})
    spec = bundle.manifest.classifier
    place = bundle.path / spec.file
    graph = place.read_bytes()
    weights = read_weights(graph, place)
    model = _filled(build_classifier(config, words), weights, place)
    shape = (1, *model.get_buffer("prototypes").shape)
    prototypes = next((c for c in weights.constants if c.shape == shape), None)
    if prototypes is not None:
        with torch.no_grad():
            model.get_buffer("prototypes").copy_(torch.from_numpy(prototypes[0].copy()))
    session = open_session(graph, place, "cpu", 1)
    from_onnx = np.concatenate(
        [session.run(["classes"], {"crops": probe[None]})[0] for probe in probes]
    )
    with torch.no_grad():
        from_torch = ClassifierGraph(model, spec.verifies)(torch.from_numpy(probes))[0].numpy()
    agreement = scores_agreement(from_torch, from_onnx)
    _check_agreement(agreement, place)
    return model, Recovered(config, words, weights.eight_bit, agreement)


def recover_detector(
    bundle: Bundle, probes: Sequence[NDArray[np.uint8]]
) -> tuple[CellDetector, Recovered]:
    """Return a bundle's detector as a network in evaluation mode.

    Args:
        bundle: float or in eight bits.
        probes: canonical images (H, W, 3), to verify it on.

    Raises:
        BundleError: if the graph was not made by this program, or they disagree.
    """
    config, words = config_of(bundle, "detector"), vocabulary_of(bundle)
    spec = bundle.manifest.detector
    place = bundle.path / spec.file
    graph = place.read_bytes()
    weights = read_weights(graph, place)
    model = _filled(build_detector(config, words), weights, place)
    session = open_session(graph, place, "cpu", 1)
    agreement = 1.0
    for probe in probes:
        image = pad(probe, spec.multiple)[None]
        from_onnx = session.run(["scores"], {"image": image})[0].ravel()
        with torch.no_grad():
            from_torch = DetectorGraph(model)(torch.from_numpy(image))[0].numpy().ravel()
        agreement = min(agreement, float(np.corrcoef(from_torch, from_onnx)[0, 1]))
    _check_agreement(agreement, place)
    return model, Recovered(config, words, weights.eight_bit, agreement)


def scores_agreement(first: Floats, second: Floats) -> float:
    """Return how well two networks agree on class scores (n, classes): their correlation.

    Of every class its mean over the probes is taken off, so that to agree on which classes are rare
    is no agreement. Likeliest classes are not compared: on a film that the classifier hardly reads
    two classes are often as likely, and eight bits turn their order round.

    >>> scores = np.array([[2.0, 1.99], [-1.0, 1.0], [0.0, 3.0]])
    >>> round(scores_agreement(scores, scores + [[-0.01, 0.01], [0, 0], [0, 0]]), 3)
    1.0
    """
    pair = [np.asarray(scores, np.float64) for scores in (first, second)]
    if len(first) > 1:
        pair = [scores - scores.mean(axis=0) for scores in pair]
    return float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])


def _check_agreement(agreement: float, place: Path) -> None:
    if not agreement >= LEAST_AGREEMENT:  # also a NaN
        raise BundleError(
            f"{place}: the network recovered from it agrees with it by {agreement:.3f} only; "
            "train a new one from data"
        )


@torch.no_grad()
def _filled(model: Network, weights: GraphWeights, place: Path) -> Network:
    """Fill a network with the weights of its graph; batch norms only add a bias then."""
    modules = dict(model.named_modules())
    norms = {id(conv): norm for conv, norm in pair_batch_norms(model)}
    used = 0
    for path, (weight, bias) in weights.layers.items():
        layer = modules.get(path)
        if not isinstance(layer, nn.Conv2d | nn.Linear) or layer.weight.shape != weight.shape:
            raise BundleError(
                f"{place}: holds a layer {path!r} of shape {weight.shape} that its configuration "
                "does not describe; the graph was made otherwise"
            )
        layer.weight.copy_(torch.from_numpy(weight.copy()))
        if (norm := norms.get(id(layer))) is not None:
            _set_bias_only(norm, torch.from_numpy(bias.copy()))
        elif layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias.copy()))
        used += 1
    if not used:
        raise BundleError(f"{place}: names no layer; the graph was not exported by this program")
    state = model.state_dict()
    for name, value in weights.tensors.items():
        if name in state and state[name].shape == value.shape:
            state[name].copy_(torch.from_numpy(value.copy()))
    return model.eval()


def _set_bias_only(norm: nn.BatchNorm2d, bias: torch.Tensor) -> None:
    norm.weight.fill_(1.0)
    norm.bias.copy_(bias)
    norm.running_mean.zero_()  # type: ignore[union-attr]
    norm.running_var.fill_(1.0 - norm.eps)  # type: ignore[union-attr]
