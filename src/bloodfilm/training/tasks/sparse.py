"""Training of the cell detector where only regions of the fields are annotated."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core import Region
from bloodfilm.core.boxes import centres, clip
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.inference.decode import Detections, decode
from bloodfilm.losses.detection import detection_loss
from bloodfilm.losses.target import Target, TargetBatch
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config
from bloodfilm.training.mosaics import Drawn, Mosaics
from bloodfilm.training.pseudo import (
    LEAST_SCORE,
    Opinion,
    Reliability,
    Turn,
    pseudo_target,
    similarity_loss,
)
from bloodfilm.training.sources import (
    KINDS,
    CanonicalField,
    Progress,
    load_fields,
    open_sources,
    refuse_leaks,
)
from bloodfilm.training.tasks.base import Key
from bloodfilm.training.tasks.common import describe_sources, start_network, to_tensor
from bloodfilm.training.tasks.detector import Finding, build_detector

SIMILARITY_SHARE = 2 / 3
PATCHES, TURNS = 11, 12
"""Streams of chance beside the mosaics' own."""


@dataclass(frozen=True)
class Sample:
    """One training image, its turn for the teacher, and how far the run is, in [0, 1]."""

    drawn: Drawn
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


class SparseTask(Finding):
    """Finds cells from regions of fields; a teacher labels the rest."""

    def __init__(self, config: Config, root: Path, progress: Progress) -> None:
        train = open_sources(config.data.train, root)
        held = open_sources(config.data.validation, root)
        proof = refuse_leaks(train, held)
        held = [s for s in held if not s.field.region.is_nothing]
        self._build(
            config,
            root,
            load_fields(train, DETECTOR_UM / Mosaics.oversampling, progress),
            load_fields(held, DETECTOR_UM, progress),
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
        self.sources, self.split = {"train": [], "validation": []}, {}
        border = self.rules.border
        data = config.data
        if self.rules.unmarked == "background":
            fields = [replace(f, region=Region.everything()) for f in fields]
        # A field nobody marked teaches nothing without a teacher.
        whole = [f for f in fields if self._taught or not f.region.is_nothing]
        patches = [p for f in fields for p in cut_patches(f, self.rules.context)]
        if not patches:
            raise ConfigError("data: no field of these splits has an annotated region")
        self.whole = Mosaics(whole, data.size, config.augment, config.seed, border)
        patches = balanced(patches, self.rules.balance)
        self.patches = Mosaics(patches, data.size, config.augment, config.seed + PATCHES, border)
        area = sum(f.image.shape[0] * f.image.shape[1] for f in whole) / Mosaics.oversampling**2
        self.samples = config.optim.samples or max(1, round(area / data.size**2))
        self.reliability = Reliability(len(KINDS))
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
                [Turn(s.turn).image(image) for s, image in zip(samples, seen, strict=True)]
            )
        marked = TargetBatch.collate([s.drawn.target for s in samples])
        return Batch(to_tensor([s.drawn.image for s in samples]), plain, marked, samples)

    def _teaches(self, progress: float) -> bool:
        return self._taught and progress >= self.rules.begin

    # ---- losses -------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the terms of marked cells, then those of the teacher's cells (`taught_...`)."""
        assert isinstance(model, CellDetector)
        images = batch.images.to(device, memory_format=torch.channels_last)
        features = model.features(images)
        outputs = model.heads(features)
        terms = self.weighted(detection_loss(outputs, batch.marked.to(device), model.stride))
        if not self._teaches(batch.progress):
            return terms
        taught = self._teach(outputs, batch, device)
        target = TargetBatch.collate(taught).to(device)
        share = self.rules.weight
        for name, term in self.weighted(detection_loss(outputs, target, model.stride)).items():
            terms[f"taught_{name}"] = term * share
        if self.rules.similarity and batch.progress < SIMILARITY_SHARE:
            marked = [s.drawn.target for s in batch.samples]
            terms["similarity"] = self.rules.similarity * similarity_loss(
                features,
                *_places(marked, model.stride, device),
                *_places(taught, model.stride, device),
            )
        return terms

    @torch.no_grad()
    def _teach(
        self, outputs: dict[str, Tensor], batch: Batch, device: torch.device
    ) -> list[Target]:
        """Return what the teacher says of every image of the batch."""
        turns = [Turn(0)] * len(batch.samples)
        if batch.plain is not None:
            assert self.teacher is not None, "the loop calls observe first"
            self.teacher.eval()
            outputs = self.teacher(batch.plain.to(device, memory_format=torch.channels_last))
            turns = [Turn(s.turn) for s in batch.samples]
        stride, size = self.network.stride, float(batch.images.shape[-1])
        opinions = form_opinions(outputs, turns, stride, size, self.rules.nms)
        reliability = self.reliability if self.rules.calibrated else None
        if reliability is not None:
            reliability.learn(opinions, [s.drawn.target for s in batch.samples], stride)
        return [
            pseudo_target(opinion, s.drawn.unmarked, self.rules, reliability, stride)
            for opinion, s in zip(opinions, batch.samples, strict=True)
        ]


