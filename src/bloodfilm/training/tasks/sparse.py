"""Training of the cell detector where only regions of the fields are annotated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core import Region
from bloodfilm.core.boxes import centres
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import Progress
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.decode import DecodeParameters, decode
from bloodfilm.losses.attributes import attribute_loss
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.targets import Target, TargetBatch
from bloodfilm.models.attribute_heads import AttributeBranch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.attribute_metrics import score_attributes
from bloodfilm.training.config import Config, SparseSection
from bloodfilm.training.data.canonical_fields import (
    CanonicalField,
    FieldLoader,
    refuse_empty_validation,
)
from bloodfilm.training.data.copy_paste import CopyPasteSampler
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.mosaics import Mosaics, MosaicSample
from bloodfilm.training.data.region_crops import cut_regions, repeat_rare_types
from bloodfilm.training.data.samplers import InMemorySampler, Sampler
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.pseudo_labels import (
    LEAST_SCORE,
    Augmentation,
    PrecisionCalibrator,
    TeacherPrediction,
    pseudo_target,
    similarity_loss,
)
from bloodfilm.training.run_data import RunData
from bloodfilm.training.tasks.common import start_network, to_tensor
from bloodfilm.training.tasks.detector import START_IMAGES, DetectionTaskBase
from bloodfilm.training.vocabulary import Vocabulary

SIMILARITY_SHARE = 2 / 3
REGIONS, TURNS = 11, 12
"""Random-stream ids, different from those of the mosaics."""


@dataclass(frozen=True)
class SparseSample:
    """One training image.

    Attributes:
        drawn: the image and its targets.
        turn: the symmetry of the teacher's input, see `Augmentation`.
        progress: how far the run is, in [0, 1].
    """

    drawn: MosaicSample
    turn: int
    progress: float


@dataclass(frozen=True)
class SparseBatch:
    """Several samples.

    Attributes:
        images: (B, 3, S, S) the student's input; plain: the teacher's input, or `None`.
        annotated: the annotations.
        samples: the samples of the batch.
    """

    images: Tensor
    plain: Tensor | None
    annotated: TargetBatch
    samples: Sequence[SparseSample]

    @property
    def progress(self) -> float:
        """How far the run is."""
        return self.samples[0].progress

    @property
    def domain(self) -> Tensor:
        """Index of each image's domain (B,), -1 for several or an unknown one."""
        return self.annotated.domain


class SparseSamples:
    """Training images from crops of annotated regions, and from whole fields.

    Args:
        config: of the run.
        fields: at `Mosaics.oversampling` times the detector's scale.
        vocabulary: of the run.

    Raises:
        ConfigError: if no field has an annotated region.
    """

    def __init__(
        self, config: Config, fields: Sequence[CanonicalField], vocabulary: Vocabulary
    ) -> None:
        self.seed, self.epochs, self.rules = config.seed, config.optim.epochs, config.sparse
        rules, size, augment = self.rules, config.data.size, config.augment
        if rules.unmarked == "background":
            fields = [replace(f, region=Region.everything()) for f in fields]
        # A field without annotation is of no use without a teacher.
        whole = [f for f in fields if uses_teacher(rules) or not f.region.is_nothing]
        regions = [p for f in fields for p in cut_regions(f, rules.context)]
        if not regions:
            raise ConfigError("data: no field of these splits has an annotated region")
        whole = repeat_rare_types(whole, rules.balance)
        stains = vocabulary.stain_types
        sampler: Sampler = InMemorySampler(whole, stains if augment.recolour > 0 else None)
        if rules.copy_paste:
            sampler = CopyPasteSampler(whole, sampler, rules.copy_paste)
        self.whole = Mosaics(sampler, size, augment, config.seed, rules.border)
        self.regions = Mosaics(
            repeat_rare_types(regions, rules.balance),
            size,
            augment,
            config.seed + REGIONS,
            rules.border,
            stains,
        )
        area = sum(f.image.shape[0] * f.image.shape[1] for f in whole) / Mosaics.oversampling**2
        self.count = config.optim.samples or max(1, round(area / size**2))

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the numbers of an epoch's images, in order."""
        return [(epoch, i) for i in range(self.count)]

    def sample(self, key: Key) -> SparseSample:
        """Draw one image, of regions or of whole fields."""
        rng = np.random.default_rng([self.seed, TURNS, *key])
        progress = key[0] / self.epochs
        cut = progress < self.rules.patches or rng.random() < self.rules.mix
        turn = int(rng.integers(8)) if self.rules.turn else 0
        return SparseSample((self.regions if cut else self.whole).draw(key), turn, progress)

    def collate(self, samples: Sequence[SparseSample]) -> SparseBatch:
        """Stack images, pad targets."""
        plain = None
        if self.rules.teacher == "average" and has_teacher(self.rules, samples[0].progress):
            seen = [s.drawn.plain if self.rules.views else s.drawn.image for s in samples]
            plain = to_tensor(
                [Augmentation(s.turn).image(image) for s, image in zip(samples, seen, strict=True)]
            )
        annotated = TargetBatch.collate([s.drawn.target for s in samples])
        return SparseBatch(to_tensor([s.drawn.image for s in samples]), plain, annotated, samples)


