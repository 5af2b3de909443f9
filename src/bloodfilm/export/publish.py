"""Two training runs to one bundle: load, calibrate on validation data, prove, write, describe."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import write_text
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.export.bundle import (
    BundleInfo,
    ClassifierGraph,
    DetectorGraph,
    TrainedNetwork,
    export_bundle,
)
from bloodfilm.export.card import distil, model_card
from bloodfilm.export.quantize import quantize_bundle
from bloodfilm.export.threshold import set_threshold
from bloodfilm.imaging.canonical import CROP_SIZE, CROP_UM, DETECTOR_UM
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.calibration import (
    ReaderCalibration,
    calibrate_classifier,
    calibrate_confirmation,
    detector_thresholds,
)
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.data.cell_crops import load_crops
from bloodfilm.training.data.hard_negatives import load_hard_negatives
from bloodfilm.training.data.sources import SourcedField, load_fields, open_sources
from bloodfilm.training.loop import BEST, RECORD
from bloodfilm.training.networks import build_classifier, build_detector
from bloodfilm.training.tasks.classifier import crop_view
from bloodfilm.training.tasks.detector import pad

_log = logging.getLogger(__name__)
CARD = "MODEL_CARD.md"
PROBES, CROP_PROBES = 24, 96
"""Validation fields, and crops, on which torch and ONNX Runtime are compared."""


def publish(
    runs: tuple[Path, Path],
    root: Path,
    out: Path,
    labels: tuple[str, str, str],
    metrics: tuple[Path, ...] = (),
    int8: bool = False,
    priors: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Export a detector's and a reader's run as a bundle.

    Args:
        runs: folders of the detector's and the reader's training.
        root: where the runs' data paths start.
        out: the bundle's folder.
        labels: name, licence, and Markdown that ends the model card.
        metrics: JSON results of `bloodfilm evaluate` to keep in the manifest, by file name.
        int8: store the networks in eight-bit integers.
        priors: by leaf, how much rarer (or commoner) than in training a class is where the
            bundle will be used; the reader's odds are multiplied by it.

    Returns:
        the largest differences between torch and ONNX Runtime.

    Raises:
        ConfigError: where a run is missing or of the wrong task.
        BundleError: if the graphs differ.
    """
    name, licence, notes = labels
    kept = {path.stem: distil(_read_json(path)) for path in metrics}
    detector, thresholds, images = _detector(runs[0], root)
    reader, calibration, crops = _reader(runs[1], root, priors or {})
    parity = export_bundle(
        out,
        detector,
        reader,
        thresholds,
        calibration,
        BundleInfo(name, licence, kept),
        (images, crops),
    )
    try:
        if int8:
            parity |= quantize_bundle(out, images, list(crops))
    finally:  # a refused eight-bit form leaves a whole float bundle
        set_threshold(out, _validation_fields(runs[0], root))
        write_text(out / CARD, model_card(load_bundle(out).manifest, notes))
    return parity


def _validation_fields(run: Path, root: Path) -> list[SourcedField]:
    """Return the validation fields of a detector's run in which something is marked."""
    _, config, _ = _open(run, "detector", "sparse")
    held = open_sources(config.data.validation, root)
    return [s for s in held if not s.field.region.is_nothing]


def _detector(
    run: Path, root: Path
) -> tuple[TrainedNetwork, dict[str, float], list[NDArray[np.uint8]]]:
    """Return the trained detector, its thresholds, and padded validation fields to compare on."""
    record, config, kept = _open(run, "detector", "sparse")
    model = build_detector(config)
    _fill(model, kept["model"], run)
    model.eval()
    fields = load_fields(_validation_fields(run, root), DETECTOR_UM, _silently)
    thresholds, f1 = detector_thresholds(model, fields, torch.device("cpu"))
    metrics = kept["metrics"] | {f"f1_{k.replace(' ', '_')}": v for k, v in f1.items()}
    some = np.linspace(0, len(fields) - 1, min(PROBES, len(fields))).astype(int)
    part = TrainedNetwork(DetectorGraph(model), record, metrics)
    return part, thresholds, [pad(fields[i].image) for i in some]


