"""Adapt a bundle's classifier to cells of a new microscope: the torch side of `bloodfilm adapt`."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bloodfilm.core.arrays import Floats, Floats32
from bloodfilm.core.progress import Progress
from bloodfilm.evaluation.label_free import LabelFreeFigures, LabelledCheck
from bloodfilm.export.recovered import config_of, recover_classifier
from bloodfilm.inference.bundle import Bundle
from bloodfilm.models.backbone import unfold_batch_norm
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training import loop
from bloodfilm.training.callbacks import BaseCallback, StepInfo
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, DatasetConfig
from bloodfilm.training.data.cell_crops import CellCrops, load_crops
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.tasks.adaptation import (
    AdaptationSamples,
    Calibration,
    ClassifierAdaptationTask,
    TargetCells,
    align_statistics,
)
from bloodfilm.training.tasks.classifier import crop_view, predict_crops, predict_images
from bloodfilm.training.tasks.common import go_back, to_tensor
from bloodfilm.training.vocabulary import Vocabulary

Method = Literal["self-training", "statistics"]
METHODS: tuple[Method, ...] = ("self-training", "statistics")
EPOCHS = 8
BATCH = 32
RATE = 1e-4
DECAY = 0.99
PROBES = 64
STATISTICS_BATCH = 64
SOURCE_CELLS = 1024
ORIGINAL_SHARE = 0.7
"""Of the original's weights in what self-training returns: without them, classes that the new
microscope's fields hardly show are lost (`benchmarks/self_training.py`)."""
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class AdaptationSettings:
    """How to adapt.

    Attributes:
        method: `self-training`, or `statistics` (AdaBN).
        steps: of the optimiser.
        seed: of all chance.
        original_share: of the original's weights in what self-training returns.
        marked: (n, S, S, 3) cells that a person named, as the classifier sees them; they are not
            learnt from.
        source: cells of the original microscopes, for `statistics` in every layer.
        checks: labelled sets that must not become worse.
    """

    method: Method = "self-training"
    steps: int = 400
    seed: int = 0
    original_share: float = ORIGINAL_SHARE
    marked: NDArray[np.uint8] | None = None
    source: Path | None = None
    checks: Sequence[Path] = ()


@dataclass(frozen=True)
class AdaptedClassifier:
    """An adapted classifier, and what is known of it.

    Attributes:
        original, model: before and after; both in evaluation mode.
        eight_bit: whether the original is stored in eight bits.
        before, after: label-free figures on held-out cells.
        checks: labelled sets, before and after.
        marked: (n, leaves) class probabilities of the marked cells, before and after.
        probes: (n, S, S, 3) crops of the new microscope as the classifier sees them.
    """

    original: CellClassifierNet
    model: CellClassifierNet
    eight_bit: bool
    before: LabelFreeFigures
    after: LabelFreeFigures
    checks: tuple[LabelledCheck, ...]
    marked: tuple[Floats, Floats] | None
    probes: NDArray[np.uint8]


def adapt_classifier(
    bundle: Bundle,
    cells: TargetCells,
    held_out: NDArray[np.bool_],
    recipe: AdaptationSettings,
    work: Path,
    progress: Progress,
) -> AdaptedClassifier:
    """Adapt a bundle's classifier; a stopped run goes on from its last epoch.

    Args:
        bundle: the original.
        cells: of the new microscope.
        held_out: (n,) which of them are judged by and not learnt from.
        recipe: how.
        work: folder for checkpoints.
        progress: follows the work.

    Raises:
        ConfigError: if labelled sets hold nothing to use, or `work` holds another run.
        BundleError: if the classifier cannot be recovered from the bundle.
    """
    learn, judged = cells.take(~held_out), cells.take(held_out)
    view = bundle_view(bundle)
    probes = np.stack([view.plain(image) for image in _spread(learn.images, PROBES)])
    model, recovered = recover_classifier(bundle, probes)
    original, words = copy.deepcopy(model), recovered.vocabulary
    calibration = calibration_of(bundle)
    config = _config(recovered.config, recipe)
    samples = AdaptationSamples(config, learn, view, words)
    record = {"vocabulary": words.to_json(), "sources": {}, "split": {}, "domains": []}
    task = ClassifierAdaptationTask(config, model, samples, judged, calibration, record)
    before = task.judge(original, CPU)
    if recipe.method == "statistics":
        _align(model, learn, view, words, recipe.source, progress)
    else:
        _self_train(task, model, learn, view, work, progress, recipe.original_share)
    checks = tuple(_check((original, model), path, words, view, progress) for path in recipe.checks)
    marked = None
    if recipe.marked is not None:
        before_and_after = (
            predict_images(net, iter(recipe.marked), CPU)["classes"] for net in (original, model)
        )
        was, now = map(calibration.probabilities, before_and_after)
        marked = was, now
    after = task.judge(model, CPU)
    return AdaptedClassifier(
        original, model, recovered.eight_bit, before, after, checks, marked, probes
    )


def bundle_view(bundle: Bundle) -> CropView:
    """Return how a bundle's classifier sees stored crops, and how its training varied them."""
    view = crop_view(config_of(bundle, "classifier"))
    spec = bundle.manifest.classifier
    return CropView(spec.um_per_px, spec.colour_standard, view.appearance, view.augment)


