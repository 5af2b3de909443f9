"""Finished training runs, ready for export: network, record and what validation data decide."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bloodfilm.core.errors import ConfigError
from bloodfilm.core.progress import NoProgress
from bloodfilm.export.onnx_graphs import ClassifierGraph, DetectorGraph
from bloodfilm.export.operating_point import OperatingPointConfig
from bloodfilm.export.recovered import vocabulary_of
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, DETECTOR_UM
from bloodfilm.imaging.tiles import pad
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.manifest import MANIFEST, Manifest
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.calibration import (
    ClassCalibration,
    ClassifierCalibration,
    calibrate_classifier,
    calibrate_confirmation,
    detector_thresholds,
)
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.data.canonical_fields import FieldLoader
from bloodfilm.training.data.cell_crops import load_crops
from bloodfilm.training.data.hard_negatives import load_hard_negatives
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.loop import BEST
from bloodfilm.training.networks import build_classifier, build_detector
from bloodfilm.training.records import (
    RECORD,
    ClassifierRecord,
    DetectorRecord,
    RunRecord,
    read_record,
)
from bloodfilm.training.tasks.classifier import crop_view
from bloodfilm.training.tasks.detector import MULTIPLE
from bloodfilm.training.vocabulary import Vocabulary

PROBES, CROP_PROBES = 24, 96
"""Validation fields, and crops, on which torch and ONNX Runtime are compared."""
CPU = torch.device("cpu")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class IntendedUse:
    """What is known of the films that a bundle is intended for.

    Attributes:
        priors: by leaf, the ratio of a class's odds on those films to its odds in training; the
            classifier's odds are multiplied by it.
        calibration: of the class, fitted on sites that were left out of training. It replaces the
            one fitted on validation cells of the training sites, which is over-confident on other
            sites.
        operating_point: on which sites evidence is weighed and the threshold of white cells is
            chosen; `None` takes the detector's validation fields, and the weights as they are.
    """

    priors: Mapping[str, float] = field(default_factory=dict)
    calibration: ClassCalibration | None = None
    operating_point: OperatingPointConfig | None = None


@dataclass(frozen=True)
class TrainedDetector:
    """A trained detector.

    Attributes:
        graph: in evaluation mode.
        record: of its run.
        metrics: on validation data.
        thresholds: lowest score by object type, chosen on validation data.
        probes: padded validation fields (H, W, 3) to compare exported forms on.
    """

    graph: DetectorGraph
    record: DetectorRecord
    metrics: dict[str, float]
    thresholds: dict[str, float]
    probes: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained cell classifier.

    Attributes:
        graph: in evaluation mode, priors applied.
        record: of its run.
        metrics: on validation data.
        calibration: temperatures and thresholds, fitted on validation data.
        priors: by leaf, the factor that its odds were multiplied by.
        probes: validation crops (n, S, S, 3) to compare exported forms on.
    """

    graph: ClassifierGraph
    record: ClassifierRecord
    metrics: dict[str, float]
    calibration: ClassifierCalibration
    priors: dict[str, float]
    probes: NDArray[np.uint8]


@dataclass(frozen=True)
class BundledDetector:
    """A detector taken over from a bundle, as it is stored there.

    Attributes:
        manifest: of the bundle.
        onnx: its graph.
    """

    manifest: Manifest
    onnx: bytes


@dataclass(frozen=True)
class BundledClassifier:
    """A classifier taken over from a bundle, as it is stored there, with priors and calibration.

    Attributes:
        manifest: of the bundle.
        vocabulary: classes and attributes, in the order of its outputs.
        onnx: its graph.
        exemplars: its file of descriptions of cells; `None` if it has none.
    """

    manifest: Manifest
    vocabulary: Vocabulary
    onnx: bytes
    exemplars: bytes | None = None


