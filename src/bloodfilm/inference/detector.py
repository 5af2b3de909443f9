"""The detector on canonical images: cut, pad, run, decode, join. For ONNX and torch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Image
from bloodfilm.core.detections import Detections
from bloodfilm.imaging.tiles import pad, plan_tiles
from bloodfilm.inference.aggregate import aggregate
from bloodfilm.inference.decode import DecodeParameters, decode
from bloodfilm.inference.graph_run import check_probabilities, run_graph
from bloodfilm.inference.manifest import DetectorSpec

LOWEST_SCORE = 0.02
"""Lower scores are never considered: they occur everywhere, and nearly all are false."""

Dense = tuple[NDArray[np.float32], NDArray[np.float32]]
Timer = Callable[[str], AbstractContextManager[None]]


class DetectorBackend(Protocol):
    """A detector network, independent of the runtime."""

    def __call__(self, image: Image) -> Dense:
        """Return scores (K, h, w) and distances (4, h, w) of one padded image (H, W, 3)."""


class OnnxBackend:
    """A bundle's detector graph in ONNX Runtime; refuses outputs the format does not allow.

    Args:
        session: of ONNX Runtime.
        spec: of the detector.
        types: number of object types.
    """

    def __init__(self, session: Any, spec: DetectorSpec, types: int) -> None:
        self._session = session
        self._spec = spec
        self._types = types

    def __call__(self, image: Image) -> Dense:
        """Return scores (K, h, w) and distances (4, h, w); `BundleError` for invalid ones."""
        rows, columns = (n // self._spec.stride for n in image.shape[:2])
        shapes = {"scores": (1, self._types, rows, columns), "boxes": (1, 4, rows, columns)}
        scores, boxes = run_graph(self._session, self._spec.file, {"image": image[None]}, shapes)
        check_probabilities(scores, self._spec.file, "scores")
        return scores[0], boxes[0]


@dataclass(frozen=True, kw_only=True)
class DetectionParameters:
    """How an image is cut and dense outputs are decoded: see `DetectorSpec`.

    Attributes:
        decoding: of the outputs; nothing below `LOWEST_SCORE` is returned, whatever its thresholds.
        multiple: images are padded to whole multiples of it.
        tile, overlap: side of the crops, canonical pixels; `None` takes every image whole.
    """

    decoding: DecodeParameters
    multiple: int
    tile: int | None = None
    overlap: int = 0

    @classmethod
    def of_spec(
        cls,
        spec: DetectorSpec,
        types: Sequence[str],
        thresholds: Mapping[str, float],
        max_per_tile: int,
    ) -> Self:
        """Return a bundle's parameters with thresholds by object type."""
        decoding = DecodeParameters(
            stride=spec.stride,
            thresholds=[thresholds[name] for name in types],
            vote_thresholds=[spec.vote_thresholds[name] for name in types],
            nms_iou=spec.nms_iou,
            pre_nms_top_k=spec.pre_nms_top_k,
            max_detections=max_per_tile,
            cross_iou=None,
        )
        return cls(decoding=decoding, multiple=spec.multiple, tile=spec.tile, overlap=spec.overlap)


class Detector:
    """Finds objects in canonical images.

    Args:
        backend: runs the network.
        parameters: how its input is cut and its outputs are decoded.
    """

    def __init__(self, backend: DetectorBackend, parameters: DetectionParameters) -> None:
        self._backend = backend
        self._parameters = parameters
        lowest = [max(t, LOWEST_SCORE) for t in parameters.decoding.thresholds]
        self._decoding = replace(parameters.decoding, thresholds=lowest)

    def detect(self, image: Image, timer: Timer = lambda _: nullcontext()) -> Detections:
        """Return the detections in a canonical image (H, W, 3), in its pixels, best first."""
        p = self._parameters
        height, width = image.shape[:2]
        tiles = plan_tiles(width, height, p.tile or max(width, height), p.overlap if p.tile else 0)
        parts = []
        for tile in tiles:
            with timer("detect"):
                scores, boxes = self._backend(pad(tile.crop(image), p.multiple))
            with timer("decode"):
                parts.append(decode(scores, boxes, self._decoding))
        with timer("decode"):
            return aggregate(tiles, parts, self._decoding.nms_iou, self._decoding.vote_thresholds)