def is_balanced(bundle: Bundle) -> bool:
    """Whether stored crops are to be white-balanced by their field."""
    return bundle.manifest.classifier.colours is None


def calibration_of(bundle: Bundle) -> Calibration:
    """Return what a bundle's class logits mean."""
    m = bundle.manifest
    learnt = tuple(leaf in m.trained_leaves for leaf in m.leaves)
    temperature = m.classifier.temperatures.get("class", 1.0)
    return Calibration(learnt, temperature, m.classifier.class_confidence)


def _config(base: Config, recipe: AdaptationSettings) -> Config:
    data = base.model_dump(mode="json")
    data["seed"] = recipe.seed
    data["optim"] |= {
        "epochs": EPOCHS,
        "batch": BATCH,
        "accumulate": 1,
        "samples": max(1, recipe.steps // EPOCHS) * BATCH,
        "lr": RATE,
        "ema": DECAY,
        "warmup": 0.1,
        "workers": 0,
        "validate_every": 1,
    }
    data["hard_negatives"] |= {"train": [], "validation": []}
    data["model"] |= {"frozen": False}
    return Config.model_validate(data)


def _spread(images: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """Return some of many images, evenly spread."""
    return images[np.unique(np.linspace(0, len(images) - 1, min(count, len(images))).astype(int))]


def _batches(images: NDArray[np.uint8], view: CropView) -> list[Tensor]:
    plain = [view.plain(image) for image in images]
    return [
        to_tensor(plain[i : i + STATISTICS_BATCH]) for i in range(0, len(plain), STATISTICS_BATCH)
    ]


def _self_train(
    task: ClassifierAdaptationTask,
    model: CellClassifierNet,
    learn: TargetCells,
    view: CropView,
    work: Path,
    progress: Progress,
    share: float,
) -> None:
    unfold_batch_norm(model, _batches(_spread(learn.images, SOURCE_CELLS), view))
    start = {name: value.clone() for name, value in model.state_dict().items()}

    class Report(BaseCallback):
        """Passes the run on to the progress."""

        def on_step(self, info: StepInfo) -> None:
            progress.check_cancelled()
            done = (info.epoch - 1) * info.steps + info.step
            progress.update("self-training", done, EPOCHS * info.steps)

    loop.train(task, task.config, work, CPU, [Report()])
    model.load_state_dict(load_checkpoint(work / loop.BEST)["model"])
    go_back(model, start, share)
    model.eval()


def _align(
    model: CellClassifierNet,
    learn: TargetCells,
    view: CropView,
    words: Vocabulary,
    source: Path | None,
    progress: Progress,
) -> None:
    if source is not None:
        cells = labelled_crops(source, words, view, progress)
        some = np.random.default_rng(0).permutation(len(cells))[:SOURCE_CELLS]
        unfold_batch_norm(model, _batches(np.asarray(cells.take(some).images), view))
    align_statistics(model, _batches(learn.images, view), all_layers=source is not None)


def labelled_crops(path: Path, words: Vocabulary, view: CropView, progress: Progress) -> CellCrops:
    """Return the labelled cells of a data set, as they are stored.

    Args:
        path: of the data set.
        words: classes of the bundle.
        view: of its classifier.
        progress: follows the work.
    """
    items = open_sources([DatasetConfig(path=path.absolute())], Path())
    labelled = [i for i in items if any(c.label and not c.ignore for c in i.field.cells)]
    return load_crops(labelled, words, progress, balanced=view.standard is None)


def _check(
    models: Sequence[CellClassifierNet],
    path: Path,
    words: Vocabulary,
    view: CropView,
    progress: Progress,
) -> LabelledCheck:
    """Return the balanced accuracy of two models on the true cells of a labelled set."""
    cells = labelled_crops(path, words, view, progress)
    before, after = (
        balanced_accuracy(predict_crops(model, cells, CPU, view)["classes"], cells.allowed)
        for model in models
    )
    return LabelledCheck(path.name, before, after, told_classes(cells.allowed, words.leaves))


def told_classes(allowed: NDArray[np.bool_], leaves: Sequence[str]) -> frozenset[str]:
    """Return the classes that labels tell from others.

    Args:
        allowed: (n, leaves) the classes that each label stands for.
        leaves: their names.

    >>> sorted(told_classes(np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]], bool), ["a", "b", "c"]))
    ['a']
    """
    told = np.flatnonzero(allowed[~allowed.all(1)].any(0))
    return frozenset(leaves[i] for i in told.tolist())


def balanced_accuracy(scores: Floats | Floats32, allowed: NDArray[np.bool_]) -> float:
    """Return the mean over labels of the share of cells whose likeliest class the label has."""
    groups, label = np.unique(allowed, axis=0, return_inverse=True)
    right = allowed[np.arange(len(allowed)), scores.argmax(1)]
    recalls = [right[label.ravel() == g].mean() for g in range(len(groups)) if groups[g].any()]
    return float(np.mean(recalls))


def job_key(**facts: Any) -> str:
    """Return what two adaptations must share for one to resume the other, as text."""
    return json.dumps(facts, sort_keys=True, indent=1) + "\n"
