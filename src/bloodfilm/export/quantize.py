"""Post-training int8 quantisation of a bundle's networks, checked against the float networks."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import boxes as geometry
from bloodfilm.core.arrays import Pixels
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import BundleError
from bloodfilm.evaluation.matching import match
from bloodfilm.inference.bundle import load_bundle, open_session
from bloodfilm.inference.decode import DecodeParameters, decode
from bloodfilm.inference.manifest import DetectorSpec, Manifest

MIN_AGREEMENT = 0.95
"""F1 of the int8 detections against the float ones at IoU 0.5, over the probe images."""
MIN_IOU = 0.9
"""Mean IoU of the matched boxes."""
MIN_ANSWER_AGREEMENT = 0.97
"""Share of the predicted classes and attribute values that are unchanged."""
MAX_NOVELTY_SHIFT = 0.15
"""Largest relative change of the mean novelty; its threshold moves with it."""
MIN_MASK_AGREEMENT = 0.98
"""Mean Dice of the eight-bit masks of cells, and of nuclei, against the float ones."""
FLOAT_OPERATIONS = ("Softplus", "Sigmoid")
WIDE = 192
"""Minimum input channels of a pointwise convolution of the classifier to be quantised.

Narrower ones come first in the network: their feature maps are the largest and carry the finest
texture, and they gain least. With all of them quantised one class in thirty changes, at no gain in
speed.
"""

Answers = dict[str, NDArray[np.float32]]


class _Images:
    """Calibration data for the quantizer: images, one at a time."""

    def __init__(self, name: str, images: Sequence[Pixels]) -> None:
        self.name = name
        self.left: Iterator[Pixels] = iter(images)

    def get_next(self) -> dict[str, Pixels] | None:
        """Return the next input, `None` after the last."""
        image = next(self.left, None)
        return None if image is None else {self.name: image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of the quantizer."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def quantize_detector(model: bytes, images: Sequence[Pixels]) -> bytes:
    """Return a detector graph with eight-bit convolutions, calibrated on images (H, W, 3).

    The first convolution and the output heads stay in floating point.
    """

    def kept(graph: Any) -> list[str]:
        first = next(node.name for node in graph.node if node.op_type == "Conv")
        floats = [n.name for n in graph.node if "_head" in n.name or n.op_type in FLOAT_OPERATIONS]
        return [first, *floats]

    return _quantize(model, _Images("image", images), kept)


def quantize_classifier(model: bytes, crops: Sequence[Pixels]) -> bytes:
    """Return a classifier graph with its wide pointwise convolutions in eight bits.

    Args:
        model: the float graph.
        crops: (S, S, 3) each, to calibrate on.
    """

    def kept(graph: Any) -> list[str]:
        channels = {
            t.name: max(t.dims[:2]) for t in graph.initializer if tuple(t.dims[2:]) == (1, 1)
        }
        return [
            node.name
            for node in graph.node
            if node.op_type != "Conv" or channels.get(node.input[1], 0) < WIDE
        ]

    return _quantize(model, _Images("crops", crops), kept)


def quantize_outlines(model: bytes, crops: Sequence[Pixels]) -> tuple[bytes, dict[str, float]]:
    """Return an outline graph with eight-bit convolutions, and `int8_outlines`, how far it agrees.

    The first convolution and the output head stay in floating point. The agreement is the lower of
    two mean Dice coefficients against the masks of the float graph, of cells and of nuclei.

    Args:
        model: the float graph.
        crops: (S, S, 3) each, to calibrate on and to compare on.

    Raises:
        BundleError: if they differ too much.
    """

    def kept(graph: Any) -> list[str]:
        convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
        return [convolutions[0], convolutions[-1]]

    small = _quantize(model, _Images("crops", crops), kept)
    first, second = (_masks(graph, crops) for graph in (model, small))
    both = 2 * np.count_nonzero(first & second, axis=(2, 3)) + 1
    either = np.count_nonzero(first, axis=(2, 3)) + np.count_nonzero(second, axis=(2, 3)) + 1
    figures = {"int8_outlines": float((both / either).mean(axis=0).min())}
    _require("outline network", figures, figures["int8_outlines"] >= MIN_MASK_AGREEMENT)
    return small, figures


def _masks(model: bytes, crops: Sequence[Pixels]) -> NDArray[np.bool_]:
    session = open_session(model, Path("outlines.onnx"), "cpu", 1)
    maps = [session.run(["maps"], {"crops": crop[None]})[0] for crop in crops]
    return np.asarray(np.concatenate(maps) > 0)


def _quantize(model: bytes, images: _Images, kept: Callable[[Any], list[str]]) -> bytes:
    """Return a graph in eight bits but for the nodes that `kept` names.

    Weights use seven bits, so that sums cannot overflow on processors without instructions for
    this.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (Path(folder) / f"{n}.onnx" for n in ("plain", "ready", "done"))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        quantize_static(
            str(ready),
            str(done),
            images,
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept(onnx.load(str(ready)).graph),
        )
        return done.read_bytes()