def open_classifier(
    place: Path, root: Path, use: IntendedUse
) -> TrainedClassifier | BundledClassifier:
    """Load a classifier from the folder of a training run, or take it from a bundle.

    Args:
        place: a run's folder or a bundle's.
        root: where the run's data paths start.
        use: what is known of the films to come; nothing may be given for a bundle's classifier.

    Raises:
        ConfigError: if a run is missing or of another task, or a bundle's classifier is to be
            calibrated anew.
        BundleError: if a bundle is damaged.
    """
    if not (place / MANIFEST).is_file():
        return load_classifier(place, root, use)
    if use.priors or use.calibration is not None:
        raise ConfigError(
            f"{place}: is a bundle, whose classifier is taken over with its priors and its "
            "calibration; leave out --prior and --calibration, or give the training run"
        )
    bundle = load_bundle(place)
    exemplars = bundle.manifest.exemplars
    return BundledClassifier(
        bundle.manifest,
        vocabulary_of(bundle),
        (place / bundle.manifest.classifier.file).read_bytes(),
        None if exemplars is None else (place / exemplars.file).read_bytes(),
    )


def open_detector(place: Path, root: Path) -> TrainedDetector | BundledDetector:
    """Load a detector from the folder of a training run, or take it from a bundle.

    Args:
        place: a run's folder or a bundle's.
        root: where the run's data paths start.

    Raises:
        ConfigError: if a run is missing or of another task.
        BundleError: if a bundle is damaged.
    """
    if not (place / MANIFEST).is_file():
        return load_detector(place, root)
    bundle = load_bundle(place)
    return BundledDetector(bundle.manifest, (place / bundle.manifest.detector.file).read_bytes())


def load_detector(run: Path, root: Path) -> TrainedDetector:
    """Load a detector's run and choose its thresholds on the validation fields.

    Args:
        run: its folder.
        root: where the run's data paths start.

    Raises:
        ConfigError: if the run is missing or of another task.
    """
    record = read_record(run, RunRecord)
    config = config_of(record, run, "detector", "sparse")
    record = read_record(run, DetectorRecord)
    vocabulary = record.read_vocabulary()
    model = build_detector(config, vocabulary)
    kept = load_weights(model, run)
    loader = FieldLoader(vocabulary, DETECTOR_UM)
    fields = loader.load_all(validation_fields(run, root), NoProgress())
    thresholds, f1 = detector_thresholds(model, fields, vocabulary.object_types, CPU)
    metrics = kept["metrics"] | {f"f1_{k.replace(' ', '_')}": v for k, v in f1.items()}
    some = np.linspace(0, len(fields) - 1, min(PROBES, len(fields))).astype(int)
    probes = [pad(fields[i].image, MULTIPLE) for i in some]
    return TrainedDetector(DetectorGraph(model), record, metrics, thresholds, probes)


def validation_fields(place: Path, root: Path) -> list[SourcedField]:
    """Return the validation fields of a detector in which something is annotated.

    Args:
        place: folder of its run, or of a bundle that says how it was trained.
        root: where data paths start.
    """
    if (place / MANIFEST).is_file():
        training = load_bundle(place).manifest.training
        config = parse_config(training.get("detector", {}).get("config", {}), str(place / MANIFEST))
    else:
        config = config_of(read_record(place, RunRecord), place, "detector", "sparse")
    validation = open_sources(config.data.validation, root)
    return [s for s in validation if not s.field.region.is_nothing]


def load_classifier(run: Path, root: Path, use: IntendedUse) -> TrainedClassifier:
    """Load a classifier's run, calibrate it for its intended use and apply priors.

    Args:
        run: its folder.
        root: where the run's data paths start.
        use: priors, and a calibration of the class that replaces the one fitted on
            validation cells.

    Raises:
        ConfigError: if the run is missing, of another task, or of other crops than the runtime's.
    """
    config = config_of(read_record(run, RunRecord), run, "classifier")
    record = read_record(run, ClassifierRecord)
    _check_crops(run, config, record)
    vocabulary = record.read_vocabulary()
    model = build_classifier(config, vocabulary)
    kept = load_weights(model, run)
    sources = open_sources(config.data.validation, root)
    view = crop_view(config)
    crops = load_crops(sources, vocabulary, NoProgress(), balanced=view.standard is None)
    odds = class_prior(vocabulary.leaves, use.priors)
    calibration = calibrate_classifier(model, crops, vocabulary, record.untrained, odds, view)
    calibration = _calibrate_verification(model, config, vocabulary, root, calibration)
    if use.calibration is not None:
        calibration = calibration.with_class(use.calibration)
    if not kept.get("finished"):
        _log.warning("%s: is not finished; the bundle will flag no cell as novel", run)
        calibration = replace(calibration, novelty_threshold=None)
    some = np.linspace(0, len(crops) - 1, min(CROP_PROBES, len(crops))).astype(int)
    probes = np.stack([view.plain(crops.images[i]) for i in some])
    if use.priors:
        apply_prior(model, odds, calibration.temperatures["class"])
    graph = ClassifierGraph(model, record.verifies)
    return TrainedClassifier(graph, record, kept["metrics"], calibration, dict(use.priors), probes)


