"""Adapting a classifier to a microscope of which no cell is labelled.

Self-training with a mean teacher (Tarvainen, Valpola 2017): the teacher, the average of the
student's weights, names each cell as it is; the student learns these names from views in other
stain, optics and orientation. Where the teacher is not sure nothing is learnt of the class. Cells
that the original model was sure of keep its answer, and attributes and the verification head are
distilled from the teacher.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.evaluation.label_free import LabelFreeFigures, Original, label_free_figures
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.losses.attributes import attribute_loss
from bloodfilm.models.backbone import pair_batch_norms
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.config import Config
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.keys import Key
from bloodfilm.training.tasks.classifier import predict_images
from bloodfilm.training.tasks.common import to_tensor
from bloodfilm.training.vocabulary import Vocabulary

VIEWS = 6
"""Augmented views of each held-out cell."""
HELD_OUT, DRAWS = 41, 43
"""Random-stream ids."""
BALANCE = 0.5
"""Exponent on the inverse frequency of the predicted class with which cells are drawn."""
LOSS_WEIGHTS = {
    "teacher": 1.0,
    "original": 0.5,
    "attributes": 1.0,
    "nucleated": 0.5,
}


@dataclass(frozen=True)
class TargetCells:
    """Cells of the new microscope, with the original model's answers.

    Attributes:
        images: (n, 224, 224, 3) stored crops.
        classes: (n, leaves) calibrated probabilities of the original model.
        groups: (n,) number of the field, or the folder, each is from.
    """

    images: NDArray[np.uint8]
    classes: NDArray[np.float64]
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def take(self, which: NDArray[np.bool_]) -> "TargetCells":
        """Return some of the cells."""
        return TargetCells(self.images[which], self.classes[which], self.groups[which])


@dataclass(frozen=True)
class Calibration:
    """What a bundle divides logits by, and where it begins to name.

    Attributes:
        learnt: per leaf, whether it can be named.
        temperature: of the class.
        confidence: from which a class is named.
    """

    learnt: tuple[bool, ...]
    temperature: float
    confidence: float

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return calibrated probabilities (n, leaves) of logits."""
        return leaf_probabilities(logits, self.learnt, self.temperature)


@dataclass(frozen=True)
class AdaptationBatch:
    """Cells in a batch.

    Attributes:
        varied, plain: (B, 3, S, S) augmented for the student, plain for the teacher.
        original: (B, leaves) the original's probabilities.
    """

    varied: Tensor
    plain: Tensor
    original: Tensor

    @property
    def domain(self) -> Tensor:
        """The index of each cell's domain: there is one."""
        return torch.zeros(len(self.original), dtype=torch.long)

    def to(self, device: torch.device) -> "AdaptationBatch":
        """Move every tensor."""
        return AdaptationBatch(*(getattr(self, f.name).to(device) for f in fields(self)))


@dataclass(frozen=True)
class AdaptationSample:
    """One cell, see `AdaptationBatch`."""

    varied: NDArray[np.uint8]
    plain: NDArray[np.uint8]
    original: NDArray[np.float64]


class AdaptationSamples:
    """Draws target cells, classes evened out as far as they are guessed.

    Args:
        config: of the run.
        cells: of the new microscope.
        view: what the classifier sees of a stored crop.
        vocabulary: of the bundle.
    """

    def __init__(
        self,
        config: Config,
        cells: TargetCells,
        view: CropView,
        vocabulary: Vocabulary,
    ) -> None:
        self.config, self.cells, self.view = config, cells, view
        self.vocabulary = vocabulary
        guess = cells.classes.argmax(1)
        count = np.bincount(guess, minlength=cells.classes.shape[1])
        chances = np.asarray(count[guess], dtype=np.float64) ** -BALANCE
        self.chances = chances / chances.sum()

    def keys(self, epoch: int) -> Sequence[Key]:
        """Return the cells of an epoch."""
        rng = np.random.default_rng([self.config.seed, DRAWS, epoch])
        count = self.config.optim.samples or len(self.cells)
        drawn = rng.choice(len(self.cells), count, p=self.chances)
        return [(epoch * count + place, int(i)) for place, i in enumerate(drawn)]

    def sample(self, key: Key) -> AdaptationSample:
        """Augment one cell."""
        place, i = key
        rng = np.random.default_rng([self.config.seed, DRAWS, place, i])
        image = self.cells.images[i]
        varied, plain = self.view.varied(image, rng), self.view.plain(image)
        return AdaptationSample(varied, plain, self.cells.classes[i])

    def collate(self, samples: Sequence[AdaptationSample]) -> AdaptationBatch:
        """Stack crops and targets."""
        return AdaptationBatch(
            to_tensor([s.varied for s in samples]),
            to_tensor([s.plain for s in samples]),
            torch.from_numpy(np.stack([s.original for s in samples])).float(),
        )


