"""Training of the cell classifier: class and attributes of one centred cell."""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bloodfilm.core.arrays import Floats32
from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import Progress
from bloodfilm.evaluation.classification import macro_f1
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, DETECTOR_UM
from bloodfilm.imaging.colour_normalisation import ColourStandard
from bloodfilm.losses.classification import attribute_losses, tree_loss
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.config import Config
from bloodfilm.training.corrections import begin_like_relatives, fit_correction, value_balance
from bloodfilm.training.data.appearance import colour_profile
from bloodfilm.training.data.balanced_sampling import draw_weights, lone_labels
from bloodfilm.training.data.cell_crops import (
    CellCrops,
    CellSampler,
    StreamedImages,
    label_groups,
    load_crops,
    sample_per_label,
)
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.domains import UNKNOWN_DOMAIN
from bloodfilm.training.data.hard_negatives import HardNegatives, load_hard_negatives
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.rendered_crops import (
    render_training_crops,
    render_validation_crops,
    rendered_weights,
)
from bloodfilm.training.data.sharded import EpochKeys, EpochOrder
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.film_offsets import (
    NO_FILM,
    film_numbers,
    film_offset,
    leaf_groups,
    means_of_leaves,
    of_sets,
    set_of,
)
from bloodfilm.training.networks import build_classifier
from bloodfilm.training.records import RECORD, ClassifierRecord, read_record
from bloodfilm.training.run_data import RunData, describe_sources
from bloodfilm.training.tasks.common import go_back, start_network, to_tensor

HARD_NEGATIVES = 13
"""Random-stream id, different from that of the cells."""
PROFILES = 29
"""Random-stream id of the choice of crops whose colours are transferred."""
PROFILES_A_SET = 150
START_CELLS = 256
EVALUATION_BATCH = 64
NO_CROP = np.zeros((0, 0, 3), dtype=np.uint8)
PROTOTYPE_CELLS = 200
"""Cells of a label that its prototype is taken from, where the cells are not in memory."""


def crop_scale(config: Config) -> float:
    """Return um/px of the classifier's input: a crop of its own, or the detector's view."""
    return DETECTOR_UM if config.model.input == "roi" else CROP_UM


def crop_view(config: Config) -> CropView:
    """Return the preprocessing of stored crops of a configuration."""
    standard = ColourStandard(nucleus=None) if config.appearance.normalise else None
    return CropView(crop_scale(config), standard, config.appearance, config.augment)


@dataclass(frozen=True)
class CellSample:
    """One training crop.

    Attributes:
        crop: (S, S, 3) the classifier's input.
        allowed: (leaves,) the leaves that its label stands for; none if its class is unknown.
        codes: (attributes,) index of each value, -1 if unknown.
        nucleated: whether it shows a cell of the classified type; `None`: not for its score to say.
        domain: index of its domain, -1 if unknown.
    """

    crop: NDArray[np.uint8]
    allowed: NDArray[np.bool_]
    codes: NDArray[np.int64]
    nucleated: bool | None
    domain: int


@dataclass(frozen=True)
class ClassifierBatch:
    """Several samples as tensors: see `CellSample`."""

    crops: Tensor
    allowed: Tensor
    codes: Tensor
    nucleated: Tensor
    domain: Tensor

    def to(self, device: torch.device) -> "ClassifierBatch":
        """Move every tensor."""
        return ClassifierBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


