"""Training of the cell reader: class and attributes of one centred cell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.attributes import Schema, schema_named
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, DETECTOR_UM
from bloodfilm.losses.reading import attribute_losses, tree_loss
from bloodfilm.models.reader import CellReader
from bloodfilm.training.config import Config
from bloodfilm.training.crops import (
    Crops,
    label_groups,
    load_crops,
    plain_crop,
    reader_leaves,
    varied_crop,
)
from bloodfilm.training.sources import Progress, open_sources, refuse_leaks
from bloodfilm.training.tasks.base import Key
from bloodfilm.training.tasks.common import describe_sources, start_network, to_tensor

Sample = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64]]
Batch = tuple[Tensor, Tensor, Tensor]
EVALUATION_BATCH = 64


def build_reader(config: Config, schema: Schema) -> CellReader:
    """Return an untrained reader as the configuration describes it."""
    levels, grid = ((1, 2), 7) if config.model.reads == "roi" else ((2, 3, 4), 0)
    return CellReader(
        len(reader_leaves(DEFAULT_TAXONOMY)),
        [len(a.values) for a in schema.attributes],
        config.model.backbone,
        width=config.model.width,
        dropout=config.model.dropout,
        levels=levels,
        grid=grid,
    )


def crop_scale(config: Config) -> float:
    """Return um/px of what the reader sees: a crop of its own, or the detector's view."""
    return DETECTOR_UM if config.model.reads == "roi" else CROP_UM


class ReaderTask:
    """Names a cell to the depth of its label and answers the schema's attributes."""

    score_name = "score"

    def __init__(self, config: Config, root: Path, progress: Progress) -> None:
        self.config = config
        self.taxonomy = DEFAULT_TAXONOMY
        self.schema = schema_named(config.data.schemas)
        self.leaves = reader_leaves(self.taxonomy)
        self.um_per_px = crop_scale(config)
        train = open_sources(config.data.train, root)
        held = open_sources(config.data.validation, root)
        refuse_leaks(train, held)
        self.sources = {"train": describe_sources(train), "validation": describe_sources(held)}
        self.train = load_crops(train, self.schema, self.taxonomy, progress)
        self.held = load_crops(held, self.schema, self.taxonomy, progress)
        if min(config.optim.batch, len(self.train)) < 2:
            raise ConfigError("optim.batch: the reader learns from batches of two cells or more")
        self.value_weights = value_weights(self.train, self.schema, config.loss.balance)
        torch.manual_seed(config.seed)
        self.network = build_reader(config, self.schema)
        some = np.random.default_rng(config.seed).permutation(len(self.train))[:256]
        start_network(
            self.network,
            config,
            root,
            (plain_crop(self.train.images[i], self.um_per_px) for i in some),
        )

    @property
    def model(self) -> CellReader:
        """The reader."""
        return self.network

    def keys(self, epoch: int) -> list[Key]:
        """Every cell as often as its source is repeated, shuffled."""
        rng = np.random.default_rng([self.config.seed, epoch])
        whole, part = np.divmod(self.train.weights, 1)
        times = whole.astype(int) + (rng.random(len(part)) < part)
        order = rng.permutation(np.repeat(np.arange(len(self.train)), times))
        if self.config.optim.samples:
            order = order[: self.config.optim.samples]
        return [(epoch, int(i)) for i in order]

    def sample(self, key: Key) -> Sample:
        """Vary one cell's crop."""
        epoch, i = key
        rng = np.random.default_rng([self.config.seed, epoch, i])
        crop = varied_crop(self.train.images[i], rng, self.config.augment, self.um_per_px)
        return crop, self.train.allowed[i], self.train.codes[i]

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack crops, allowed leaves and codes."""
        crops, allowed, codes = zip(*samples, strict=True)
        return (
            to_tensor(crops),
            torch.from_numpy(np.stack(allowed)),
            torch.from_numpy(np.stack(codes)),
        )

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the class term and one term per attribute, weighted."""
        crops, allowed, codes = (t.to(device) for t in batch)
        outputs = model(crops.to(memory_format=torch.channels_last))
        loss = self.config.loss
        weights = {k: v.to(device) for k, v in self.value_weights.items()}
        terms = attribute_losses(outputs["attributes"], codes, self.schema.slices, weights)
        learnt = [name for name in terms if name in weights]
        terms = {name: terms[name] / len(learnt) for name in learnt}
        terms["class"] = tree_loss(outputs["classes"], allowed, loss.smoothing)
        terms["class"] = terms["class"] * loss.class_weight
        return terms

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return class accuracy, each attribute's macro-F1, their mean, and `score`, their sum."""
        assert isinstance(model, CellReader)
        outputs = read_crops(model, self.held, device, self.um_per_px)
        right = self.held.allowed[np.arange(len(self.held)), outputs["classes"].argmax(1)]
        named = self.held.allowed.any(1)
        metrics = {"class_accuracy": float(right[named].mean())}
        for column, (name, where) in enumerate(self.schema.slices.items()):
            codes = self.held.codes[:, column]
            known = codes >= 0
            if known.any():
                said = outputs["attributes"][known, where].argmax(1)
                metrics[f"f1_{name}"] = macro_f1(codes[known], said)
        f1 = [v for k, v in metrics.items() if k.startswith("f1_")]
        metrics["mean_f1"] = float(np.mean(f1)) if f1 else 0.0
        metrics["score"] = metrics["class_accuracy"] + metrics["mean_f1"]
        return metrics

    @torch.no_grad()
    def finish(self, model: nn.Module, device: torch.device) -> None:
        """Set the class prototypes that `novelty` measures against, from the training cells."""
        assert isinstance(model, CellReader)
        description = read_crops(model, self.train, device, self.um_per_px)["description"]
        # A class never seen is near to nothing.
        means = np.full((len(self.leaves), model.size), 1e4, np.float32)
        residuals = []
        for group in label_groups(self.train.allowed):
            of_group = description[(self.train.allowed == group).all(1)]
            means[group] = of_group.mean(0)
            residuals.append(of_group - of_group.mean(0))
        model.set_prototypes(means, np.concatenate(residuals).std(0) + 1e-3)

    def record(self) -> dict[str, Any]:
        """Return vocabulary, what was never seen, data and sizes."""
        seen = np.asarray(label_groups(self.train.allowed).any(0))
        return {
            "leaves": list(self.leaves),
            "taxonomy": self.taxonomy.to_json(),
            "schema": self.schema.to_json(),
            "unlearnt": {
                "classes": [n for n, s in zip(self.leaves, seen, strict=True) if not s],
                "attributes": [n for n in self.schema.names if n not in self.value_weights],
            },
            "size": CROP_SIZE,
            "um_per_px": self.um_per_px,
            "sources": self.sources,
        }


