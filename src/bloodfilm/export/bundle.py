"""Checkpoints to a bundle: two ONNX graphs and a manifest, with proof that they agree."""

import hashlib
import io
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm import __version__
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import BundleError, ConfigError
from bloodfilm.imaging.resample import BACKGROUND
from bloodfilm.inference.bundle import open_session
from bloodfilm.inference.decode import decode
from bloodfilm.inference.manifest import FORMAT, MANIFEST, VERSION, Manifest
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.calibration import ReaderCalibration
from bloodfilm.training.data.sources import CLASSIFIED_TYPE, RULER_TYPE
from bloodfilm.training.tasks.detector import NMS_IOU

OPSET = 17
DETECTOR_FILE, CLASSIFIER_FILE = "detector.onnx", "classifier.onnx"
TILE, OVERLAP = 1024, 160
SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.05
LOGIT_TOLERANCE = 1e-2


class DetectorGraph(nn.Module):
    """The detector as a bundle holds it: uint8 pixels in, scores and distances out."""

    def __init__(self, model: CellDetector) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores (B, K, h, w) and boxes (B, 4, h, w) of pixels (B, H, W, 3)."""
        outputs = self.model(image.permute(0, 3, 1, 2).float())
        return outputs["kinds"].sigmoid(), outputs["boxes"]


class ClassifierGraph(nn.Module):
    """The reader as a bundle holds it: uint8 crops in, logits and novelty out.

    Args:
        model: a trained reader.
        confirms: whether it was taught what is no nucleated cell, and is to say so.
    """

    def __init__(self, model: CellClassifierNet, confirms: bool = False) -> None:
        super().__init__()
        self.model = model
        self.outputs = ("classes", "attributes", "novelty", *(["nucleated"] if confirms else ()))

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """Return, of crops (N, S, S, 3), the outputs.

        They are classes (N, leaves), attributes (N, values), novelty (N,) and nucleated (N,).
        """
        told = self.model(crops.permute(0, 3, 1, 2).float())
        told["novelty"] = self.model.novelty(told["description"])
        return tuple(told[name] for name in self.outputs)


@dataclass(frozen=True)
class TrainedNetwork:
    """One trained network and the record of its run."""

    graph: nn.Module
    run: dict[str, Any]
    metrics: dict[str, float]


@dataclass(frozen=True)
class BundleInfo:
    """What a person says of a bundle: name, licence of the weights, evaluation results."""

    name: str
    licence: str
    metrics: dict[str, Any]


def to_onnx(graph: nn.Module, example: Tensor, names: tuple[str, Sequence[str]]) -> bytes:
    """Return a graph as ONNX bytes; the batch and, for the detector, the image size stay free."""
    first, outputs = names
    axes: dict[str, dict[int, str]] = {first: {0: "n"}}
    if first == "image":
        axes[first] |= {1: "height", 2: "width"}
        axes |= {name: {0: "n", 2: "rows", 3: "columns"} for name in outputs}
    else:
        axes |= {name: {0: "n"} for name in outputs}
    buffer = io.BytesIO()
    graph.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns of sizes that are constant on purpose
        torch.onnx.export(
            graph,
            (example,),
            buffer,  # type: ignore[arg-type]
            input_names=[first],
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    return fuse_padding(buffer.getvalue())


def fuse_padding(model: bytes) -> bytes:
    """Fold every padding with constant zeros that only one convolution reads into that one.

    A "SAME" convolution pads more on one side than on the other. It leaves torch as two nodes, and
    ONNX Runtime then copies the whole map to pad it; an ONNX `Conv` takes four unlike sides itself.
    """
    import onnx

    proto = onnx.load_from_string(model)
    graph = proto.graph
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        users = [node for node in graph.node if pad.output[0] in node.input]
        shown = any(pad.output[0] == output.name for output in graph.output)
        sides = _zero_sides(graph, pad)
        if sides is None or shown or len(users) != 1 or not _pads_itself(users[0], pad.output[0]):
            continue
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in users[0].attribute}
        before = attributes.get("pads", [0, 0, 0, 0])
        total = [a + b for a, b in zip(before, sides, strict=True)]
        for old in [a for a in users[0].attribute if a.name == "pads"]:
            users[0].attribute.remove(old)
        users[0].attribute.append(onnx.helper.make_attribute("pads", total))
        users[0].input[0] = pad.input[0]
        graph.node.remove(pad)
    _drop_unread(graph)
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


def _pads_itself(node: Any, data: str) -> bool:
    """Whether a node is a convolution of that data (not by it) with paddings of its own."""
    automatic = [a.s for a in node.attribute if a.name == "auto_pad"]
    return (
        node.op_type == "Conv"
        and list(node.input).count(data) == 1
        and node.input[0] == data
        and automatic in ([], [b"NOTSET"])
    )


def _constant(graph: Any, name: str) -> NDArray[Any] | None:
    """Work out a value that depends on no input, `None` if it does."""
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


def _drop_unread(graph: Any) -> None:
    """Remove nodes and constants whose results nobody reads."""
    while True:
        read = {name for node in graph.node for name in node.input}
        read |= {output.name for output in graph.output}
        dead = [node for node in graph.node if not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    for tensor in [t for t in graph.initializer if t.name not in read]:
        graph.initializer.remove(tensor)


def export_bundle(
    out: Path,
    detector: TrainedNetwork,
    reader: TrainedNetwork,
    thresholds: dict[str, float],
    calibration: ReaderCalibration,
    labels: BundleInfo,
    probes: tuple[Sequence[NDArray[np.uint8]], NDArray[np.uint8]],
) -> dict[str, float]:
    """Write a bundle folder, after proving that both graphs compute what torch does.

    Args:
        out: the folder; an existing bundle there is replaced, anything else is refused.
        detector, reader: trained, their graphs in evaluation mode.
        thresholds: lowest score by kind.
        calibration: of the reader.
        labels: name, licence, metrics.
        probes: padded canonical images (H, W, 3), and crops (n, S, S, 3), for the proof.

    Returns:
        the largest differences between torch and ONNX Runtime.

    Raises:
        BundleError: if they differ by more than rounding; nothing is written then.
        ConfigError: if `out` holds something that is no bundle.
    """
    _refuse_strangers(out)
    images, crops = probes
    first = torch.from_numpy(images[0][None])
    graphs = {
        DETECTOR_FILE: to_onnx(detector.graph, first, ("image", ("scores", "boxes"))),
        CLASSIFIER_FILE: to_onnx(
            reader.graph,
            torch.from_numpy(crops[:2]),
            ("crops", classifier_outputs(reader.graph)),
        ),
    }
    parity = detector_parity(detector.graph, graphs[DETECTOR_FILE], images, thresholds)
    parity |= classifier_parity(reader.graph, graphs[CLASSIFIER_FILE], crops)
    manifest = _manifest(detector, reader, thresholds, calibration, labels, graphs, parity)
    manifest.write(out, graphs)
    return parity


def _refuse_strangers(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        known = json.loads((out / MANIFEST).read_bytes())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ConfigError(f"{out}: is there and is no bundle; choose another --out")


def detector_parity(
    graph: nn.Module,
    onnx: bytes,
    images: Sequence[NDArray[np.uint8]],
    thresholds: dict[str, float],
) -> dict[str, float]:
    """Return the largest differences in scores and boxes, dense and after decoding."""
    session = open_session(onnx, Path(DETECTOR_FILE), "cpu", 1)
    scores, boxes = [], []
    for image in images:
        with torch.no_grad():
            ours = [t.numpy()[0] for t in graph(torch.from_numpy(image[None]))]
        theirs = [a[0] for a in session.run(["scores", "boxes"], {"image": image[None]})]
        scores.append(np.abs(ours[0] - theirs[0]).max())
        boxes.append(np.abs(ours[1] - theirs[1]).max())
        limits = list(thresholds.values())
        a, b = (decode(s, d, CellDetector.stride, limits, NMS_IOU) for s, d in (ours, theirs))
        _same(a, b)
    # Unlike Python's `max`, numpy's lets a NaN through, which `_within` refuses.
    worst = {"score": float(np.max(scores)), "box_px": float(np.max(boxes))}
    _within(worst["score"], SCORE_TOLERANCE, "scores")
    _within(worst["box_px"], BOX_TOLERANCE, "boxes")
    return worst


def classifier_parity(graph: nn.Module, onnx: bytes, crops: NDArray[np.uint8]) -> dict[str, float]:
    """Return the largest differences in logits and novelty."""
    session = open_session(onnx, Path(CLASSIFIER_FILE), "cpu", 1)
    with torch.no_grad():
        ours = [t.numpy() for t in graph(torch.from_numpy(crops))]
    names = classifier_outputs(graph)
    theirs = session.run(list(names), {"crops": crops})
    worst = {
        name: float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))
        for name, a, b in zip(names, ours, theirs, strict=True)
    }
    for name, value in worst.items():
        _within(value, LOGIT_TOLERANCE, name)
    return worst


def classifier_outputs(graph: nn.Module) -> tuple[str, ...]:
    """Return the names of a reader graph's outputs, in order."""
    assert isinstance(graph, ClassifierGraph)
    return graph.outputs


