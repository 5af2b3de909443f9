"""Training of the cell classifier: class and attributes of one centred cell."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.attributes import Schema, schema_named
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, DETECTOR_UM
from bloodfilm.imaging.colour_normalisation import ColourStandard
from bloodfilm.losses.classification import attribute_losses, tree_loss
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.config import Config
from bloodfilm.training.data.appearance import Float32s, colour_profile
from bloodfilm.training.data.balanced_sampling import draw_weights, lone_labels
from bloodfilm.training.data.cell_crops import (
    CellCrops,
    CellSampler,
    StreamedImages,
    classifier_leaves,
    label_groups,
    load_crops,
    sample_per_label,
)
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.hard_negatives import HardNegatives, load_hard_negatives
from bloodfilm.training.data.sharded import EpochKeys, EpochOrder, FieldHeaders
from bloodfilm.training.data.sources import (
    Progress,
    SourcedField,
    check_split_disjoint,
    open_sources,
)
from bloodfilm.training.networks import build_classifier
from bloodfilm.training.tasks.base import Key
from bloodfilm.training.tasks.common import describe_sources, start_network, to_tensor

Sample = tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.int64], bool]
Batch = tuple[Tensor, Tensor, Tensor, Tensor]
HARD_NEGATIVES = 13
"""Stream of chance beside the cells' own."""
PROFILES = 29
"""Stream of chance by which crops that lend their colours are chosen."""
PROFILES_A_SET = 150
START_CELLS = 256
EVALUATION_BATCH = 64
PROTOTYPE_CELLS = 200
"""Cells of a label that its prototype is taken from, where the cells are not in memory."""


def crop_scale(config: Config) -> float:
    """Return um/px of what the classifier sees: a crop of its own, or the detector's view."""
    return DETECTOR_UM if config.model.input == "roi" else CROP_UM


def crop_view(config: Config) -> CropView:
    """Return how the classifier of a configuration sees stored crops."""
    standard = ColourStandard(nucleus=None) if config.appearance.normalise else None
    return CropView(crop_scale(config), standard, config.appearance, config.augment)