def value_weights(crops: Crops, schema: Schema, balance: float) -> dict[str, Tensor]:
    """Return a weight per value of every attribute that has two values or more in the data.

    The weight is frequency to the power `-balance`, scaled so that the mean weight of a training
    cell is 1. A value that never occurs gets weight 0.
    """
    weights: dict[str, Tensor] = {}
    for column, attribute in enumerate(schema.attributes):
        codes = crops.codes[:, column]
        counts = np.bincount(codes[codes >= 0], minlength=len(attribute.values)).astype(float)
        if (counts > 0).sum() < 2:
            continue
        share = counts / counts.sum()
        weight = np.where(counts > 0, np.maximum(share, 1e-6) ** -balance, 0.0)
        weight /= (weight * share).sum()
        weights[attribute.name] = torch.from_numpy(weight).float()
    return weights


@torch.no_grad()
def read_crops(
    model: CellReader, crops: Crops, device: torch.device, um_per_px: float = CROP_UM
) -> dict[str, NDArray[np.float32]]:
    """Return the reader's outputs on stored crops, rows in their order."""
    parts: list[dict[str, Tensor]] = []
    for start in range(0, len(crops), EVALUATION_BATCH):
        images = [plain_crop(i, um_per_px) for i in crops.images[start : start + EVALUATION_BATCH]]
        batch = to_tensor(images).to(device, memory_format=torch.channels_last)
        parts.append({k: v.float().cpu() for k, v in model(batch).items()})
    return {k: torch.cat([p[k] for p in parts]).numpy() for k in parts[0]}


def macro_f1(truth: NDArray[np.int64], said: NDArray[np.intp]) -> float:
    """Return the mean F1 over the values that occur in the truth or the answers."""
    scores = []
    for value in np.union1d(truth, said):
        hit = ((truth == value) & (said == value)).sum()
        scores.append(2 * hit / ((truth == value).sum() + (said == value).sum()))
    return float(np.mean(scores))
