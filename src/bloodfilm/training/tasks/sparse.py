"""Training of the cell detector where only regions of the fields are annotated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core import Region
from bloodfilm.core.attributes import Schema, schema_named
from bloodfilm.core.boxes import centres
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.decode import DecodeParameters, decode
from bloodfilm.losses.attributes import attribute_loss
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.attribute_heads import AttributeBranch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config
from bloodfilm.training.data.attribute_targets import (
    NUCLEATED_KIND,
    add_attribute_targets,
    score_attributes,
)
from bloodfilm.training.data.copy_paste import CopyPasteSampler
from bloodfilm.training.data.mosaics import Mosaics, MosaicSample
from bloodfilm.training.data.region_crops import cut_regions, repeat_rare_types
from bloodfilm.training.data.samplers import InMemorySampler, Sampler
from bloodfilm.training.data.sources import (
    OBJECT_TYPES,
    CanonicalField,
    Progress,
    check_split_disjoint,
    load_fields,
    open_sources,
)
from bloodfilm.training.networks import build_detector
from bloodfilm.training.pseudo_labels import (
    LEAST_SCORE,
    Augmentation,
    PrecisionCalibrator,
    TeacherPrediction,
    pseudo_target,
    similarity_loss,
)
from bloodfilm.training.tasks.base import Key
from bloodfilm.training.tasks.common import describe_sources, start_network, to_tensor
from bloodfilm.training.tasks.detector import DetectionTaskBase

SIMILARITY_SHARE = 2 / 3
PATCHES, TURNS = 11, 12
"""Streams of chance beside the mosaics' own."""


@dataclass(frozen=True)
class Sample:
    """One training image, its turn for the teacher, and how far the run is, in [0, 1]."""

    drawn: MosaicSample
    turn: int
    progress: float


@dataclass(frozen=True)
class Batch:
    """Several samples.

    Attributes:
        images: (B, 3, S, S) as the student sees them; plain: as the teacher does, or `None`.
        marked: what people said.
        samples: where all this comes from.
    """

    images: Tensor
    plain: Tensor | None
    marked: TargetBatch
    samples: Sequence[Sample]

    @property
    def progress(self) -> float:
        """How far the run is."""
        return self.samples[0].progress