def form_opinions(
    outputs: dict[str, Tensor], turns: Sequence[Turn], stride: int, size: float, nms: float
) -> list[Opinion]:
    """Decode dense outputs of turned images into opinions on the images as they were."""
    scores = outputs["kinds"].float().sigmoid().cpu().numpy()
    boxes = outputs["boxes"].float().cpu().numpy()
    opinions = []
    for score, box, turn in zip(scores, boxes, turns, strict=True):
        found = decode(score, box, stride, [LEAST_SCORE] * len(score), nms)
        found = Detections(turn.boxes_back(found.boxes, size), found.scores, found.kinds)
        opinions.append(Opinion(found, turn.map_back(score.max(axis=0))))
    return opinions


def _places(targets: Sequence[Target], stride: int, device: torch.device) -> tuple[Tensor, Tensor]:
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


def cut_patches(field: CanonicalField, context: float) -> list[CanonicalField]:
    """Cut the marked regions out of a field, each with `context` (canonical px) around it.

    A field that is known everywhere is one patch. What is around a region stays unknown.
    """
    if field.region.polygons is None:
        return [field]
    height, width = field.image.shape[:2]
    patches = []
    for polygon in field.region.polygons:
        corners = np.array(polygon)
        room = context * Mosaics.oversampling
        low = np.floor(np.maximum(corners.min(axis=0) - room, 0)).astype(int)
        high = np.ceil(np.minimum(corners.max(axis=0) + room, [width, height])).astype(int)
        if (high - low).min() < Mosaics.oversampling:
            continue
        patches.append(_crop(field, low, high))
    return patches


def balanced(patches: Sequence[CanonicalField], power: float) -> list[CanonicalField]:
    """Return the patches, those with rare kinds to be drawn more often.

    Source: repeat factor sampling, LVIS, arXiv 1908.03195, section 4, with the most common kind's
    frequency as threshold.
    """
    held = np.array([[kind in p.kinds for kind in range(len(KINDS))] for p in patches])
    often = held.mean(axis=0)
    factors = (often.max() / np.maximum(often, 1e-9)) ** power
    counts = np.where(held, factors, 1.0).max(axis=1)
    return [replace(p, repeat=p.repeat * float(n)) for p, n in zip(patches, counts, strict=True)]


def _crop(field: CanonicalField, low: NDArray[np.int_], high: NDArray[np.int_]) -> CanonicalField:
    width, height = (int(v) for v in high - low)
    shift = np.array([low[0], low[1], 0, 0])

    def inside(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
        at = centres(boxes)
        return np.asarray(((at >= low) & (at < high)).all(axis=1))

    keep = inside(field.boxes)
    ignore = clip(field.ignore - shift, width, height)
    return CanonicalField(
        image=np.ascontiguousarray(field.image[low[1] : high[1], low[0] : high[0]]),
        boxes=clip(field.boxes[keep] - shift, width, height),
        kinds=field.kinds[keep],
        ignore=ignore[(ignore[:, 2:] > 0).all(axis=1)],
        region=field.region.transform([[1, 0, -low[0]], [0, 1, -low[1]]]),
        repeat=field.repeat,
    )
