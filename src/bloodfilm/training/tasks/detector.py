"""Training of the cell detector on boxes, in canonical pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core import DEFAULT_TAXONOMY, Box, Cell, CellResult, Field
from bloodfilm.core.detections import Detections
from bloodfilm.evaluation.class_granularity import parse_granularity
from bloodfilm.evaluation.detection import coco_scores, prepare
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.decode import DecodeParameters
from bloodfilm.inference.detector import LOWEST_SCORE, Dense, DetectionParameters, Detector
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.samplers import Sampler, ShardedSampler
from bloodfilm.training.data.sharded import FieldStream, with_annotation
from bloodfilm.training.data.sources import (
    OBJECT_TYPES,
    CanonicalField,
    Progress,
    SourcedField,
    check_split_disjoint,
    load_fields,
    open_sources,
)
from bloodfilm.training.networks import build_detector
from bloodfilm.training.tasks.base import Key
from bloodfilm.training.tasks.common import describe_sources, start_network, to_tensor

MULTIPLE = 32
NMS_IOU = 0.6
VOTE_THRESHOLD = 0.3
"""Scores from which boxes vote, as long as no thresholds have been chosen."""


class TorchBackend:
    """A detector in PyTorch, as `inference.detector.DetectorBackend` expects it."""

    def __init__(self, model: CellDetector, device: torch.device) -> None:
        self._model = model
        self._device = device

    @torch.no_grad()
    def __call__(self, image: NDArray[np.uint8]) -> Dense:
        """Return scores (K, h, w) and distances (4, h, w) of one padded image (H, W, 3)."""
        outputs = self._model(to_tensor([image]).to(self._device))
        return (
            outputs["kinds"][0].sigmoid().float().cpu().numpy(),
            outputs["boxes"][0].float().cpu().numpy(),
        )


def detect(
    model: CellDetector, image: NDArray[np.uint8], device: torch.device, lowest: float
) -> Detections:
    """Run a detector on one canonical image; detections in its pixels, best first."""
    decoding = DecodeParameters(
        stride=model.stride,
        thresholds=[lowest] * model.kinds,
        vote_thresholds=[VOTE_THRESHOLD] * model.kinds,
        nms_iou=NMS_IOU,
    )
    parameters = DetectionParameters(decoding=decoding, multiple=MULTIPLE)
    return Detector(TorchBackend(model, device), parameters).detect(image)


class DetectionTaskBase:
    """What all tasks share that train a detector: its judging and its record.

    Attributes:
        config: of the run.
        network: the detector in training.
        held: validation fields; samples: images an epoch.
        sources: what the data are, for the record.
        split: the proof that training and validation share nothing, for the record.
    """

    score_name = "ap"
    config: Config
    network: CellDetector
    held: Sequence[CanonicalField]
    samples: int
    sources: dict[str, list[dict[str, Any]]]
    split: dict[str, Any]

    @property
    def model(self) -> CellDetector:
        """The detector."""
        return self.network

    def keys(self, epoch: int) -> Sequence[Key]:
        """Images are numbered; there is nothing to shuffle."""
        return [(epoch, i) for i in range(self.samples)]

    def weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return loss terms times what the configuration weighs them by."""
        weights = self.config.loss.model_dump()
        return {name: term * weights[name] for name, term in terms.items()}

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return COCO AP on the validation fields, in canonical pixels, over the kinds."""
        assert isinstance(model, CellDetector)
        return self.judge(model, [detect(model, f.image, device, LOWEST_SCORE) for f in self.held])

    def judge(self, model: CellDetector, found: Sequence[Detections]) -> dict[str, float]:
        """Return the metrics of what a model found on the validation fields."""
        return score_detections(self.held, found)

    def finish(self, model: nn.Module, device: torch.device) -> None:
        """Nothing is left to set."""

    def record(self) -> dict[str, Any]:
        """Return vocabulary, data and sizes."""
        return {
            "object_types": list(OBJECT_TYPES),
            "um_per_px": DETECTOR_UM,
            "sources": self.sources,
            "split": self.split,
        }


class DetectorTask(DetectionTaskBase):
    """Finds nucleated cells, red cells and platelets."""

    def __init__(self, config: Config, root: Path, progress: Progress) -> None:
        self.config = config
        train = open_sources(config.data.train, root)
        held = open_sources(config.data.validation, root)
        self.split = check_split_disjoint(train, held)
        train, held = with_annotation(train), with_annotation(held)
        self.sources = {"train": describe_sources(train), "validation": describe_sources(held)}
        pool, self.samples = make_sampler(train, config, progress)
        self.held = load_fields(held, DETECTOR_UM, progress)
        self.mosaics = Mosaics(pool, config.data.size, config.augment, config.seed)
        torch.manual_seed(config.seed)
        self.network = build_detector(config)
        some = (self.mosaics[0, i][0] for i in range(24))
        start_network(self.network, config, root, some)

    def sample(self, key: Key) -> tuple[NDArray[np.uint8], Target]:
        """Draw one mosaic."""
        return self.mosaics[key]

    def collate(
        self, samples: Sequence[tuple[NDArray[np.uint8], Target]]
    ) -> tuple[Tensor, TargetBatch]:
        """Stack images, pad targets."""
        return to_tensor([s[0] for s in samples]), TargetBatch.collate([s[1] for s in samples])

    def losses(
        self, model: nn.Module, batch: tuple[Tensor, TargetBatch], device: torch.device
    ) -> dict[str, Tensor]:
        """Return the weighted kind, box and edge terms."""
        images, target = batch
        images = images.to(device, memory_format=torch.channels_last)
        return self.weighted(detection_loss(model(images), target.to(device), self.network.stride))


def make_sampler(
    train: Sequence[SourcedField], config: Config, progress: Progress
) -> tuple[Sampler | Sequence[CanonicalField], int]:
    """Return where mosaics come from, and how many an epoch has: as many as the fields fill."""
    um_per_px, scale = DETECTOR_UM / Mosaics.oversampling, Mosaics.oversampling**2
    area, samples = scale * config.data.size**2, config.optim.samples
    if isinstance(train, FieldStream):
        dyes = config.augment.recolour > 0
        pool = ShardedSampler(
            train, um_per_px, area=area, samples=samples, seed=config.seed, dyes=dyes
        )
        return pool, pool.samples
    fields = load_fields(train, um_per_px, progress)
    whole = sum(f.image.shape[0] * f.image.shape[1] for f in fields)
    return fields, samples or max(1, round(whole / area))


def score_detections(
    fields: Sequence[CanonicalField], found: Sequence[Detections]
) -> dict[str, float]:
    """Return AP, AP50 and each kind's figures, boxes being in canonical pixels."""
    return score_results(fields, [_results(d) for d in found])


