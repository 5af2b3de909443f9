"""Thresholds and temperatures, chosen on validation data and nowhere else."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.attributes import Schema
from bloodfilm.core.boxes import centres
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Field
from bloodfilm.evaluation.calibration import (
    coverage_accuracy,
    expected_calibration_error,
    fit_temperature,
)
from bloodfilm.evaluation.detection import excused
from bloodfilm.evaluation.matching import match
from bloodfilm.inference.decode import Detections
from bloodfilm.inference.reading import leaf_probabilities, softmax
from bloodfilm.models.detector import CellDetector
from bloodfilm.models.reader import CellReader
from bloodfilm.training.crops import Crops
from bloodfilm.training.sources import KINDS, CanonicalField
from bloodfilm.training.tasks.detector import LOWEST_SCORE, detect
from bloodfilm.training.tasks.reader import read_crops

CLASS_ACCURACY = 0.98
ATTRIBUTE_ACCURACY = 0.95
MOST_CAUTIOUS = 0.9
NOVEL_SHARE = 0.995
MATCH_IOU = 0.5


@dataclass(frozen=True)
class ReaderCalibration:
    """What a bundle needs beside the reader's weights.

    Attributes:
        temperatures: for `class` and each learnt attribute.
        class_confidence: the least at which validation classes are `CLASS_ACCURACY` right.
        attribute_confidence: likewise over all attributes, `ATTRIBUTE_ACCURACY`.
        novelty_threshold: what `NOVEL_SHARE` of the validation cells stay below; `None` if the
            reader has no class prototypes to measure against.
        metrics: calibration errors before and after, and what the thresholds give.
    """

    temperatures: dict[str, float]
    class_confidence: float
    attribute_confidence: float
    novelty_threshold: float | None
    metrics: dict[str, float]


def detector_thresholds(
    model: CellDetector, fields: Sequence[CanonicalField], device: torch.device
) -> tuple[dict[str, float], dict[str, float]]:
    """Return, per kind, the score with the best F1 at IoU 0.5, and that F1.

    What lies outside a field's region or on an ignore box counts neither way, as in evaluation.
    """
    found = [detect(model, f.image, device, LOWEST_SCORE) for f in fields]
    thresholds, f1 = {}, {}
    for kind, name in enumerate(KINDS):
        thresholds[name], f1[name] = _best_threshold(fields, found, kind)
    return thresholds, f1


def _best_threshold(
    fields: Sequence[CanonicalField], found: Sequence[Detections], kind: int
) -> tuple[float, float]:
    scores, hits, cells = [], [], 0
    for item, detections in zip(fields, found, strict=True):
        truth = item.boxes[item.kinds == kind]
        known = item.region.contains(centres(truth))
        mine = detections.take(detections.kinds == kind)
        cells += int(known.sum())
        matched = np.zeros(len(mine), dtype=bool)
        free = excused(mine.boxes, item.ignore, Field(Path(), region=item.region))
        for t, found_one in match(truth, mine.boxes, mine.scores, MATCH_IOU).pairs:
            matched[found_one], free[found_one] = known[t], not known[t]
        scores.append(mine.scores[~free])
        hits.append(matched[~free])
    score, hit = np.concatenate(scores), np.concatenate(hits)
    if not cells or not len(score):
        return 0.3, 0.0
    order = np.argsort(-score, kind="stable")
    true = np.cumsum(hit[order])
    f1 = 2 * true / (np.arange(1, len(order) + 1) + cells)
    best = int(f1.argmax())
    # Rounded down: rounded up, it would shut out the very cell it was chosen for.
    return math.floor(float(score[order][best]) * 1e4) / 1e4, float(f1[best])


def calibrate_reader(
    model: CellReader,
    crops: Crops,
    schema: Schema,
    learnt: Sequence[bool],
    device: torch.device,
    unlearnt_attributes: Collection[str] = (),
) -> ReaderCalibration:
    """Fit temperatures, then the thresholds below which the reader abstains.

    Args:
        model: with its prototypes set.
        crops: validation cells.
        schema: the attributes, in the order of the reader's outputs.
        learnt: per leaf, whether training named it; cells of other classes say nothing here.
        device: to run on.
        unlearnt_attributes: names whose outputs mean nothing.
    """
    out = read_crops(model, crops, device)
    named = (crops.allowed & np.asarray(learnt)).any(1)
    if not named.any():
        raise ConfigError("data: no validation cell is of a class the reader has learnt")
    logits = np.where(np.asarray(learnt), out["classes"][named], -np.inf)
    temperatures = {"class": fit_temperature(logits, crops.allowed[named])}
    metrics: dict[str, float] = {}
    probabilities = leaf_probabilities(out["classes"][named], learnt, temperatures["class"])
    sure, right = _said(probabilities, crops.allowed[named])
    metrics["class_ece"] = expected_calibration_error(sure, right)
    plain = leaf_probabilities(out["classes"][named], learnt)
    metrics["class_ece_uncalibrated"] = expected_calibration_error(
        *_said(plain, crops.allowed[named])
    )
    class_confidence = _threshold(sure, right, CLASS_ACCURACY)
    every_sure, every_right = [], []
    for column, (name, where) in enumerate(schema.slices.items()):
        codes = crops.codes[:, column]
        known = codes >= 0
        if name in unlearnt_attributes or len(np.unique(codes[known])) < 2:
            continue
        part = out["attributes"][known, where]
        temperatures[name] = fit_temperature(part, codes[known])
        p = softmax(part, temperatures[name])
        every_sure.append(p.max(1))
        every_right.append(p.argmax(1) == codes[known])
    attribute_confidence = 0.5
    if every_sure:
        s, r = np.concatenate(every_sure), np.concatenate(every_right)
        attribute_confidence = _threshold(s, r, ATTRIBUTE_ACCURACY)
        metrics["attribute_ece"] = expected_calibration_error(s, r)
        metrics["attribute_coverage"] = float((s >= attribute_confidence).mean())
    metrics["class_coverage"] = float((sure >= class_confidence).mean())
    with torch.no_grad():
        novelty = model.novelty(torch.from_numpy(out["description"]).to(device)).cpu().numpy()
    return ReaderCalibration(
        {name: round(t, 4) for name, t in temperatures.items()},
        round(class_confidence, 4),
        round(attribute_confidence, 4),
        float(np.quantile(novelty, NOVEL_SHARE)),
        {k: round(v, 4) for k, v in metrics.items()},
    )


def _said(
    probabilities: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return how sure the likeliest leaf is, and whether the label allows it."""
    best = probabilities.argmax(1)
    rows = np.arange(len(best))
    return probabilities[rows, best], allowed[rows, best]


def _threshold(sure: NDArray[np.float64], right: NDArray[np.bool_], accuracy: float) -> float:
    """Return the least confidence that is accurate enough, at least even odds, at most 0.9."""
    found = coverage_accuracy(sure, right).threshold_for(accuracy)
    return float(np.clip(MOST_CAUTIOUS if found is None else found, 0.5, MOST_CAUTIOUS))
