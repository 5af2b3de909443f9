"""A detector in eight-bit integers: smaller, half as fast again on a CPU, and held to account."""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import boxes as geometry
from bloodfilm.core.errors import BundleError
from bloodfilm.evaluation.matching import match
from bloodfilm.inference.bundle import MANIFEST, open_session
from bloodfilm.inference.decode import Detections, decode
from bloodfilm.training.checkpoint import write_json

LEAST_AGREEMENT = 0.95
"""F1 of the eight-bit detections against the float ones at IoU 0.5, over the probes."""
LEAST_IOU = 0.9
"""Mean IoU of the boxes both find."""
FLOAT_OPERATIONS = ("Softplus", "Sigmoid")


class _Images:
    """Feeds a graph's calibration with images, one at a time."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self.left: Iterator[NDArray[np.uint8]] = iter(images)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Return the next input, `None` after the last."""
        image = next(self.left, None)
        return None if image is None else {"image": image[None]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the quantiser's advice, and nobody else's warnings afterwards."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def quantise(model: bytes, images: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return a detector graph with eight-bit convolutions, calibrated on images (H, W, 3).

    The first convolution and the output heads stay in floating point. Weights use seven bits, so
    that sums cannot overflow on processors without instructions for this.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _quiet(), tempfile.TemporaryDirectory() as folder:
        plain, ready, done = (Path(folder) / f"{n}.onnx" for n in ("plain", "ready", "done"))
        plain.write_bytes(model)
        quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
        nodes = onnx.load(str(ready)).graph.node
        first = next(node.name for node in nodes if node.op_type == "Conv")
        kept = [n.name for n in nodes if "_head" in n.name or n.op_type in FLOAT_OPERATIONS]
        quantize_static(
            str(ready),
            str(done),
            _Images(images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[first, *kept],
        )
        return done.read_bytes()


def quantise_bundle(folder: Path, images: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Replace a bundle's detector by its eight-bit form, if both find the same cells.

    Args:
        folder: a bundle with a float detector.
        images: padded canonical images, to calibrate on and to compare on.

    Returns:
        `int8_agreement` (F1) and `int8_iou` (mean IoU of what both find).

    Raises:
        BundleError: if they differ too much; the bundle is left as it was.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    spec = manifest["detector"]
    plain = (folder / spec["file"]).read_bytes()
    small = quantise(plain, images)
    found = agreement(_detections(plain, images, spec), _detections(small, images, spec))
    if found["int8_agreement"] < LEAST_AGREEMENT or found["int8_iou"] < LEAST_IOU:
        raise BundleError(
            f"export: the eight-bit detector agrees with the float one by {found}; "
            "export without --int8"
        )
    spec["sha256"] = hashlib.sha256(small).hexdigest()
    manifest["metrics"]["parity"] |= {k: round(v, 4) for k, v in found.items()}
    partial = folder / f"{spec['file']}.part"
    partial.write_bytes(small)
    partial.replace(folder / spec["file"])
    write_json(folder / MANIFEST, manifest)
    return found


def _detections(
    model: bytes, images: Sequence[NDArray[np.uint8]], spec: dict[str, Any]
) -> list[Detections]:
    session = open_session(model, Path(spec["file"]), "cpu", 1)
    limits = list(spec["thresholds"].values())
    out = []
    for image in images:
        scores, boxes = session.run(["scores", "boxes"], {"image": image[None]})
        out.append(decode(scores[0], boxes[0], spec["stride"], limits, spec["nms_iou"]))
    return out


def agreement(first: Sequence[Detections], second: Sequence[Detections]) -> dict[str, float]:
    """Return F1 at IoU 0.5 of the second's detections against the first's, and their mean IoU."""
    pairs, total, overlaps = 0, 0, [np.zeros(0)]
    for a, b in zip(first, second, strict=True):
        total += len(a) + len(b)
        for kind in np.union1d(a.kinds, b.kinds):
            p, q = a.take(a.kinds == kind), b.take(b.kinds == kind)
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