def _check_crops(run: Path, config: Config, record: ClassifierRecord) -> None:
    if config.model.input != "crop":
        raise ConfigError(
            f"{run}: model.input is {config.model.input!r}; a bundle needs a classifier of crops"
        )
    if (record.size, record.um_per_px) != (CROP_SIZE, CROP_UM):
        raise ConfigError(
            f"{run}: trained on crops of {record.size} px at {record.um_per_px} um; this "
            f"program cuts {CROP_SIZE} px at {CROP_UM} um, train it again"
        )


def _calibrate_verification(
    model: CellClassifierNet,
    config: Config,
    vocabulary: Vocabulary,
    root: Path,
    calibration: ClassifierCalibration,
) -> ClassifierCalibration:
    """Add the temperature of the verification head, if it was trained."""
    section = config.hard_negatives
    if not section.train:
        return calibration
    sources = open_sources(section.validation or section.train, root)
    places = load_hard_negatives(sources, vocabulary, section, config.seed, NoProgress())
    temperature, metrics = calibrate_confirmation(model, places, section, CPU, crop_view(config))
    return replace(
        calibration,
        temperatures=calibration.temperatures | {"nucleated": round(temperature, 4)},
        metrics=calibration.metrics | metrics,
    )


def class_prior(leaves: Sequence[str], priors: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the factor on the odds of every leaf.

    >>> class_prior(("monocyte", "basophil"), {"basophil": 0.1}).tolist()
    [1.0, 0.1]

    Raises:
        ConfigError: for an unknown leaf, or a factor that is not above 0.
    """
    for name, factor in priors.items():
        if name not in leaves or not factor > 0:
            raise ConfigError(
                f"--prior {name}={factor:g}: needs one of {', '.join(leaves)} and a factor above 0"
            )
    return np.array([priors.get(leaf, 1.0) for leaf in leaves])


def apply_prior(model: CellClassifierNet, odds: NDArray[np.float64], temperature: float) -> None:
    """Multiply the odds of the classes, in the last bias of the class head.

    A training collection holds more rare cells than routine films do. By Bayes' rule the log of
    the ratio of the odds is added to the logit (Saerens et al. 2002), times the temperature that
    the logit will be divided by.

    Args:
        model: changed in place.
        odds: (leaves,) the factor on each leaf's odds, see `class_prior`.
        temperature: of the class logits.
    """
    shift = torch.tensor(np.log(odds) * temperature, dtype=torch.float32)
    with torch.no_grad():
        model.class_bias.add_(shift)


def config_of(record: RunRecord, run: Path, *tasks: str) -> Config:
    """Return the configuration of a run; `ConfigError` if it is of none of these tasks."""
    config = parse_config(record.config, str(run / RECORD))
    if config.task not in tasks:
        wanted = " or ".join(tasks)
        raise ConfigError(f"{run}: is the run of a {config.task}; a {wanted} is wanted here")
    return config


def load_weights(model: nn.Module, run: Path) -> dict[str, Any]:
    """Fill a model with the best weights, set it to evaluation; return the checkpoint."""
    kept = load_checkpoint(run / BEST)
    try:
        model.load_state_dict(kept["model"])
    except RuntimeError:
        raise ConfigError(f"{run / BEST}: holds other weights than {RECORD} describes") from None
    model.eval()
    return kept