def quantize_bundle(
    folder: Path, images: Sequence[Pixels] | None, crops: Sequence[Pixels] | None
) -> dict[str, float]:
    """Replace a bundle's networks by their eight-bit forms, if these agree with the float ones.

    Args:
        folder: a bundle with float networks.
        images: padded canonical images (H, W, 3), to calibrate on and to compare on; `None` leaves
            the detector as it is.
        crops: (S, S, 3) each, likewise; `None` leaves the classifier as it is.

    Returns:
        `int8_agreement` (F1) and `int8_iou` (mean IoU of what both find) of the detector,
        `int8_answers` (share of equal ones) and `int8_novelty` (its change) of the classifier.

    Raises:
        BundleError: if they differ too much; the bundle is left as it was.
    """
    manifest = load_bundle(folder).manifest
    detector = manifest.detector
    graphs: dict[str, bytes] = {}
    found: dict[str, float] = {}
    if images is not None:
        plain = (folder / detector.file).read_bytes()
        graphs[detector.file] = quantize_detector(plain, images)
        found |= detection_agreement(
            *(_detections(g, images, detector) for g in (plain, graphs[detector.file]))
        )
        good = found["int8_agreement"] >= MIN_AGREEMENT and found["int8_iou"] >= MIN_IOU
        _require("detector", found, good)
    if crops is not None:
        answers = _quantize_classifier_of(manifest, folder, crops, graphs)
        manifest = with_novelty_moved(manifest, answers["int8_novelty"])
        found |= answers
    parity = {k: round(v, 4) for k, v in found.items()}
    manifest.with_figures(parity=parity).write(folder, graphs)
    return found


def _quantize_classifier_of(
    manifest: Manifest, folder: Path, crops: Sequence[Pixels], graphs: dict[str, bytes]
) -> dict[str, float]:
    """Add the classifier's eight-bit graph to `graphs`; return how far it agrees."""
    name = manifest.classifier.file
    plain = (folder / name).read_bytes()
    graphs[name] = quantize_classifier(plain, crops)
    trained = [
        where
        for attribute, where in manifest.attributes.slices.items()
        if attribute not in manifest.untrained.attributes
    ]
    answers = answer_agreement(_answers(plain, crops), _answers(graphs[name], crops), trained)
    _require(
        "classifier",
        answers,
        answers["int8_answers"] >= MIN_ANSWER_AGREEMENT
        and abs(answers["int8_novelty"]) <= MAX_NOVELTY_SHIFT,
    )
    return answers


def with_novelty_moved(manifest: Manifest, shift: float) -> Manifest:
    """Move the threshold of novelty, set on the float classifier, as far as novelty has moved."""
    threshold = manifest.classifier.novelty_threshold
    if threshold is None:
        return manifest
    moved = {"novelty_threshold": threshold * (1 + shift)}
    return manifest.model_copy(update={"classifier": manifest.classifier.model_copy(update=moved)})


def _require(part: str, figures: dict[str, float], good: bool) -> None:
    if not good:
        raise BundleError(
            f"export: the eight-bit {part} agrees with the float one by {figures}; "
            "export without --int8"
        )


def _detections(model: bytes, images: Sequence[Pixels], spec: DetectorSpec) -> list[Detections]:
    session = open_session(model, Path(spec.file), "cpu", 1)
    parameters = DecodeParameters(
        stride=spec.stride, thresholds=list(spec.thresholds.values()), nms_iou=spec.nms_iou
    )
    out = []
    for image in images:
        scores, boxes = session.run(["scores", "boxes"], {"image": image[None]})
        out.append(decode(scores[0], boxes[0], parameters))
    return out


def _answers(model: bytes, crops: Sequence[Pixels]) -> Answers:
    session = open_session(model, Path("classifier.onnx"), "cpu", 1)
    names = ["classes", "attributes", "novelty"]
    found = [session.run(names, {"crops": crop[None]}) for crop in crops]
    return dict(zip(names, map(np.concatenate, zip(*found, strict=True)), strict=True))


def detection_agreement(
    first: Sequence[Detections], second: Sequence[Detections]
) -> dict[str, float]:
    """Return F1 at IoU 0.5 of the second's detections against the first's, and their mean IoU."""
    pairs, total, overlaps = 0, 0, [np.zeros(0)]
    for a, b in zip(first, second, strict=True):
        total += len(a) + len(b)
        for kind in np.union1d(a.type_ids, b.type_ids):
            p, q = a.take(a.type_ids == kind), b.take(b.type_ids == kind)
            found = match(p.boxes, q.boxes, q.scores, 0.5).pairs
            pairs += len(found)
            if found:
                i, j = np.array(found).T
                overlaps.append(geometry.iou(p.boxes[i], q.boxes[j]).diagonal())
    every = np.concatenate(overlaps)
    return {
        "int8_agreement": 2 * pairs / total if total else 1.0,
        "int8_iou": float(every.mean()) if len(every) else 1.0,
    }


def answer_agreement(first: Answers, second: Answers, values: Sequence[slice]) -> dict[str, float]:
    """Return the share of equal classes and attributes, and the relative change of mean novelty.

    Args:
        first, second: logits `classes` (n, leaves) and `attributes` (n, values), `novelty` (n,).
        values: where the values of each attribute lie.
    """
    columns = [("classes", slice(None)), *(("attributes", where) for where in values)]
    alike = [
        first[name][:, where].argmax(1) == second[name][:, where].argmax(1)
        for name, where in columns
    ]
    moved = second["novelty"].mean() / max(float(first["novelty"].mean()), 1e-12) - 1
    return {"int8_answers": float(np.mean(alike)), "int8_novelty": float(moved)}