def uses_teacher(rules: SparseSection) -> bool:
    """Whether pseudo labels are ever used."""
    return rules.teacher != "none" and rules.weight > 0


def has_teacher(rules: SparseSection, progress: float) -> bool:
    """Whether pseudo labels are used at that progress of the run, in [0, 1]."""
    return uses_teacher(rules) and progress >= rules.begin


class SparseTask(DetectionTaskBase):
    """Detects objects where only regions of fields are annotated; a teacher labels the rest.

    Args:
        config: of the run.
        fields: training fields at `Mosaics.oversampling` times the detector's scale.
        validation: fields at the detector's scale.
        run: vocabulary and record of the data.
    """

    def __init__(
        self,
        config: Config,
        fields: Sequence[CanonicalField],
        validation: Sequence[CanonicalField],
        run: RunData,
    ) -> None:
        self.rules, self.schema = config.sparse, run.vocabulary.schema
        self.samples = SparseSamples(config, fields, run.vocabulary)
        self.reliability = PrecisionCalibrator(len(run.vocabulary.object_types))
        self.teacher: CellDetector | None = None
        super().__init__(config, validation, run)

    @classmethod
    def from_config(cls, config: Config, root: Path, progress: Progress) -> "SparseTask":
        """Open and load the data of a configuration, and the weights it starts from.

        Raises:
            ConfigError: if the data are missing, leak, or lack training or validation annotations.
        """
        train = open_sources(config.data.train, root)
        held = open_sources(config.data.validation, root)
        run = RunData.of_sources(config, root, [train], [held])
        attributes = config.sparse.attributes > 0
        oversampled = DETECTOR_UM / Mosaics.oversampling
        fields = FieldLoader(run.vocabulary, oversampled, run.domains, attributes).load_all(
            train, progress
        )
        annotated = [s for s in held if not s.field.region.is_nothing]
        loader = FieldLoader(run.vocabulary, DETECTOR_UM, attributes=attributes)
        validation = loader.load_all(annotated, progress)
        refuse_empty_validation(validation)
        task = cls(config, fields, validation, run)
        start_from(task, root)
        return task

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the configuration; those of pseudo labels are shares of these."""
        rules, own = self.rules, super().loss_weights
        edges = dict.fromkeys(("box", "edge"), rules.boxes)
        return {
            **own,
            **{f"teacher_{k}": w * rules.weight * edges.get(k, 1.0) for k, w in own.items()},
            "attributes": rules.attributes,
            "teacher_attributes": rules.attributes * rules.weight,
            "similarity": rules.similarity,
        }

    # ---- the loop's hooks ---------------------------------------------------------------------

    def set_teacher(self, average: CellDetector) -> None:
        """Set the averaged weights as teacher."""
        self.teacher = average

    def state_dict(self) -> dict[str, Tensor]:
        """Return the teacher's measured reliability."""
        return {"reliability": self.reliability.counts}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the teacher's measured reliability."""
        self.reliability.counts = state["reliability"]

    # ---- losses -------------------------------------------------------------------------------

    def losses(
        self, model: CellDetector, batch: SparseBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the terms of annotated cells, then those of pseudo labels (`teacher_...`)."""
        images = batch.images.to(device, memory_format=torch.channels_last)
        levels = model.backbone(images)
        features = model.join(levels)
        outputs = model.heads(features)
        terms = dict(detection_loss(outputs, batch.annotated.to(device), model.stride))
        annotated = [s.drawn.target for s in batch.samples]
        if model.attributes is not None:
            terms["attributes"] = self._attribute_term(model.attributes, levels, annotated, device)
        if not has_teacher(self.rules, batch.progress):
            return terms
        pseudo = self._pseudo_targets(model, levels, outputs, batch)
        target = TargetBatch.collate(pseudo).to(device)
        for name, term in detection_loss(outputs, target, model.stride).items():
            terms[f"teacher_{name}"] = term
        if model.attributes is not None and self.rules.teacher_attributes:
            terms["teacher_attributes"] = self._attribute_term(
                model.attributes, levels, pseudo, device
            )
        if self.rules.similarity and batch.progress < SIMILARITY_SHARE:
            terms["similarity"] = similarity_loss(
                features,
                *_cell_locations(annotated, model.stride, device),
                *_cell_locations(pseudo, model.stride, device),
            )
        return terms

    def _attribute_term(
        self,
        branch: AttributeBranch,
        levels: list[Tensor],
        targets: Sequence[Target],
        device: torch.device,
    ) -> Tensor:
        """Return the attribute term of the targets' cells of which any attribute is known."""
        images, boxes, goal, weights = (
            part.to(device) for part in _attribute_rows(targets, branch.values)
        )
        logits = branch(levels[:2], images, boxes)
        return attribute_loss(logits, goal, weights, self.schema.slices, self.rules.asymmetric)

    def judge(self, model: CellDetector, found: Sequence[Detections]) -> dict[str, float]:
        """Return the metrics of a model's detections and predicted attributes."""
        attributes = score_attributes(model, self.validation, found, self.run.vocabulary)
        return super().judge(model, found) | attributes

    @torch.no_grad()
    def _pseudo_targets(
        self,
        model: CellDetector,
        levels: list[Tensor],
        outputs: dict[str, Tensor],
        batch: SparseBatch,
    ) -> list[Target]:
        """Return the teacher's labels of every image of the batch."""
        turns = [Augmentation(0)] * len(batch.samples)
        if batch.plain is not None:
            assert self.teacher is not None, "the loop calls set_teacher first"
            model = self.teacher.eval()
            plain = batch.plain.to(levels[0].device, memory_format=torch.channels_last)
            levels = model.backbone(plain)
            outputs = model.heads(model.join(levels))
            turns = [Augmentation(s.turn) for s in batch.samples]
        seen = decode_outputs(outputs, model.stride, self.rules.nms)
        values: list[NDArray[np.float32]] | None = None
        if model.attributes is not None and self.rules.teacher_attributes:
            values = predict_attribute_values(model.attributes, levels, seen, self.run.vocabulary)
        opinions = teacher_predictions(outputs, seen, turns, float(batch.images.shape[-1]), values)
        reliability = self.reliability if self.rules.calibrated else None
        if reliability is not None:
            reliability.learn(opinions, [s.drawn.target for s in batch.samples], model.stride)
        return [
            pseudo_target(opinion, s.drawn.unmarked, self.rules, reliability, model.stride)
            for opinion, s in zip(opinions, batch.samples, strict=True)
        ]


def start_from(task: SparseTask, root: Path) -> None:
    """Load the starting weights that the task's configuration names."""
    images = (task.samples.whole[0, i][0] for i in range(START_IMAGES))
    start_network(task.network, task.config, root, images)


def decode_outputs(outputs: dict[str, Tensor], stride: int, nms: float) -> list[Detections]:
    """Return the detections of dense outputs, image by image."""
    scores = outputs["types"].float().sigmoid().cpu().numpy()
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
    """Map detections on augmented images back to the original images."""
    highest = outputs["types"].float().sigmoid().amax(1).cpu().numpy()
    said = [None] * len(seen) if values is None else values
    return [
        TeacherPrediction(
            found.with_boxes(turn.boxes_back(found.boxes, size)), turn.map_back(most), value
        )
        for found, turn, most, value in zip(seen, turns, highest, said, strict=True)
    ]


def predict_attribute_values(
    branch: AttributeBranch,
    levels: list[Tensor],
    seen: Sequence[Detections],
    vocabulary: Vocabulary,
) -> list[NDArray[np.float32]]:
    """Return each detection's probabilities (n, values); zeros for all but classified cells."""
    schema = vocabulary.schema
    found = []
    for number, detections in enumerate(seen):
        cells = np.flatnonzero(detections.type_ids == vocabulary.classified_id)
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
        annotated = target.values.any(1)
        images.append(np.full(int(annotated.sum()), number))
        boxes.append(target.boxes[annotated])
        goals.append(target.values[annotated])
        weights.append(target.weights[annotated])
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
        kinds.append(target.type_ids)
    return (
        torch.from_numpy(np.concatenate(rows)).to(device),
        torch.from_numpy(np.concatenate(kinds)).to(device),
    )
