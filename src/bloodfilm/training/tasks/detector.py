"""Training of the cell detector on boxes, in canonical pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core import Box, Cell, CellResult, Field
from bloodfilm.core.detections import Detections
from bloodfilm.core.progress import Progress
from bloodfilm.evaluation.class_granularity import ClassGranularity
from bloodfilm.evaluation.detection import coco_scores, prepare
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.decode import DecodeParameters
from bloodfilm.inference.detector import LOWEST_SCORE, Dense, DetectionParameters, Detector
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config
from bloodfilm.training.data.canonical_fields import (
    CanonicalField,
    FieldLoader,
    refuse_empty_validation,
)
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.mosaics import Mosaics
from bloodfilm.training.data.samplers import Sampler, ShardedSampler
from bloodfilm.training.data.sharded import FieldStream, with_annotation
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.networks import build_detector
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.common import start_network, to_tensor
from bloodfilm.training.vocabulary import Vocabulary

MULTIPLE = 32
NMS_IOU = 0.6
VOTE_THRESHOLD = 0.3
"""Lowest scores for box voting before thresholds are calibrated."""
START_IMAGES = 24
"""Training images by which the batch statistics of pretrained weights are measured."""
LOSS_TERMS = ("object_type", "box", "edge")


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
            outputs["types"][0].sigmoid().float().cpu().numpy(),
            outputs["boxes"][0].float().cpu().numpy(),
        )


def detect(
    model: CellDetector, image: NDArray[np.uint8], device: torch.device, lowest: float
) -> Detections:
    """Run a detector on one canonical image; detections in its pixels, best first."""
    decoding = DecodeParameters(
        stride=model.stride,
        thresholds=[lowest] * model.types,
        vote_thresholds=[VOTE_THRESHOLD] * model.types,
        nms_iou=NMS_IOU,
    )
    parameters = DetectionParameters(decoding=decoding, multiple=MULTIPLE)
    return Detector(TorchBackend(model, device), parameters).detect(image)


class DetectionTaskBase:
    """What all tasks share that train a detector: validation and record.

    Args:
        config: of the run.
        validation: fields at the detector's scale.
        run: vocabulary and record of the data.
    """

    score_name = "ap"

    def __init__(self, config: Config, validation: Sequence[CanonicalField], run: RunData) -> None:
        self.config, self.validation, self.run = config, validation, run
        torch.manual_seed(config.seed)
        self.network = build_detector(config, run.vocabulary)

    @property
    def model(self) -> CellDetector:
        """The detector."""
        return self.network

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the configuration."""
        weights = self.config.loss.model_dump()
        return {name: weights[name] for name in LOSS_TERMS}

    def validate(self, model: CellDetector, device: torch.device) -> dict[str, float]:
        """Return COCO AP on the validation fields, in canonical pixels, over the object types."""
        fields = self.validation
        return self.judge(model, [detect(model, f.image, device, LOWEST_SCORE) for f in fields])

    def judge(self, model: CellDetector, found: Sequence[Detections]) -> dict[str, float]:
        """Return the metrics of what a model found on the validation fields."""
        return score_detections(self.validation, found, self.run.vocabulary)

    def finish(self, model: CellDetector, device: torch.device) -> None:
        """Nothing is left to set."""

    def record(self) -> dict[str, Any]:
        """Return vocabulary, data and sizes."""
        return {"um_per_px": DETECTOR_UM, **self.run.record()}


@dataclass(frozen=True)
class DetectionBatch:
    """Training images (B, 3, S, S) and their targets."""

    images: Tensor
    target: TargetBatch

    @property
    def domain(self) -> Tensor:
        """Index of each image's domain (B,), -1 for several or an unknown one."""
        return self.target.domain


@dataclass(frozen=True)
class MosaicSamples:
    """Training images by number.

    Attributes:
        mosaics: draws them.
        count: how many an epoch has.
    """

    mosaics: Mosaics
    count: int

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the numbers of an epoch's images; there is nothing to shuffle."""
        return [(epoch, i) for i in range(self.count)]

    def sample(self, key: Key) -> tuple[NDArray[np.uint8], Target]:
        """Draw one mosaic."""
        return self.mosaics[key]

    def collate(self, samples: Sequence[tuple[NDArray[np.uint8], Target]]) -> DetectionBatch:
        """Stack images, pad targets."""
        images, targets = zip(*samples, strict=True)
        return DetectionBatch(to_tensor(images), TargetBatch.collate(targets))