class ClassifierTask:
    """Names a cell to the depth of its label, answers the schema's attributes, confirms the cell.

    The last is learnt from hard negatives, where the configuration names some.
    """

    score_name = "score"

    def __init__(self, config: Config, root: Path, progress: Progress) -> None:
        self.config = config
        self.taxonomy = DEFAULT_TAXONOMY
        self.schema = schema_named(config.data.schemas)
        self.leaves = classifier_leaves(self.taxonomy)
        self.view = crop_view(config)
        train = open_sources(config.data.train, root)
        validation = open_sources(config.data.validation, root)
        negatives = open_sources(config.hard_negatives.train, root)
        validation_negatives = open_sources(config.hard_negatives.validation, root)
        self.split = check_split_disjoint(
            FieldHeaders(train, negatives), FieldHeaders(validation, validation_negatives)
        )
        self.sources = {
            "train": describe_sources(train),
            "validation": describe_sources(validation),
            "hard_negatives": describe_sources([*negatives, *validation_negatives]),
        }
        balanced = self.view.standard is None
        self.train, self.validation = (
            load_crops(s, self.schema, self.taxonomy, progress, balanced=balanced)
            for s in (train, validation)
        )
        self.negatives = self._load_negatives(negatives, progress)
        self.validation_negatives = self._load_negatives(validation_negatives, progress)
        if min(config.optim.batch, len(self.train)) < 2:
            raise ConfigError(
                "optim.batch: the classifier learns from batches of two cells or more"
            )
        self.turns = self._turns()
        self.chances = self._chances()
        self.lone = lone_labels(self.train)
        self.profiles = self._profiles()
        self.value_weights = value_weights(self.train, self.schema, config.loss.balance)
        torch.manual_seed(config.seed)
        self.network = build_classifier(config, self.schema)
        some = self._some(np.random.default_rng(config.seed))
        start_network(
            self.network,
            config,
            root,
            (self.view.plain(self.train.images[self._openable(i)]) for i in some),
        )

    def _some(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the cells by which the network is set up: drawn as training will draw them."""
        if self.chances is None:
            return rng.permutation(len(self.train))[:START_CELLS]
        cells = self.chances[: len(self.train)]
        return rng.choice(len(self.train), START_CELLS, p=cells / cells.sum())

    def _chances(self) -> NDArray[np.float64] | None:
        """Return how likely each cell, and each hard negative after them, is to be drawn.

        `None` where every one comes up as often as its source says.
        """
        if self.config.sampling.even:
            return None
        if self.turns is not None:
            raise ConfigError(
                "sampling: cells of an index are drawn in its order; list the data set itself, or "
                "leave sampling.sets and sampling.labels at 1"
            )
        cells = draw_weights(self.train, self.config.sampling)
        if self.negatives is None:
            return cells
        share = self.config.hard_negatives.share
        places = self.negatives.weights / self.negatives.weights.sum()
        return np.concatenate([cells * (1 - share), places * share])

    def _profiles(self) -> list[list[Float32s]]:
        """Return colour profiles of some crops of every data set, to give others their colours."""
        section, standard = self.config.appearance, self.view.standard
        images = self.train.images
        if standard is None or not (section.transfer or section.transfer_lone):
            return []
        if isinstance(images, StreamedImages):
            raise ConfigError(
                "appearance: colours cannot be transferred between crops of an index; list the "
                "data set itself, or set appearance.transfer and transfer_lone to 0"
            )
        rng = np.random.default_rng([self.config.seed, PROFILES])
        profiles = []
        for source in np.unique(self.train.sources):
            of_set = np.flatnonzero(self.train.sources == source)
            some = rng.permutation(of_set)[:PROFILES_A_SET]
            profiles.append([colour_profile(self.view.cut(images[i]), standard) for i in some])
        return profiles

    def _profile(self, i: int, rng: np.random.Generator) -> Float32s | None:
        """Return the colours that a cell's crop is to take over, `None` for its own."""
        if not self.profiles:
            return None
        section = self.config.appearance
        if rng.random() >= (section.transfer_lone if self.lone[i] else section.transfer):
            return None
        of_set = self.profiles[int(rng.integers(len(self.profiles)))]
        return of_set[int(rng.integers(len(of_set)))]

    def _load_negatives(
        self, sourced: Sequence[SourcedField], progress: Progress
    ) -> HardNegatives | None:
        if not sourced:
            return None
        return load_hard_negatives(sourced, self.config.hard_negatives, self.config.seed, progress)

    @property
    def model(self) -> CellClassifierNet:
        """The classifier."""
        return self.network

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return every cell as often as its source repeats, shuffled.

        Hard negatives are numbered after the cells. An epoch of sharded data goes on where the one
        before ended. Where `sampling` makes cells unequal they are drawn with replacement, and a
        key's first number is that of the draw.
        """
        if self.chances is not None:
            count = self.config.optim.samples or len(self.chances)
            rng = np.random.default_rng([self.config.seed, epoch])
            drawn = rng.choice(len(self.chances), count, p=self.chances)
            return [(epoch * count + place, int(i)) for place, i in enumerate(drawn)]
        if self.turns is not None:
            samples = self.config.optim.samples or self.turns.length
            return EpochKeys(epoch, self.turns.window(epoch * samples, samples))
        rng = np.random.default_rng([self.config.seed, epoch])
        weights = self._weights()
        whole, part = np.divmod(weights, 1)
        times = whole.astype(int) + (rng.random(len(part)) < part)
        order = rng.permutation(np.repeat(np.arange(len(weights)), times))
        if self.config.optim.samples:
            order = order[: self.config.optim.samples]
        return [(epoch, int(i)) for i in order]

    def _weights(self) -> NDArray[np.float64]:
        """Return how often an epoch draws each cell, and each hard negative after them."""
        if self.negatives is None:
            return self.train.weights
        return np.concatenate([self.train.weights, self.negatives.weights])

    def _turns(self) -> EpochOrder | None:
        """Return the order of a stream's cells; `None` where they are in memory."""
        images = self.train.images
        if not isinstance(images, StreamedImages):
            return None
        order = CellSampler(images.stream, images.field_of, self._weights())
        return EpochOrder(order, self.config.seed)

    def _openable(self, i: int) -> int:
        """Return a cell, or another where its field is of a stream and cannot be opened."""
        images = self.train.images
        return images.nearest(i) if isinstance(images, StreamedImages) else i

    def sample(self, key: Key) -> Sample:
        """Vary one cell's crop."""
        epoch, i = key
        if i >= len(self.train):
            return self._negative_sample(epoch, i - len(self.train))
        i = self._openable(i)
        rng = np.random.default_rng([self.config.seed, epoch, i])
        profile = self._profile(i, rng)
        crop = self.view.varied(self.train.images[i], rng, profile)
        return crop, self.train.allowed[i], self.train.codes[i], True

    def _negative_sample(self, epoch: int, i: int) -> Sample:
        """Vary one place; of class and attributes it says nothing."""
        assert self.negatives is not None
        rng = np.random.default_rng([self.config.seed, HARD_NEGATIVES, epoch, i])
        crop = self.negatives.varied(i, rng, self.config.hard_negatives, self.view)
        nothing = np.zeros_like(self.train.allowed[0]), np.full_like(self.train.codes[0], -1)
        return crop, *nothing, bool(self.negatives.nucleated[i])

    def collate(self, samples: Sequence[Sample]) -> Batch:
        """Stack crops, allowed leaves, codes, and whether each is a nucleated cell."""
        crops, allowed, codes, nucleated = zip(*samples, strict=True)
        return (
            to_tensor(crops),
            torch.from_numpy(np.stack(allowed)),
            torch.from_numpy(np.stack(codes)),
            torch.tensor(nucleated, dtype=torch.float32),
        )

    def losses(self, model: nn.Module, batch: Batch, device: torch.device) -> dict[str, Tensor]:
        """Return the class term, one term per attribute and that of hard negatives, weighted."""
        crops, allowed, codes, nucleated = (t.to(device) for t in batch)
        outputs = model(crops.to(memory_format=torch.channels_last))
        loss = self.config.loss
        weights = {k: v.to(device) for k, v in self.value_weights.items()}
        terms = attribute_losses(outputs["attributes"], codes, self.schema.slices, weights)
        learnt = [name for name in terms if name in weights]
        terms = {name: terms[name] / len(learnt) for name in learnt}
        terms["class"] = tree_loss(outputs["classes"], allowed, loss.smoothing)
        terms["class"] = terms["class"] * loss.class_weight
        if self.negatives is not None:
            doubt = functional.binary_cross_entropy_with_logits(outputs["nucleated"], nucleated)
            terms["nucleated"] = doubt * loss.nucleated
        return terms

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return class accuracy, each attribute's macro-F1, their mean, and `score`, their sum.

        With hard negatives also the balanced accuracy of telling nucleated cells from them.
        """
        assert isinstance(model, CellClassifierNet)
        outputs = predict_crops(model, self.validation, device, self.view)
        right = self.validation.allowed[
            np.arange(len(self.validation)), outputs["classes"].argmax(1)
        ]
        named = self.validation.allowed.any(1)
        metrics = {"class_accuracy": float(right[named].mean())}
        for column, (name, where) in enumerate(self.schema.slices.items()):
            codes = self.validation.codes[:, column]
            known = codes >= 0
            if known.any():
                said = outputs["attributes"][known, where].argmax(1)
                metrics[f"f1_{name}"] = macro_f1(codes[known], said)
        f1 = [v for k, v in metrics.items() if k.startswith("f1_")]
        metrics["mean_f1"] = float(np.mean(f1)) if f1 else 0.0
        metrics["score"] = metrics["class_accuracy"] + metrics["mean_f1"]
        if self.validation_negatives is not None:
            said = predict_nucleated(model, self.validation_negatives, device, self.view) > 0
            right = said == self.validation_negatives.nucleated
            sides = (
                right[self.validation_negatives.nucleated],
                right[~self.validation_negatives.nucleated],
            )
            metrics["nucleated_accuracy"] = float(np.mean([side.mean() for side in sides]))
        return metrics

    @torch.no_grad()
    def finish(self, model: nn.Module, device: torch.device) -> None:
        """Set the class prototypes that `novelty` measures against, from the training cells."""
        assert isinstance(model, CellClassifierNet)
        cells = sample_per_label(self.train, PROTOTYPE_CELLS, self.config.seed)
        description = predict_crops(model, cells, device, self.view)["description"]
        # A class never seen is near to nothing.
        means = np.full((len(self.leaves), model.size), 1e4, np.float32)
        residuals = []
        for group in label_groups(cells.allowed):
            of_group = description[(cells.allowed == group).all(1)]
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
            "untrained": {
                "classes": [n for n, s in zip(self.leaves, seen, strict=True) if not s],
                "attributes": [n for n in self.schema.names if n not in self.value_weights],
            },
            "verifies": self.negatives is not None,
            "size": CROP_SIZE,
            "um_per_px": self.view.um_per_px,
            "colours": None if self.view.standard is None else self.view.standard.to_json(),
            "sources": self.sources,
            "split": self.split,
        }


def value_weights(crops: CellCrops, schema: Schema, balance: float) -> dict[str, Tensor]:
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


def predict_crops(
    model: CellClassifierNet, crops: CellCrops, device: torch.device, view: CropView
) -> dict[str, NDArray[np.float32]]:
    """Return the classifier's outputs on stored crops, rows in their order."""
    return predict_images(model, (view.plain(i) for i in crops.images), device)


def predict_nucleated(
    model: CellClassifierNet,
    places: HardNegatives,
    device: torch.device,
    view: CropView,
) -> NDArray[np.float32]:
    """Return the classifier's logits (n,) for a nucleated cell in the middle of every place."""
    plain = (view.plain(image) for image in places.images)
    return predict_images(model, plain, device)["nucleated"]


@torch.no_grad()
def predict_images(
    model: CellClassifierNet, crops: Iterable[NDArray[np.uint8]], device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """Return the classifier's outputs on crops as it sees them, rows in their order."""
    parts: list[dict[str, Tensor]] = []
    left = iter(crops)
    while images := list(itertools.islice(left, EVALUATION_BATCH)):
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