class SparseTask(DetectionTaskBase):
    """Finds cells from regions of fields; a teacher labels the rest."""

    def __init__(self, config: Config, root: Path, progress: Progress) -> None:
        train = open_sources(config.data.train, root)
        held = open_sources(config.data.validation, root)
        proof = check_split_disjoint(train, held)
        held = [s for s in held if not s.field.region.is_nothing]
        schema = schema_named(config.data.schemas)
        then = (
            (lambda f, s: add_attribute_targets(f, s, schema)) if config.sparse.attributes else None
        )
        self._build(
            config,
            root,
            load_fields(train, DETECTOR_UM / Mosaics.oversampling, progress, then),
            load_fields(held, DETECTOR_UM, progress, then),
        )
        self.sources |= {"train": describe_sources(train), "validation": describe_sources(held)}
        self.split = proof

    @classmethod
    def on(
        cls,
        config: Config,
        root: Path,
        fields: Sequence[CanonicalField],
        held: Sequence[CanonicalField],
    ) -> "SparseTask":
        """Build the task on fields that are already loaded (at `Mosaics.oversampling`)."""
        task = cls.__new__(cls)
        task._build(config, root, fields, held)
        return task

    def _build(
        self,
        config: Config,
        root: Path,
        fields: Sequence[CanonicalField],
        held: Sequence[CanonicalField],
    ) -> None:
        self.config, self.rules, self.held = config, config.sparse, held
        self.schema = schema_named(config.data.schemas)
        self.sources, self.split = {"train": [], "validation": []}, {}
        border = self.rules.border
        data = config.data
        if self.rules.unmarked == "background":
            fields = [replace(f, region=Region.everything()) for f in fields]
        # A field nobody marked teaches nothing without a teacher.
        whole = [f for f in fields if self._taught or not f.region.is_nothing]
        patches = [p for f in fields for p in cut_regions(f, self.rules.context)]
        if not patches:
            raise ConfigError("data: no field of these splits has an annotated region")
        whole = repeat_rare_types(whole, self.rules.balance)
        pool: Sampler = InMemorySampler(whole, config.augment.recolour > 0)
        if self.rules.copy_paste:
            pool = CopyPasteSampler(whole, pool, self.rules.copy_paste)
        self.whole = Mosaics(pool, data.size, config.augment, config.seed, border)
        patches = repeat_rare_types(patches, self.rules.balance)
        self.patches = Mosaics(patches, data.size, config.augment, config.seed + PATCHES, border)
        area = sum(f.image.shape[0] * f.image.shape[1] for f in whole) / Mosaics.oversampling**2
        self.samples = config.optim.samples or max(1, round(area / data.size**2))
        self.reliability = PrecisionCalibrator(len(OBJECT_TYPES))
        self.teacher: CellDetector | None = None
        torch.manual_seed(config.seed)
        self.network = build_detector(config)
        some = (self.whole[0, i][0] for i in range(24))
        start_network(self.network, config, root, some)

    @property
    def _taught(self) -> bool:
        return self.rules.teacher != "none" and self.rules.weight > 0

    # ---- the loop's hooks ---------------------------------------------------------------------

    def observe(self, average: nn.Module) -> None:
        """Take the averaged weights as teacher."""
        assert isinstance(average, CellDetector)
        self.teacher = average

    def memory(self) -> dict[str, Tensor]:
        """Return the teacher's counted reliability."""
        return {"reliability": self.reliability.counts}

    def recall(self, memory: dict[str, Tensor]) -> None:
        """Take the teacher's counted reliability."""
        self.reliability.counts = memory["reliability"]

    # ---- data ---------------------------------------------------------------------------------

    def sample(self, key: Key) -> Sample:
        """Draw one image, of patches or of whole fields."""
        rng = np.random.default_rng([self.config.seed, TURNS, *key])
        progress = key[0] / self.config.optim.epochs
        cut = progress < self.rules.patches or rng.random() < self.rules.mix
        turn = int(rng.integers(8)) if self.rules.turn else 0
        return Sample((self.patches if cut else self.whole).draw(key), turn, progress)

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack images, pad targets."""
        plain = None
        if self.rules.teacher == "average" and self._teaches(samples[0].progress):
            seen = [s.drawn.plain if self.rules.views else s.drawn.image for s in samples]
            plain = to_tensor(
                [Augmentation(s.turn).image(image) for s, image in zip(samples, seen, strict=True)]
            )
        marked = TargetBatch.collate([s.drawn.target for s in samples])
        return Batch(to_tensor([s.drawn.image for s in samples]), plain, marked, samples)

    def _teaches(self, progress: float) -> bool:
        return self._taught and progress >= self.rules.begin

    # ---- losses -------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the terms of marked cells, then those of the teacher's cells (`teacher_...`)."""
        assert isinstance(model, CellDetector)
        images = batch.images.to(device, memory_format=torch.channels_last)
        levels = model.backbone(images)
        features = model.join(levels)
        outputs = model.heads(features)
        terms = self.weighted(detection_loss(outputs, batch.marked.to(device), model.stride))
        marked = [s.drawn.target for s in batch.samples]
        if model.attributes is not None:
            terms["attributes"] = self._read(model.attributes, levels, marked, device)
        if not self._teaches(batch.progress):
            return terms
        taught = self._teach(model, levels, outputs, batch)
        target = TargetBatch.collate(taught).to(device)
        share = self.rules.weight
        for name, term in self.weighted(detection_loss(outputs, target, model.stride)).items():
            own = 1.0 if name == "object_type" else self.rules.boxes
            terms[f"teacher_{name}"] = term * share * own
        if model.attributes is not None and self.rules.teacher_attributes:
            read = self._read(model.attributes, levels, taught, device)
            terms["teacher_attributes"] = read * share
        if self.rules.similarity and batch.progress < SIMILARITY_SHARE:
            terms["similarity"] = self.rules.similarity * similarity_loss(
                features,
                *_cell_locations(marked, model.stride, device),
                *_cell_locations(taught, model.stride, device),
            )
        return terms

    def _read(
        self,
        branch: AttributeBranch,
        levels: list[Tensor],
        targets: Sequence[Target],
        device: torch.device,
    ) -> Tensor:
        """Return the weighted attribute term of the targets' cells of which anything is said."""
        images, boxes, goal, weights = (
            part.to(device) for part in _attribute_rows(targets, branch.values)
        )
        logits = branch(levels[:2], images, boxes)
        rules = self.rules
        return rules.attributes * attribute_loss(
            logits, goal, weights, self.schema.slices, rules.asymmetric
        )

    def judge(self, model: CellDetector, found: Sequence[Detections]) -> dict[str, float]:
        """Return the metrics of what a model found, those of attributes it reads among them."""
        return super().judge(model, found) | score_attributes(model, self.held, found, self.schema)

    @torch.no_grad()
    def _teach(
        self, model: CellDetector, levels: list[Tensor], outputs: dict[str, Tensor], batch: Batch
    ) -> list[Target]:
        """Return what the teacher says of every image of the batch."""
        turns = [Augmentation(0)] * len(batch.samples)
        if batch.plain is not None:
            assert self.teacher is not None, "the loop calls observe first"
            model = self.teacher.eval()
            plain = batch.plain.to(levels[0].device, memory_format=torch.channels_last)
            levels = model.backbone(plain)
            outputs = model.heads(model.join(levels))
            turns = [Augmentation(s.turn) for s in batch.samples]
        seen = decode_outputs(outputs, model.stride, self.rules.nms)
        values: list[NDArray[np.float32]] | None = None
        if model.attributes is not None and self.rules.teacher_attributes:
            values = predict_attribute_values(model.attributes, levels, seen, self.schema)
        opinions = teacher_predictions(outputs, seen, turns, float(batch.images.shape[-1]), values)
        reliability = self.reliability if self.rules.calibrated else None
        if reliability is not None:
            reliability.learn(opinions, [s.drawn.target for s in batch.samples], model.stride)
        return [
            pseudo_target(opinion, s.drawn.unmarked, self.rules, reliability, model.stride)
            for opinion, s in zip(opinions, batch.samples, strict=True)
        ]