class DetectorTask(DetectionTaskBase):
    """Finds objects of the vocabulary's types in fully annotated fields, or in their regions.

    Args:
        config: of the run.
        samples: training images.
        validation: fields at the detector's scale; one of them at least has a box.
        run: vocabulary and record of the data.
    """

    def __init__(
        self,
        config: Config,
        samples: MosaicSamples,
        validation: Sequence[CanonicalField],
        run: RunData,
    ) -> None:
        super().__init__(config, validation, run)
        self.samples = samples

    @classmethod
    def from_config(cls, config: Config, root: Path, progress: Progress) -> "DetectorTask":
        """Open and load the data of a configuration, and the weights it starts from.

        Raises:
            ConfigError: where the data are missing, leak, or hold nothing to learn or to judge by.
        """
        train = open_sources(config.data.train, root)
        validation = open_sources(config.data.validation, root)
        run = RunData.of_sources(config, root, [train], [validation])
        sampler, count = make_sampler(with_annotation(train), config, run, progress)
        stains = run.vocabulary.stain_types
        mosaics = Mosaics(
            sampler,
            config.data.size,
            config.augment,
            config.seed,
            stains=stains,
            aimed_at=run.vocabulary.classified_id,
        )
        loader = FieldLoader(run.vocabulary, DETECTOR_UM)
        fields = loader.load_all(with_annotation(validation), progress)
        refuse_empty_validation(fields)
        task = cls(config, MosaicSamples(mosaics, count), fields, run)
        start_network(task.network, config, root, (mosaics[0, i][0] for i in range(START_IMAGES)))
        return task

    def losses(
        self, model: CellDetector, batch: DetectionBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the object type, box and edge terms."""
        images = batch.images.to(device, memory_format=torch.channels_last)
        return detection_loss(model(images), batch.target.to(device), self.network.stride)


def make_sampler(
    train: Sequence[SourcedField], config: Config, run: RunData, progress: Progress
) -> tuple[Sampler | Sequence[CanonicalField], int]:
    """Return what mosaics are made of, and how many an epoch has: as many as the fields fill."""
    oversampled, scale = DETECTOR_UM / Mosaics.oversampling, Mosaics.oversampling**2
    area, samples = scale * config.data.size**2, config.optim.samples
    loader = FieldLoader(run.vocabulary, oversampled, run.domains)
    if isinstance(train, FieldStream):
        stains = run.vocabulary.stain_types if config.augment.recolour > 0 else None
        sampler = ShardedSampler(
            train, loader, area=area, samples=samples, seed=config.seed, stains=stains
        )
        return sampler, sampler.samples
    fields = loader.load_all(train, progress)
    whole = sum(f.image.shape[0] * f.image.shape[1] for f in fields)
    return fields, samples or max(1, round(whole / area))


# ---- scores ----------------------------------------------------------------------------------


def score_detections(
    fields: Sequence[CanonicalField], found: Sequence[Detections], vocabulary: Vocabulary
) -> dict[str, float]:
    """Return AP, AP50 and each object type's figures, boxes being in canonical pixels."""
    return score_results(fields, [_results(d, vocabulary) for d in found], vocabulary)


def score_results(
    fields: Sequence[CanonicalField],
    results: Sequence[Sequence[CellResult]],
    vocabulary: Vocabulary,
) -> dict[str, float]:
    """Return the same of an analyser's results, boxes being in the fields' pixels."""
    level = ClassGranularity("detector", vocabulary.object_types, vocabulary.taxonomy)
    annotated = [_annotated(f, vocabulary) for f in fields]
    scores = coco_scores(prepare(annotated, results, level))
    metrics = {"ap": scores.ap, "ap50": scores.ap50}
    for kind, values in scores.per_class.items():
        name = kind.replace(" ", "_")
        metrics[f"{name}_ap"], metrics[f"{name}_ap50"] = values["ap"], values["ap50"]
    return metrics


def _annotated(item: CanonicalField, vocabulary: Vocabulary) -> Field:
    types = vocabulary.object_types
    named = [Cell(_box(b), types[k]) for b, k in zip(item.boxes, item.type_ids, strict=True)]
    ignored = [Cell(_box(b), None, ignore=True) for b in item.ignore]
    return Field(Path(), cells=tuple(named + ignored), region=item.region)


def _results(found: Detections, vocabulary: Vocabulary) -> list[CellResult]:
    types = vocabulary.object_types
    return [
        CellResult(_box(box), float(score), types[number], types[number], float(score))
        for box, score, number in zip(found.boxes, found.scores, found.type_ids, strict=True)
    ]


def _box(box: NDArray[np.float64]) -> Box:
    x, y, w, h = (float(v) for v in box)
    return x, y, w, h