def score_results(
    fields: Sequence[CanonicalField], results: Sequence[Sequence[CellResult]]
) -> dict[str, float]:
    """Return the same of an analyser's results, boxes being in the fields' pixels."""
    level = parse_granularity("detector", DEFAULT_TAXONOMY)
    scores = coco_scores(prepare([_truth(f) for f in fields], results, level))
    metrics = {"ap": scores.ap, "ap50": scores.ap50}
    for kind, values in scores.per_class.items():
        name = kind.replace(" ", "_")
        metrics[f"{name}_ap"], metrics[f"{name}_ap50"] = values["ap"], values["ap50"]
    return metrics


def _truth(item: CanonicalField) -> Field:
    named = [Cell(_box(b), OBJECT_TYPES[k]) for b, k in zip(item.boxes, item.kinds, strict=True)]
    ignored = [Cell(_box(b), None, ignore=True) for b in item.ignore]
    return Field(Path(), cells=tuple(named + ignored), region=item.region)


def _results(found: Detections) -> list[CellResult]:
    return [
        CellResult(_box(box), float(score), OBJECT_TYPES[kind], OBJECT_TYPES[kind], float(score))
        for box, score, kind in zip(found.boxes, found.scores, found.type_ids, strict=True)
    ]


def _box(box: NDArray[np.float64]) -> Box:
    x, y, w, h = (float(v) for v in box)
    return x, y, w, h
