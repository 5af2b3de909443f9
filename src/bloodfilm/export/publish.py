"""Two training runs to one bundle: load, calibrate on validation data, prove, write, describe."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.export.bundle import (
    DetectorGraph,
    Labels,
    Part,
    ReaderGraph,
    export_bundle,
)
from bloodfilm.imaging.canonical import DETECTOR_UM
from bloodfilm.training.calibrate import calibrate_reader, detector_thresholds
from bloodfilm.training.checkpoint import load_checkpoint
from bloodfilm.training.config import Config, parse_config
from bloodfilm.training.crops import load_crops, plain_crop
from bloodfilm.training.loop import BEST, RECORD
from bloodfilm.training.sources import load_fields, open_sources
from bloodfilm.training.tasks.detector import build_detector, pad
from bloodfilm.training.tasks.reader import build_reader

PROBES = 24
"""Validation fields, and crops, on which torch and ONNX Runtime are compared."""


def publish(
    runs: tuple[Path, Path],
    root: Path,
    out: Path,
    labels: tuple[str, str],
    metrics: tuple[Path, ...] = (),
) -> dict[str, float]:
    """Export a detector's and a reader's run as a bundle.

    Args:
        runs: folders of the detector's and the reader's training.
        root: where the runs' data paths start.
        out: the bundle's folder.
        labels: name and licence.
        metrics: JSON results of `bloodfilm evaluate` to keep in the manifest, by file name.

    Returns:
        the largest differences between torch and ONNX Runtime.

    Raises:
        ConfigError: where a run is missing or of the wrong task.
        BundleError: if the graphs differ.
    """
    cpu = torch.device("cpu")
    kept = {path.stem: _read_json(path) for path in metrics}
    found_record, found_config, found = _open(runs[0], "detector")
    detector = build_detector(found_config)
    detector.load_state_dict(found["model"])
    detector.eval()
    fields = load_fields(
        [
            s
            for s in open_sources(found_config.data.validation, root)
            if not s.field.region.is_nothing
        ],
        DETECTOR_UM,
        lambda items, _n, _what: items,
    )
    thresholds, f1 = detector_thresholds(detector, fields, cpu)

    read_record, read_config, read = _open(runs[1], "reader")
    schema = Schema.from_json(read_record["schema"])
    reader = build_reader(read_config, schema)
    reader.load_state_dict(read["model"])
    reader.eval()
    crops = load_crops(
        open_sources(read_config.data.validation, root),
        schema,
        Taxonomy.from_json(read_record["taxonomy"]),
        lambda items, _n, _what: items,
    )
    learnt = [leaf not in read_record["unlearnt"]["classes"] for leaf in read_record["leaves"]]
    calibration = calibrate_reader(reader, crops, schema, learnt, cpu)
    every = np.linspace(0, len(crops) - 1, PROBES).astype(int)
    some = np.linspace(0, len(fields) - 1, PROBES).astype(int)
    return export_bundle(
        out,
        Part(
            DetectorGraph(detector),
            found_record,
            found["metrics"] | {f"f1_{k.replace(' ', '_')}": round(v, 4) for k, v in f1.items()},
        ),
        Part(ReaderGraph(reader), read_record, read["metrics"]),
        thresholds,
        calibration,
        Labels(*labels, kept),
        (
            [pad(fields[i].image) for i in some],
            np.stack([plain_crop(crops.images[i]) for i in every]),
        ),
    )


def _open(run: Path, task: str) -> tuple[dict[str, Any], Config, dict[str, Any]]:
    """Return a run's record, configuration and best weights."""
    record = _read_json(run / RECORD)
    config = parse_config(record.get("config", {}), str(run / RECORD))
    if config.task != task:
        raise ConfigError(f"{run}: is the run of a {config.task}; a {task} is wanted here")
    return record, config, load_checkpoint(run / BEST)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    return data