def _within(value: float, tolerance: float, what: str) -> None:
    if not value <= tolerance:
        raise BundleError(
            f"export: {what} of torch and ONNX Runtime differ by {value:.3g} "
            f"(tolerance {tolerance:g}); the bundle is not written"
        )


def _same(a: Detections, b: Detections) -> None:
    """Refuse decoded detections that differ by more than one borderline score in a hundred."""
    if abs(len(a) - len(b)) > max(1, len(a) // 100):
        raise BundleError(
            f"export: torch finds {len(a)} cells where ONNX Runtime finds {len(b)}; "
            "the bundle is not written"
        )


def _manifest(
    detector: TrainedNetwork,
    reader: TrainedNetwork,
    thresholds: dict[str, float],
    calibration: ReaderCalibration,
    labels: BundleInfo,
    graphs: dict[str, bytes],
    parity: dict[str, float],
) -> Manifest:
    digest = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    content = {
        "format": FORMAT,
        "version": VERSION,
        "name": labels.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": labels.licence,
        "taxonomy": reader.run["taxonomy"],
        "schema": reader.run["schema"],
        "object_types": detector.run["kinds"],
        "roles": {"classified": CLASSIFIED_TYPE, "ruler": RULER_TYPE},
        "leaves": reader.run["leaves"],
        "untrained": reader.run["unlearnt"],
        "detector": {
            "file": DETECTOR_FILE,
            "sha256": digest[DETECTOR_FILE],
            "um_per_px": detector.run["um_per_px"],
            "background": BACKGROUND,
            "stride": CellDetector.stride,
            "multiple": 32,
            "thresholds": thresholds,
            "vote_thresholds": thresholds,
            "nms_iou": NMS_IOU,
            "tile": TILE,
            "overlap": OVERLAP,
        },
        "classifier": {
            "file": CLASSIFIER_FILE,
            "sha256": digest[CLASSIFIER_FILE],
            "size": reader.run["size"],
            "um_per_px": reader.run["um_per_px"],
            "background": BACKGROUND,
            **({"colours": reader.run["colours"]} if reader.run.get("colours") else {}),
            "verifies": reader.run.get("confirms", False),
            "temperatures": calibration.temperatures,
            "class_confidence": calibration.class_confidence,
            "attribute_confidence": calibration.attribute_confidence,
            "novelty_threshold": calibration.novelty_threshold,
        },
        "training": {
            "bloodfilm": __version__,
            "detector": {k: detector.run[k] for k in ("config", "sources")},
            "classifier": {k: reader.run[k] for k in ("config", "sources")},
            "priors": reader.run.get("priors", {}),
        },
        "metrics": {
            "validation": {
                "detector": detector.metrics,
                "classifier": reader.metrics,
                "calibration": calibration.metrics,
            },
            "parity": {k: float(f"{v:.3g}") for k, v in parity.items()},
            **labels.metrics,
        },
    }
    return Manifest.model_validate(content)
