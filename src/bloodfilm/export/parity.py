"""Proof that a graph in ONNX Runtime computes what the network does in torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import BundleError
from bloodfilm.export.onnx_graphs import ClassifierGraph, DetectorGraph, OutlineGraph
from bloodfilm.inference.bundle import open_session
from bloodfilm.inference.decode import DecodeParameters, decode
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.tasks.detector import NMS_IOU

SCORE_TOLERANCE = 1e-3
BOX_TOLERANCE = 0.05
LOGIT_TOLERANCE = 1e-2


def detector_parity(
    graph: DetectorGraph,
    onnx: bytes,
    images: Sequence[NDArray[np.uint8]],
    thresholds: dict[str, float],
) -> dict[str, float]:
    """Return the largest differences in scores and boxes, dense and after decoding.

    Args:
        graph: in evaluation mode; onnx: its exported form.
        images: padded canonical images (H, W, 3).
        thresholds: lowest score by object type, in the order of the graph's scores.

    Raises:
        BundleError: if they exceed the tolerances.
    """
    session = open_session(onnx, Path("detector.onnx"), "cpu", 1)
    parameters = DecodeParameters(
        stride=CellDetector.stride, thresholds=list(thresholds.values()), nms_iou=NMS_IOU
    )
    scores, boxes = [], []
    for image in images:
        with torch.no_grad():
            from_torch = [t.numpy()[0] for t in graph(torch.from_numpy(image[None]))]
        from_onnx = [a[0] for a in session.run(list(graph.outputs), {"image": image[None]})]
        scores.append(np.abs(from_torch[0] - from_onnx[0]).max())
        boxes.append(np.abs(from_torch[1] - from_onnx[1]).max())
        a, b = (decode(s, d, parameters) for s, d in (from_torch, from_onnx))
        _same(a, b)
    # numpy's `max`, unlike Python's, keeps a NaN, which `_within` refuses.
    worst = {"score": float(np.max(scores)), "box_px": float(np.max(boxes))}
    _within(worst["score"], SCORE_TOLERANCE, "scores")
    _within(worst["box_px"], BOX_TOLERANCE, "boxes")
    return worst


def crop_parity(
    graph: ClassifierGraph | OutlineGraph, onnx: bytes, crops: NDArray[np.uint8], file: str
) -> dict[str, float]:
    """Return the largest differences in each output, relative to the largest value.

    Args:
        graph: in evaluation mode; onnx: its exported form.
        crops: (n, S, S, 3).
        file: name of the graph's file, for messages.

    Raises:
        BundleError: if they exceed the tolerance.
    """
    session = open_session(onnx, Path(file), "cpu", 1)
    with torch.no_grad():
        from_torch = [t.numpy() for t in graph(torch.from_numpy(crops))]
    from_onnx = session.run(list(graph.outputs), {"crops": crops})
    worst = {
        name: float(np.abs(a - b).max() / max(1.0, float(np.abs(a).max())))
        for name, a, b in zip(graph.outputs, from_torch, from_onnx, strict=True)
    }
    for name, value in worst.items():
        _within(value, LOGIT_TOLERANCE, name)
    return worst


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