def decode_outputs(outputs: dict[str, Tensor], stride: int, nms: float) -> list[Detections]:
    """Return the detections of dense outputs, image by image."""
    scores = outputs["kinds"].float().sigmoid().cpu().numpy()
    boxes = outputs["boxes"].float().cpu().numpy()
    parameters = DecodeParameters(
        stride=stride, thresholds=[LEAST_SCORE] * scores.shape[1], nms_iou=nms
    )
    return [decode(score, box, parameters) for score, box in zip(scores, boxes, strict=True)]


def teacher_predictions(
    outputs: dict[str, Tensor],
    seen: Sequence[Detections],
    turns: Sequence[Augmentation],
    size: float,
    values: Sequence[NDArray[np.float32]] | None = None,
) -> list[TeacherPrediction]:
    """Turn what was seen on turned images into opinions on the images as they were."""
    highest = outputs["kinds"].float().sigmoid().amax(1).cpu().numpy()
    said = [None] * len(seen) if values is None else values
    return [
        TeacherPrediction(
            found.with_boxes(turn.boxes_back(found.boxes, size)), turn.map_back(most), value
        )
        for found, turn, most, value in zip(seen, turns, highest, said, strict=True)
    ]


def predict_attribute_values(
    branch: AttributeBranch, levels: list[Tensor], seen: Sequence[Detections], schema: Schema
) -> list[NDArray[np.float32]]:
    """Return each detection's probabilities (n, values); zeros for all but nucleated cells."""
    found = []
    for number, detections in enumerate(seen):
        cells = np.flatnonzero(detections.type_ids == NUCLEATED_KIND)
        boxes = torch.from_numpy(detections.boxes[cells].astype(np.float32)).to(levels[0].device)
        images = torch.full((len(cells),), number, dtype=torch.long, device=boxes.device)
        logits = branch(levels[:2], images, boxes)
        parts = [logits[:, where].softmax(1) for where in schema.slices.values()]
        rows = np.zeros((len(detections), schema.width), np.float32)
        rows[cells] = torch.cat(parts, 1).cpu().numpy()
        found.append(rows)
    return found


def _attribute_rows(targets: Sequence[Target], width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return image (n,), box (n, 4), values (n, width), weight (n,) of cells with any value."""
    images, boxes = [np.zeros(0, np.int64)], [np.zeros((0, 4), np.float32)]
    goals, weights = [np.zeros((0, width), np.float32)], [np.zeros(0, np.float32)]
    for number, target in enumerate(targets):
        if target.values is None:
            continue
        told = target.values.any(1)
        images.append(np.full(int(told.sum()), number))
        boxes.append(target.boxes[told])
        goals.append(target.values[told])
        weights.append(target.weights[told])
    joined = [np.concatenate(part) for part in (images, boxes, goals, weights)]
    return (
        torch.from_numpy(joined[0]),
        torch.from_numpy(joined[1]),
        torch.from_numpy(joined[2]),
        torch.from_numpy(joined[3]),
    )


def _cell_locations(
    targets: Sequence[Target], stride: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return image, row and column (n, 3) of the cells' centres, and their kinds (n,)."""
    rows, kinds = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for number, target in enumerate(targets):
        height, width = target.known.shape
        at = np.floor(centres(target.boxes) / stride).astype(np.int64)
        column, row = at[:, 0].clip(0, width - 1), at[:, 1].clip(0, height - 1)
        rows.append(np.stack([np.full(len(at), number), row, column], axis=1))
        kinds.append(target.kinds)
    return (
        torch.from_numpy(np.concatenate(rows)).to(device),
        torch.from_numpy(np.concatenate(kinds)).to(device),
    )