def _reader(
    run: Path, root: Path, priors: Mapping[str, float]
) -> tuple[TrainedNetwork, ReaderCalibration, NDArray[np.uint8]]:
    """Return the trained reader, its calibration, and validation crops to compare on."""
    record, config, kept = _open(run, "reader")
    if config.model.reads != "crop":
        raise ConfigError(f"{run}: reads {config.model.reads}; a bundle needs a reader of crops")
    if (record["size"], record["um_per_px"]) != (CROP_SIZE, CROP_UM):
        raise ConfigError(
            f"{run}: learnt from crops of {record['size']} px at {record['um_per_px']} um; this "
            f"program cuts {CROP_SIZE} px at {CROP_UM} um, train it again"
        )
    schema = Schema.from_json(record["schema"])
    model = build_classifier(config, schema)
    _fill(model, kept["model"], run)
    model.eval()
    taxonomy = Taxonomy.from_json(record["taxonomy"])
    view = crop_view(config)
    crops = load_crops(
        open_sources(config.data.validation, root),
        schema,
        taxonomy,
        _silently,
        balanced=view.standard is None,
    )
    unlearnt, leaves = record["unlearnt"], record["leaves"]
    learnt = [leaf not in unlearnt["classes"] for leaf in leaves]
    odds = class_prior(leaves, priors)
    calibration = calibrate_classifier(
        model, crops, schema, learnt, unlearnt["attributes"], odds, view
    )
    calibration = _confirm(model, config, root, calibration)
    if not kept.get("finished"):
        _log.warning("%s: is not finished; the bundle will flag no cell as novel", run)
        calibration = replace(calibration, novelty_threshold=None)
    some = np.linspace(0, len(crops) - 1, min(CROP_PROBES, len(crops))).astype(int)
    probes = np.stack([view.plain(crops.images[i]) for i in some])
    part = TrainedNetwork(
        ClassifierGraph(model, record.get("confirms", False)), record, kept["metrics"]
    )
    if priors:
        _apply_prior(part, calibration.temperatures["class"], priors)
    return part, calibration, probes


def _confirm(
    model: CellClassifierNet, config: Config, root: Path, calibration: ReaderCalibration
) -> ReaderCalibration:
    """Add the temperature of the head that confirms nucleated cells, if it was taught."""
    section = config.lookalikes
    if not section.train:
        return calibration
    sources = open_sources(section.validation or section.train, root)
    places = load_hard_negatives(sources, section, config.seed, _silently)
    temperature, metrics = calibrate_confirmation(
        model, places, section, torch.device("cpu"), crop_view(config)
    )
    return replace(
        calibration,
        temperatures=calibration.temperatures | {"nucleated": round(temperature, 4)},
        metrics=calibration.metrics | metrics,
    )


def _silently(items: Iterable[int], _total: int, _what: str) -> Iterable[int]:
    return items


def class_prior(leaves: Sequence[str], priors: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the factor on every leaf's odds; `ConfigError` for an unknown leaf or no factor."""
    for name, factor in priors.items():
        if name not in leaves or not factor > 0:
            raise ConfigError(
                f"--prior {name}={factor:g}: needs one of {', '.join(leaves)} and a factor above 0"
            )
    return np.array([priors.get(leaf, 1.0) for leaf in leaves])


def _apply_prior(reader: TrainedNetwork, temperature: float, priors: Mapping[str, float]) -> None:
    """Multiply the odds of some classes, in the last bias of the class head.

    A collection made to show rare cells holds far more of them than films do. Bayes' rule moves
    the odds from one to the other: the log of the ratio is added to the logit (Saerens et al.
    2002), times the temperature that the logit will be divided by.
    """
    assert isinstance(reader.graph, ClassifierGraph)
    last = reader.graph.model.class_head[-1]
    shift = np.log(class_prior(reader.run["leaves"], priors)) * temperature
    with torch.no_grad():
        assert isinstance(last, torch.nn.Linear)
        last.bias.add_(torch.tensor(shift, dtype=torch.float32))
    reader.run["priors"] = dict(priors)


def _open(run: Path, *tasks: str) -> tuple[dict[str, Any], Config, dict[str, Any]]:
    """Return a run's record, configuration and best weights."""
    record = _read_json(run / RECORD)
    config = parse_config(record.get("config", {}), str(run / RECORD))
    if config.task not in tasks:
        wanted = " or ".join(tasks)
        raise ConfigError(f"{run}: is the run of a {config.task}; a {wanted} is wanted here")
    return record, config, load_checkpoint(run / BEST)


def _fill(model: nn.Module, weights: dict[str, Any], run: Path) -> None:
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise ConfigError(f"{run / BEST}: holds other weights than {RECORD} describes") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds no record of results")
    return data