class ClassifierSamples:
    """Training crops of cells, and of hard negatives after them.

    Args:
        config: of the run.
        train: the cells.
        negatives: hard negatives, if any.
        rendered: rendered crops of the classes that are no cells, if any. They follow the cells in
            `train`.

    Raises:
        ConfigError: if a setting does not suit the data.
    """

    def __init__(
        self,
        config: Config,
        train: CellCrops,
        negatives: HardNegatives | None,
        rendered: CellCrops | None = None,
    ) -> None:
        self.config, self.negatives, self.rendered = config, negatives, rendered
        self.labelled = len(train)
        self.train = train = train if rendered is None else train.join(rendered)
        if rendered is not None:
            # The label of the rendered cells: a cell, whatever its class.
            self.is_cell = rendered.allowed[rendered.allowed.sum(1) > 1][0]
        self.view = crop_view(config)
        if min(config.optim.batch, len(train)) < 2:
            raise ConfigError(
                "optim.batch: the classifier learns from batches of two cells or more"
            )
        self.order = self._order()
        self.chances = self._chances()
        self.lone = lone_labels(train)
        self.profiles = self._profiles()

    def start_cells(self, rng: np.random.Generator) -> NDArray[np.int64]:
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
        if self.order is not None:
            raise ConfigError(
                "sampling: cells of an index are drawn in its order; list the data set itself, or "
                "leave sampling.sets and sampling.labels at 1"
            )
        cells = draw_weights(self.train.take(np.arange(self.labelled)), self.config.sampling)
        if self.rendered is not None:
            share = self.config.rendered.share
            cells = np.concatenate([cells * (1 - share), rendered_weights(self.rendered) * share])
        if self.negatives is None:
            return cells
        share = self.config.hard_negatives.share
        places = self.negatives.weights / self.negatives.weights.sum()
        return np.concatenate([cells * (1 - share), places * share])

    def _profiles(self) -> list[list[Floats32]]:
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

    def _profile(self, i: int, rng: np.random.Generator) -> Floats32 | None:
        """Return the colours that a cell's crop is to take over, `None` for its own."""
        if not self.profiles:
            return None
        section = self.config.appearance
        if rng.random() >= (section.transfer_lone if self.lone[i] else section.transfer):
            return None
        of_set = self.profiles[int(rng.integers(len(self.profiles)))]
        return of_set[int(rng.integers(len(of_set)))]

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
        if self.order is not None:
            samples = self.config.optim.samples or self.order.length
            return EpochKeys(epoch, self.order.window(epoch * samples, samples))
        rng = np.random.default_rng([self.config.seed, epoch])
        weights = self._weights()
        whole, part = np.divmod(weights, 1)
        times = whole.astype(int) + (rng.random(len(part)) < part)
        order = rng.permutation(np.repeat(np.arange(len(weights)), times))
        if self.config.optim.samples:
            order = order[: self.config.optim.samples]
        return [(epoch, int(i)) for i in order]

    def correction_keys(self, count: int) -> list[Key]:
        """Return so many samples, drawn as training draws them, other than those of its epochs."""
        keys: list[Key] = []
        epoch = self.config.optim.epochs
        while len(keys) < count:
            more = self.keys(epoch)
            if not more:
                raise ConfigError("training: an epoch draws nothing; raise data.train.repeat")
            keys += more
            epoch += 1
        return keys[:count]

    def patient_groups(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return a number per place in the training data: another for each set and patient."""
        cells = np.column_stack([self.train.sources, self.train.patients])
        number = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
        return np.where(places < len(number), number[np.minimum(places, len(number) - 1)], -1)

    def _weights(self) -> NDArray[np.float64]:
        """Return how often an epoch draws each cell, and each hard negative after them."""
        if self.negatives is None:
            return self.train.weights
        return np.concatenate([self.train.weights, self.negatives.weights])

    def _order(self) -> EpochOrder | None:
        """Return the order of a stream's cells; `None` where they are in memory."""
        images = self.train.images
        if not isinstance(images, StreamedImages):
            return None
        order = CellSampler(images.stream, images.field_of, self._weights())
        return EpochOrder(order, self.config.seed)

    def openable(self, i: int) -> int:
        """Return a cell, or another where its field is of a stream and cannot be opened."""
        images = self.train.images
        return images.nearest(i) if isinstance(images, StreamedImages) else i

    def sample(self, key: Key) -> CellSample:
        """Augment one cell's crop."""
        epoch, i = key
        if self.negatives is not None and i >= len(self.train):
            return self._negative_sample(self.negatives, epoch, i - len(self.train))
        i = self.openable(i)
        rng = np.random.default_rng([self.config.seed, epoch, i])
        profile = self._profile(i, rng)
        crop = self.view.varied(self.train.images[i], rng, profile)
        domain = int(self.train.domains[i])
        # Whether a rendered object is one is a matter of its class alone: it is to be named.
        nucleated = True if i < self.labelled else None
        return CellSample(crop, self.train.allowed[i], self.train.codes[i], nucleated, domain)

    def _negative_sample(self, negatives: HardNegatives, epoch: int, i: int) -> CellSample:
        """Augment one place; attributes are unknown, of the class whether it is a cell."""
        rng = np.random.default_rng([self.config.seed, HARD_NEGATIVES, epoch, i])
        crop = negatives.varied(i, rng, self.config.hard_negatives, self.view)
        nucleated, codes = bool(negatives.nucleated[i]), np.full_like(self.train.codes[0], -1)
        allowed = np.zeros_like(self.train.allowed[0])
        if self.rendered is not None:
            allowed = self.is_cell if nucleated else ~self.is_cell
        return CellSample(crop, allowed, codes, nucleated, UNKNOWN_DOMAIN)

    def collate(self, samples: Sequence[CellSample]) -> ClassifierBatch:
        """Stack crops and targets."""
        return ClassifierBatch(
            to_tensor([s.crop for s in samples]),
            torch.from_numpy(np.stack([s.allowed for s in samples])),
            torch.from_numpy(np.stack([s.codes for s in samples])),
            torch.tensor(
                [float("nan") if s.nucleated is None else float(s.nucleated) for s in samples],
                dtype=torch.float32,
            ),
            torch.tensor([s.domain for s in samples], dtype=torch.long),
        )


class ClassifierTask:
    """Names a cell to the depth of its label, predicts attributes, verifies that it is a cell.

    The verification is learnt from hard negatives, where the configuration names some.

    Args:
        config: of the run.
        samples: training crops.
        validation: cells to judge by.
        run: vocabulary and record of the data.
        validation_negatives: hard negatives to judge by, if any.
        validation_rendered: rendered crops to judge by, if any.

    Raises:
        ConfigError: if no validation cell has a class.
    """

    score_name = "score"

    def __init__(
        self,
        config: Config,
        samples: ClassifierSamples,
        validation: CellCrops,
        run: RunData,
        validation_negatives: HardNegatives | None = None,
        validation_rendered: CellCrops | None = None,
    ) -> None:
        self.config, self.samples, self.run = config, samples, run
        self.train, self.validation = samples.train, validation
        self.negatives, self.validation_negatives = samples.negatives, validation_negatives
        self.validation_rendered = validation_rendered
        self.schema, self.leaves, self.view = (
            run.vocabulary.schema,
            run.vocabulary.leaves,
            samples.view,
        )
        if config.correction.samples and isinstance(self.train.images, StreamedImages):
            raise ConfigError(
                "correction: cells of an index cannot be corrected by; list the data set itself, "
                "or leave the section out"
            )
        if config.film_offset.sets and not config.correction.samples:
            raise ConfigError("film_offset: needs correction.samples, to which it is fitted")
        if config.model.keep and config.model.start is None:
            raise ConfigError("model.keep: needs model.start, whose weights are kept in part")
        if not validation.allowed.any():
            raise ConfigError("data.validation: no cell has a class; choose other data or splits")
        self.untrained_before = untrained_in_start(config)
        self.value_weights = value_weights(self.train, self.schema, config.loss.balance)
        torch.manual_seed(config.seed)
        self.network = build_classifier(config, run.vocabulary)

    @classmethod
    def from_config(cls, config: Config, root: Path, progress: Progress) -> "ClassifierTask":
        """Open and load the data of a configuration, and the weights it starts from.

        Raises:
            ConfigError: where the data are missing, leak, or hold nothing to learn or to judge by.
        """
        train = open_sources(config.data.train, root)
        validation = open_sources(config.data.validation, root)
        section = config.hard_negatives
        negatives = open_sources(section.train, root)
        held_negatives = open_sources(section.validation, root)
        run = RunData.of_sources(config, root, [train, negatives], [validation, held_negatives])
        sources = {
            "train": describe_sources(train),
            "validation": describe_sources(validation),
            "hard_negatives": describe_sources([*negatives, *held_negatives]),
        }
        run = replace(run, sources=sources)
        balanced = crop_view(config).standard is None
        words = run.vocabulary
        if words.other is not None and config.sampling.even:
            raise ConfigError(
                "data.other: rendered crops are drawn by sampling; set sampling.sets or "
                "sampling.labels below 1"
            )
        crops = load_crops(train, words, progress, balanced=balanced, domains=run.domains)
        held = load_crops(validation, words, progress, balanced=balanced)

        def load(sourced: Sequence[SourcedField]) -> HardNegatives | None:
            if not sourced:
                return None
            return load_hard_negatives(sourced, words, section, config.seed, progress)

        drawn, seed = config.rendered, config.seed
        hard = load(negatives)
        grounds = None if hard is None else hard.grounds()
        rendered = render_training_crops(words, drawn, seed, progress, grounds)
        held_rendered = render_validation_crops(words, drawn, seed, progress)
        samples = ClassifierSamples(config, crops, hard, rendered)
        task = cls(config, samples, held, run, load(held_negatives), held_rendered)
        cells = samples.start_cells(np.random.default_rng(config.seed))
        images = (samples.view.plain(crops.images[samples.openable(i)]) for i in cells)
        start_network(task.network, config, root, images, words)
        return task

    @property
    def model(self) -> CellClassifierNet:
        """The classifier."""
        return self.network

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weights of the configuration; attributes share one."""
        loss, attributes = self.config.loss, self.value_weights
        return {
            **{name: 1 / len(attributes) for name in attributes},
            "class": loss.class_weight,
            "nucleated": loss.nucleated,
        }

    def losses(
        self, model: CellClassifierNet, batch: ClassifierBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the class term, one term per trained attribute and that of hard negatives."""
        batch = batch.to(device)
        outputs = model(batch.crops.to(memory_format=torch.channels_last))
        weights = {k: v.to(device) for k, v in self.value_weights.items()}
        every = attribute_losses(outputs["attributes"], batch.codes, self.schema.slices, weights)
        terms = {name: every[name] for name in weights}
        terms["class"] = tree_loss(outputs["classes"], batch.allowed, self.config.loss.smoothing)
        if self.negatives is not None:
            known = ~batch.nucleated.isnan()
            terms["nucleated"] = functional.binary_cross_entropy_with_logits(
                outputs["nucleated"], batch.nucleated.nan_to_num(), known.float()
            )
        return terms

    def validate(self, model: CellClassifierNet, device: torch.device) -> dict[str, float]:
        """Return class accuracy, each attribute's macro-F1, their mean, and `score`, their sum.

        With hard negatives also the balanced accuracy of nucleated cells against them.
        """
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
                metrics[f"f1_{name}"] = macro_f1(codes[known], said, include_predicted=True)
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
        if self.validation_rendered is not None:
            metrics |= self._rendered_accuracy(model, self.validation_rendered, device)
        return metrics

    def _rendered_accuracy(
        self, model: CellClassifierNet, crops: CellCrops, device: torch.device
    ) -> dict[str, float]:
        """Return how many rendered objects get their class, and how many cells that of a cell."""
        said = predict_crops(model, crops, device, self.view)["classes"].argmax(1)
        right = crops.allowed[np.arange(len(crops)), said]
        is_object = crops.allowed.sum(1) == 1
        return {
            "rendered_objects": float(right[is_object].mean()),
            "rendered_cells": float(right[~is_object].mean()),
        }

    @torch.no_grad()
    def finish(self, model: CellClassifierNet, device: torch.device) -> None:
        """Go back to a share of the starting weights, fit corrections, set the class prototypes.

        The first two if configured. The prototypes, which `novelty` measures against, are those of
        the training cells.
        """
        if self.config.model.keep:
            self._go_back(model)
        if self.config.correction.samples:
            self._correct(model, device)
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

    def _correct(self, model: CellClassifierNet, device: torch.device) -> None:
        """Fit linear corrections to crops drawn and augmented as in training."""
        section, samples = self.config.correction, self.samples
        model.reset_corrections()
        new = self._new_leaves()
        if new:
            known = [leaf not in self.untrained_before for leaf in self.leaves]
            last = model.last_class_layer
            begin_like_relatives(
                last.weight, last.bias, new, self.leaves, known, self.run.vocabulary.taxonomy
            )
        keys = samples.correction_keys(section.samples)
        drawn: list[CellSample] = []

        def crops() -> Iterator[NDArray[np.uint8]]:
            for key in keys:
                sample = samples.sample(key)
                drawn.append(replace(sample, crop=NO_CROP))
                yield sample.crop

        outputs = {
            k: torch.from_numpy(v) for k, v in predict_images(model, crops(), device).items()
        }
        description, places = outputs["description"], np.array([i for _, i in keys])
        allowed = torch.from_numpy(np.stack([s.allowed for s in drawn]))
        named = allowed.any(1)
        rows = description[named], outputs["classes"][named], allowed[named]
        fitted = fit_correction(*rows, torch.ones(int(named.sum())), section.classes)
        if model.follows_film:
            self._fit_by_film(model, device, *rows[::2], places[named.numpy()])
        model.set_class_correction(*fitted)
        codes = np.stack([s.codes for s in drawn])
        groups = samples.patient_groups(places)
        weight, bias = torch.zeros(self.schema.width, model.size), torch.zeros(self.schema.width)
        for column, (name, where) in enumerate(self.schema.slices.items()):
            known_rows = np.flatnonzero(codes[:, column] >= 0)
            if name not in self.value_weights or not len(known_rows):
                continue
            values = codes[known_rows, column]
            weight[where], bias[where] = fit_correction(
                description[known_rows],
                outputs["attributes"][known_rows, where],
                torch.from_numpy(np.eye(where.stop - where.start, dtype=bool)[values]),
                torch.from_numpy(value_balance(values, groups[known_rows])).float(),
                section.attributes,
            )
        model.set_attribute_correction(weight, bias)

    def _fit_by_film(
        self,
        model: CellClassifierNet,
        device: torch.device,
        description: Tensor,
        allowed: Tensor,
        places: NDArray[np.int64],
    ) -> None:
        """Fit the correction of cells without the offsets of their films.

        Args:
            model: without corrections.
            device: that it is on.
            description: (n, size) of cells as training draws them.
            allowed: (n, leaves) what their labels stand for.
            places: (n,) which training cells they are, and hard negatives after them.
        """
        section, cells = self.config.film_offset, self.train
        words = self.run.vocabulary
        domains = self.run.domains.names
        shifted = of_sets(cells, domains, section.sets)
        if not shifted.any():
            raise ConfigError(
                f"film_offset.sets: no training cell is of {' or '.join(section.sets)}; the sets "
                f"are {', '.join(sorted({set_of(name) for name in domains}))}"
            )
        learnt = [leaf not in self.untrained_before for leaf in self.leaves]
        seen = np.asarray(label_groups(cells.allowed).any(0)).tolist()
        tree = words.taxonomy
        means, known = means_of_leaves(
            model.get_buffer("prototypes"), learnt, seen, self.leaves, tree
        )
        groups = torch.from_numpy(leaf_groups(section.groups, self.leaves, tree))
        model.set_film_means(means, known, torch.tensor(seen), groups)
        odds = torch.tensor([section.priors.get(leaf, 1.0) for leaf in self.leaves])
        model.class_bias.add_(odds.log())
        # What comes after the cells, and what is rendered, is of no film.
        offsets = torch.zeros(len(cells) + 1, model.size)
        films = film_numbers(cells)
        for film in np.unique(films[films != NO_FILM]):
            which = np.flatnonzero(films == film)
            plain = predict_crops(model, cells.take(which), device, self.view)["description"]
            offsets[which] = film_offset(model, torch.from_numpy(plain))
        model.class_bias.sub_(odds.log())
        places = np.minimum(places, len(cells))
        recentred = description - offsets[places]
        # Cells of all other sets are learnt as they are, too: half of each.
        both = torch.from_numpy(~np.append(shifted, False)[places])
        rows = torch.cat([recentred, description[both]])
        fitted = fit_correction(
            rows,
            model.class_head(rows),
            torch.cat([allowed, allowed[both]]),
            torch.cat([1 - both.float() / 2, torch.full((int(both.sum()),), 0.5)]),
            self.config.correction.classes,
        )
        model.set_film_correction(*fitted)

    def _new_leaves(self) -> list[str]:
        """Return the leaves that the training cells name and the start had not learnt."""
        seen = np.asarray(label_groups(self.train.allowed).any(0))
        return [
            leaf
            for leaf, named in zip(self.leaves, seen, strict=True)
            if named and leaf in self.untrained_before
        ]

    def _go_back(self, model: CellClassifierNet) -> None:
        """Average the weights with those that training started from.

        Outputs that the start did not have stay as they were trained.
        """
        start = deepcopy(model)
        start_network(start, self.config, Path(), (), self.run.vocabulary)
        go_back(model, start.state_dict(), self.config.model.keep)

    def _untrained_values(self) -> dict[str, list[str]]:
        """Return the values of trained attributes that no training cell has."""
        absent = {
            a.name: [
                v
                for v, w in zip(a.values, self.value_weights[a.name].tolist(), strict=True)
                if w == 0
            ]
            for a in self.schema.attributes
            if a.name in self.value_weights
        }
        return {name: values for name, values in absent.items() if values}

    def record(self) -> dict[str, Any]:
        """Return vocabulary, what was never seen, data and sizes."""
        seen = np.asarray(label_groups(self.train.allowed).any(0))
        return {
            "untrained": {
                "classes": [n for n, s in zip(self.leaves, seen, strict=True) if not s],
                "attributes": [n for n in self.schema.names if n not in self.value_weights],
                "values": self._untrained_values(),
            },
            "verifies": self.negatives is not None,
            "size": CROP_SIZE,
            "um_per_px": self.view.um_per_px,
            "colours": None if self.view.standard is None else self.view.standard.to_json(),
            **self.run.record(),
        }


def untrained_in_start(config: Config) -> frozenset[str]:
    """Return the leaves that the run whose weights a configuration starts from had not learnt."""
    start = config.model.start
    if start is None or not (start.parent / RECORD).is_file():
        return frozenset()
    return frozenset(read_record(start.parent, ClassifierRecord).untrained.classes)


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
    """Return the classifier's outputs on preprocessed crops, rows in their order."""
    parts: list[dict[str, Tensor]] = []
    left = iter(crops)
    while images := list(itertools.islice(left, EVALUATION_BATCH)):
        batch = to_tensor(images).to(device, memory_format=torch.channels_last)
        parts.append({k: v.float().cpu() for k, v in model(batch).items()})
    return {k: torch.cat([p[k] for p in parts]).numpy() for k in parts[0]}