class ClassifierAdaptationTask:
    """Self-training of a classifier; the loop gives it the teacher.

    Args:
        config: of the run.
        network: the original classifier, batch norms with statistics.
        samples: cells to learn from.
        held_out: cells to judge by.
        calibration: of the bundle.
        record: what the run's record says of data and vocabulary.
    """

    score_name = "information"

    def __init__(
        self,
        config: Config,
        network: CellClassifierNet,
        samples: AdaptationSamples,
        held_out: TargetCells,
        calibration: Calibration,
        record: Mapping[str, Any],
    ) -> None:
        self.config, self.network, self.samples = config, network, samples
        self.held_out, self.calibration = held_out, calibration
        self.about = dict(record)
        self.teacher: CellClassifierNet | None = None
        self.slices = samples.vocabulary.schema.slices
        self.original: Original | None = None

    @property
    def model(self) -> CellClassifierNet:
        """The student."""
        return self.network

    @property
    def loss_weights(self) -> Mapping[str, float]:
        """The weight of every term."""
        return LOSS_WEIGHTS

    def set_teacher(self, average: nn.Module) -> None:
        """Take the averaged weights as teacher."""
        assert isinstance(average, CellClassifierNet)
        self.teacher = average

    def state_dict(self) -> dict[str, Tensor]:
        """Return nothing: the teacher is in the checkpoint already."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Do nothing."""

    def losses(
        self, model: nn.Module, batch: AdaptationBatch, device: torch.device
    ) -> dict[str, Tensor]:
        """Return the terms of the teacher and of the original."""
        batch = batch.to(device)
        assert self.teacher is not None, "the loop calls set_teacher first"
        with torch.no_grad():
            seen = self.teacher.eval()(batch.plain.to(memory_format=torch.channels_last))
        outputs = model(batch.varied.to(memory_format=torch.channels_last))
        log_p = self._log_probabilities(outputs["classes"])
        taught = self._log_probabilities(seen["classes"]).exp()
        sure = taught.amax(1) >= self.calibration.confidence
        kept = batch.original.amax(1) >= self.calibration.confidence
        goals = torch.cat(
            [seen["attributes"][:, w].float().softmax(1) for w in self.slices.values()], 1
        )
        every = torch.ones(len(goals), device=goals.device)
        return {
            "teacher": _soft_cross_entropy(log_p, taught, sure),
            "original": _soft_cross_entropy(log_p, batch.original, kept),
            "attributes": attribute_loss(outputs["attributes"], goals, every, self.slices, False),
            "nucleated": functional.binary_cross_entropy_with_logits(
                outputs["nucleated"].float(), seen["nucleated"].float().sigmoid()
            ),
        }

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        """Return calibrated log probabilities (n, leaves); a leaf never learnt has none."""
        learnt = torch.tensor(self.calibration.learnt, device=logits.device)
        scaled = logits.float() / self.calibration.temperature
        return functional.log_softmax(scaled.masked_fill(~learnt, -1e4), dim=1)

    def validate(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return the label-free figures on held-out cells."""
        figures = self.judge(model, device)
        return {k: float(v) for k, v in figures.to_json().items() if v is not None}

    def judge(self, model: nn.Module, device: torch.device) -> LabelFreeFigures:
        """Return the label-free figures of a network; the first one is taken as the original."""
        assert isinstance(model, CellClassifierNet)
        plain, views = view_probabilities(
            model, self.held_out, self.samples.view, self.calibration, self.config.seed
        )
        if self.original is None:
            self.original = Original.of(plain, views, self.calibration.confidence)
        return label_free_figures(plain, views, self.calibration.confidence, self.original)

    def finish(self, model: nn.Module, device: torch.device) -> None:
        """Nothing is left to set: prototypes are moved when the bundle is made."""

    def record(self) -> dict[str, Any]:
        """Return vocabulary and data."""
        return self.about


def _soft_cross_entropy(log_p: Tensor, goal: Tensor, counted: Tensor) -> Tensor:
    """Return the mean cross entropy over the rows that count; zero without any."""
    each = -(goal * log_p).sum(1) * counted
    return each.sum() / counted.sum().clamp_min(1)


@torch.no_grad()
def view_probabilities(
    model: CellClassifierNet,
    cells: TargetCells,
    view: CropView,
    calibration: Calibration,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return class probabilities of cells as they are (n, k), and of their views (n, v, k).

    The views are the same whenever the seed is.
    """
    device = next(model.parameters()).device
    model.eval()
    plain = predict_images(model, (view.plain(image) for image in cells.images), device)
    views = [
        predict_images(model, varied_images(cells, view, number, seed), device)["classes"]
        for number in range(VIEWS)
    ]
    stacked = [calibration.probabilities(logits) for logits in views]
    return calibration.probabilities(plain["classes"]), np.stack(stacked, axis=1)


def varied_images(
    cells: TargetCells, view: CropView, number: int, seed: int
) -> Iterator[NDArray[np.uint8]]:
    """Yield one of the `VIEWS` views of each cell by which a classifier is judged."""
    for i, image in enumerate(cells.images):
        yield view.varied(image, np.random.default_rng([seed, HELD_OUT, number, i]))


# ---- statistics of batch norms -----------------------------------------------------------------


@torch.no_grad()
def align_statistics(
    model: CellClassifierNet, batches: Sequence[Tensor], *, all_layers: bool
) -> None:
    """Replace the statistics of batch norms by those of other cells (AdaBN, Li et al. 2017).

    Args:
        model: changed in place.
        batches: (n, 3, S, S) each, of the new microscope.
        all_layers: align every batch norm. They must have the statistics of the training data then,
            see `unfold_batch_norm`; otherwise only the last, of the cell's description, whose
            statistics every graph keeps.
    """
    norms: list[nn.BatchNorm1d | nn.BatchNorm2d] = [model.norm]
    if all_layers:
        norms += [norm for _, norm in pair_batch_norms(model)]
    before = {norm: norm.momentum for norm in norms}
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in batches:
        model(batch)
    for norm, momentum in before.items():
        norm.momentum = momentum
    model.eval()
