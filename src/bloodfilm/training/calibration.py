"""Thresholds and temperatures, chosen on validation data only."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.attributes import Schema
from bloodfilm.core.boxes import centres
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.field import Field
from bloodfilm.evaluation.calibration import (
    coverage_accuracy,
    expected_calibration_error,
    fit_temperature,
)
from bloodfilm.evaluation.detection import excused
from bloodfilm.evaluation.matching import MATCH_IOU, match
from bloodfilm.inference.classifier import leaf_probabilities, softmax
from bloodfilm.inference.detector import LOWEST_SCORE
from bloodfilm.inference.manifest import ConformalSpec, LookAgainSpec, UntrainedParts
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import HardNegativeSection
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.cell_crops import CellCrops
from bloodfilm.training.data.crop_views import CropView
from bloodfilm.training.data.hard_negatives import HardNegatives
from bloodfilm.training.tasks.classifier import predict_crops, predict_images
from bloodfilm.training.tasks.detector import detect
from bloodfilm.training.vocabulary import Vocabulary

CLASS_ACCURACY = 0.98
ATTRIBUTE_ACCURACY = 0.95
MOST_CAUTIOUS = 0.9
NOVEL_SHARE = 0.995
CELLS_VARIED = 31
"""Random-stream id of the augmentation of validation cells."""
PLAIN = CropView()
CPU = torch.device("cpu")
"""Device of calibration: that of the bundle."""


@dataclass(frozen=True)
class ClassCalibration:
    """Calibration of the class, and of attributes where the same cells have them.

    Attributes:
        temperature: what class logits are divided by.
        confidence: the deepest node whose summed probability reaches it is predicted.
        metrics: calibration error before and after, and figures at this confidence.
        attribute_temperatures: by attribute, what its logits are divided by.
        attribute_confidence: an attribute's value below it is not given; `None`: not chosen here.
        conformal: class sets fitted on the same cells (`ConformalSpec`).
        confusion: how those cells are named (`ClassConfusion`), as plain data.
        look_again: which of those cells were classified in several orientations.
    """

    temperature: float
    confidence: float
    metrics: dict[str, float]
    attribute_temperatures: Mapping[str, float] = field(default_factory=dict)
    attribute_confidence: float | None = None
    conformal: ConformalSpec | None = None
    confusion: Mapping[str, Any] | None = None
    look_again: LookAgainSpec | None = None


@dataclass(frozen=True)
class ClassifierCalibration:
    """Parameters of a bundle's classifier besides its weights.

    Attributes:
        temperatures: for `class` and each learnt attribute.
        class_confidence: the least at which the nodes given to validation cells are
            `CLASS_ACCURACY` right.
        attribute_confidence: likewise over all attributes, `ATTRIBUTE_ACCURACY`.
        novelty_threshold: what `NOVEL_SHARE` of the validation cells stay below; `None` if the
            classifier has no class prototypes to measure against.
        metrics: calibration errors before and after, and figures at the thresholds.
        conformal, confusion, look_again: as in `ClassCalibration`; only of cells of sites left out.
    """

    temperatures: dict[str, float]
    class_confidence: float
    attribute_confidence: float
    novelty_threshold: float | None
    metrics: dict[str, float]
    conformal: ConformalSpec | None = None
    confusion: Mapping[str, Any] | None = None
    look_again: LookAgainSpec | None = None

    def with_class(self, calibration: ClassCalibration) -> "ClassifierCalibration":
        """Return the same with another calibration of the class; figures of it say `left_out`.

        Attributes that it has calibrated too are taken over.
        """
        figures = {f"left_out_{k}": round(v, 4) for k, v in calibration.metrics.items()}
        attributes = {
            name: round(t, 4)
            for name, t in calibration.attribute_temperatures.items()
            if name in self.temperatures
        }
        least = calibration.attribute_confidence
        return replace(
            self,
            temperatures=self.temperatures
            | attributes
            | {"class": round(calibration.temperature, 4)},
            class_confidence=round(calibration.confidence, 4),
            attribute_confidence=self.attribute_confidence if least is None else round(least, 4),
            metrics=self.metrics | figures,
            conformal=calibration.conformal,
            confusion=calibration.confusion,
            look_again=calibration.look_again,
        )


def detector_thresholds(
    model: CellDetector,
    fields: Sequence[CanonicalField],
    object_types: Sequence[str],
    device: torch.device,
) -> tuple[dict[str, float], dict[str, float]]:
    """Return, per object type, the score with the best F1 at IoU 0.5, and that F1.

    What lies outside a field's region or on an ignore box is ignored, as in evaluation.
    """
    found = [detect(model, f.image, device, LOWEST_SCORE) for f in fields]
    thresholds, f1 = {}, {}
    for number, name in enumerate(object_types):
        thresholds[name], f1[name] = best_threshold(fields, found, number)
    return thresholds, f1


def best_threshold(
    fields: Sequence[CanonicalField],
    found: Sequence[Detections],
    type_id: int,
    slack: float = 0.0,
) -> tuple[float, float]:
    """Return the score of an object type with the best F1 at IoU 0.5, and that F1.

    Args:
        fields: the truth; of the pictures nothing is used.
        found: detections in the same pixels.
        type_id: index of the object type.
        slack: take the middle between the score of the best F1 and the lowest whose F1 is worse by
            no more than this: where F1 hardly changes on validation fields, sensitivity on unseen
            films matters more.
    """
    scores, hits, cells = [], [], 0
    for item, detections in zip(fields, found, strict=True):
        truth = item.boxes[item.type_ids == type_id]
        known = item.region.contains(centres(truth))
        own = detections.take(detections.type_ids == type_id)
        cells += int(known.sum())
        matched = np.zeros(len(own), dtype=bool)
        free = excused(own.boxes, item.ignore, Field(Path(), region=item.region))
        for t, found_one in match(truth, own.boxes, own.scores, MATCH_IOU).pairs:
            matched[found_one], free[found_one] = known[t], not known[t]
        scores.append(own.scores[~free])
        hits.append(matched[~free])
    score, hit = np.concatenate(scores), np.concatenate(hits)
    if not cells or not len(score):
        return 0.3, 0.0
    order = np.argsort(-score, kind="stable")
    true = np.cumsum(hit[order])
    f1 = 2 * true / (np.arange(1, len(order) + 1) + cells)
    ordered = score[order]
    best, last = int(f1.argmax()), int(np.flatnonzero(f1 >= f1.max() - slack)[-1])
    chosen = float(ordered[best]) if not slack else float(ordered[[best, last]].mean())
    # Rounded down: rounded up, it would shut out the very cell it was chosen for.
    threshold = math.floor(chosen * 1e4) / 1e4
    return threshold, float(f1[np.flatnonzero(ordered >= threshold)[-1]])


def calibrate_classifier(
    model: CellClassifierNet,
    crops: CellCrops,
    vocabulary: Vocabulary,
    untrained: UntrainedParts,
    odds: NDArray[np.float64] | None = None,
    view: CropView = PLAIN,
) -> ClassifierCalibration:
    """Fit temperatures, then the thresholds below which the classifier abstains.

    Args:
        model: with its prototypes set.
        crops: validation cells.
        vocabulary: leaves and attributes, in the order of the classifier's outputs.
        untrained: leaves and attributes without a training example; their outputs mean nothing.
        odds: (leaves,) how much commoner each is where the classifier will be used: probabilities
            are shifted by that, and the validation cells are weighted by it.
        view: preprocessing of the crops.
    """
    out = _outputs(model, crops, view)
    even = np.ones(len(vocabulary.leaves)) if odds is None else odds
    trained = [leaf not in untrained.classes for leaf in vocabulary.leaves]
    of_class = calibrate_class(out["classes"], crops.allowed, trained, even, vocabulary)
    metrics = dict(of_class.metrics)
    answers = _answers(out["attributes"], crops.codes, vocabulary.schema, untrained.attributes)
    attribute_confidence = 0.5
    if answers:
        sure = np.concatenate([a.sure for a in answers.values()])
        right = np.concatenate([a.right for a in answers.values()])
        attribute_confidence = _threshold(sure, right, ATTRIBUTE_ACCURACY)
        metrics["attribute_ece"] = expected_calibration_error(sure, right)
        metrics["attribute_coverage"] = float((sure >= attribute_confidence).mean())
    with torch.no_grad():
        novelty = model.novelty(torch.from_numpy(out["description"])).cpu().numpy()
    temperatures = {"class": of_class.temperature} | {n: a.temperature for n, a in answers.items()}
    return ClassifierCalibration(
        {name: round(t, 4) for name, t in temperatures.items()},
        round(of_class.confidence, 4),
        round(attribute_confidence, 4),
        float(np.quantile(novelty, NOVEL_SHARE)),
        {k: round(v, 4) for k, v in metrics.items()},
    )


def _outputs(
    model: CellClassifierNet, crops: CellCrops, view: CropView
) -> dict[str, NDArray[np.float32]]:
    """Return the classifier's outputs on validation cells.

    With augmentation for transfer, the cells are augmented too: on films of the training sets the
    classifier is more confident than on unseen ones.
    """
    if view.standard is None:
        return predict_crops(model, crops, CPU, view)
    rngs = (np.random.default_rng([CELLS_VARIED, i]) for i in range(len(crops)))
    varied = (view.varied(image, rng) for image, rng in zip(crops.images, rngs, strict=True))
    return predict_images(model, varied, CPU)


def calibrate_confirmation(
    model: CellClassifierNet,
    places: HardNegatives,
    section: HardNegativeSection,
    device: torch.device,
    view: CropView = PLAIN,
) -> tuple[float, dict[str, float]]:
    """Return the temperature of `nucleated`, and how well calibrated it is.

    The validation places are augmented as in training: unseen films vary more than the validation
    images, on which the classifier is overconfident.
    """
    rngs = [np.random.default_rng([0, i]) for i in range(len(places))]
    crops = (places.varied(i, rng, section, view) for i, rng in enumerate(rngs))
    logits = predict_images(model, crops, device)["nucleated"].astype(np.float64)
    pair = np.stack([np.zeros_like(logits), logits], axis=1)
    codes = places.nucleated.astype(np.int64)
    temperature = fit_temperature(pair, codes)
    p = softmax(pair, temperature)
    return temperature, {
        "nucleated_accuracy": round(float((p.argmax(1) == codes).mean()), 4),
        "nucleated_ece": round(expected_calibration_error(p.max(1), p.argmax(1) == codes), 4),
    }


def calibrate_class(
    logits: NDArray[np.float32],
    allowed: NDArray[np.bool_],
    trained: Sequence[bool],
    odds: NDArray[np.float64],
    vocabulary: Vocabulary,
    accuracy: float = CLASS_ACCURACY,
) -> ClassCalibration:
    """Choose the class temperature and the confidence a node needs on labelled cells.

    The temperature is fitted to the class prior of the training data, the confidence is chosen at
    that of the intended use.

    Args:
        logits: (n, leaves) of the classifier.
        allowed: (n, leaves) the leaves each label stands for.
        trained: per leaf, whether training named it; cells of other classes are left out.
        odds: (leaves,) factor on each leaf's odds in use.
        vocabulary: the tree and its leaves.
        accuracy: required share of correct predicted nodes.
    """
    named = (allowed & np.asarray(trained)).any(1)
    if not named.any():
        raise ConfigError("data: no validation cell is of a class the classifier was trained on")
    allowed, logits = allowed[named], logits[named]
    temperature = fit_temperature(np.where(np.asarray(trained), logits, -np.inf), allowed)
    plain = leaf_probabilities(logits, trained)
    calibrated = leaf_probabilities(logits, trained, temperature)
    shifted = leaf_probabilities(logits + np.log(odds) * temperature, trained, temperature)
    nodes = walk_down(shifted, allowed, vocabulary)
    counts = (allowed * odds).sum(1) / allowed.sum(1)
    confidence = node_threshold(*nodes, accuracy, counts)
    depth = (nodes[0] >= confidence).sum(1) - 1
    right = nodes[1][np.arange(len(depth)), depth]
    metrics = {
        "class_ece": expected_calibration_error(*_said(calibrated, allowed)),
        "class_ece_uncalibrated": expected_calibration_error(*_said(plain, allowed)),
        "node_accuracy": float(np.average(right, weights=counts)),
        "named_to_a_leaf": float(np.average((nodes[0] >= confidence).all(1), weights=counts)),
    }
    return ClassCalibration(temperature, confidence, metrics)


def walk_down(
    probabilities: NDArray[np.float64], allowed: NDArray[np.bool_], vocabulary: Vocabulary
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Follow the likeliest child from the classified type down to a leaf, for every cell.

    What is more probably an object that is no such cell is followed down from there.

    Args:
        probabilities: (n, leaves) in the classifier's order.
        allowed: (n, leaves) the leaves each label stands for.
        vocabulary: the tree and its leaves.

    Returns:
        `sums` (n, depth): the summed probability of the node at each step, falling; a path that
        has ended repeats its leaf. `right` (n, depth): whether that node agrees with the label:
        one lies under the other.
    """
    tree, leaves, root = vocabulary.taxonomy, vocabulary.leaves, vocabulary.roles.classified
    tops = [root] if vocabulary.other is None else [root, vocabulary.other]
    masks = {
        n: np.array(tree.leaf_mask(n, leaves))
        for n in tree.names
        if any(tree.is_under(n, top) for top in tops)
    }
    deepest = max(len(tree.path(leaf)) for leaf in leaves) - len(tree.path(root)) + 1
    sums, right = [], []
    for p, label in zip(probabilities, allowed, strict=True):
        node = max(tops, key=lambda top: float(p[masks[top]].sum()))
        path: list[float] = []
        agrees: list[bool] = []
        while len(path) < deepest:
            inside = masks[node]
            path.append(float(p[inside].sum()))
            agrees.append(bool(not (label & ~inside).any() or not (inside & ~label).any()))
            children = tree.children(node)
            if children:
                node = max(children, key=lambda c: float(p[masks[c]].sum()))
        sums.append(path)
        right.append(agrees)
    return np.array(sums), np.array(right, dtype=bool)


def node_threshold(
    sums: NDArray[np.float64],
    right: NDArray[np.bool_],
    accuracy: float,
    counts: NDArray[np.float64] | None = None,
) -> float:
    """Return the lowest confidence at which the deepest confident nodes are accurate enough.

    Between even odds and `MOST_CAUTIOUS`, in steps of 0.01; `sums` and `right` as `walk_down`
    returns them, `counts` (n,) how much each cell counts.
    """
    rows = np.arange(len(sums))
    for threshold in np.arange(0.5, MOST_CAUTIOUS, 0.01):
        depth = np.maximum((sums >= threshold).sum(1) - 1, 0)
        if np.average(right[rows, depth], weights=counts) >= accuracy:
            return float(threshold)
    return MOST_CAUTIOUS


@dataclass(frozen=True)
class _Answers:
    """One attribute's answers on validation cells, after calibration."""

    temperature: float
    sure: NDArray[np.float64]
    right: NDArray[np.bool_]


def calibrate_attributes(
    outputs: NDArray[np.float32],
    codes: NDArray[np.int64],
    schema: Schema,
    accuracy: float = ATTRIBUTE_ACCURACY,
) -> tuple[dict[str, float], float, dict[str, float]]:
    """Return temperatures, the least confidence over all attributes, and calibration errors.

    Args:
        outputs: (n, schema.width) logits.
        codes: (n, attributes) value indices, -1 where unknown.
        schema: the attributes.
        accuracy: how many of the values given shall be right.
    """
    answers = _answers(outputs, codes, schema, ())
    sure = np.concatenate([a.sure for a in answers.values()])
    right = np.concatenate([a.right for a in answers.values()])
    metrics = {
        "attribute_ece": expected_calibration_error(sure, right),
        "attribute_accuracy": float(right.mean()),
    }
    temperatures = {name: a.temperature for name, a in answers.items()}
    return temperatures, _threshold(sure, right, accuracy), metrics


def _answers(
    outputs: NDArray[np.float32],
    all_codes: NDArray[np.int64],
    schema: Schema,
    untrained: Collection[str],
) -> dict[str, _Answers]:
    """Calibrate every attribute that was learnt and that labelled cells can judge."""
    found: dict[str, _Answers] = {}
    for column, (name, where) in enumerate(schema.slices.items()):
        codes = all_codes[:, column]
        known = codes >= 0
        if name in untrained or len(np.unique(codes[known])) < 2:
            continue
        part = outputs[known, where]
        temperature = fit_temperature(part, codes[known])
        p = softmax(part, temperature)
        found[name] = _Answers(temperature, p.max(1), p.argmax(1) == codes[known])
    return found


def _said(
    probabilities: NDArray[np.float64], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability of the likeliest leaf, and whether the label allows it."""
    best = probabilities.argmax(1)
    rows = np.arange(len(best))
    return probabilities[rows, best], allowed[rows, best]


def _threshold(sure: NDArray[np.float64], right: NDArray[np.bool_], accuracy: float) -> float:
    """Return the least confidence that is accurate enough, at least even odds, at most 0.9."""
    found = coverage_accuracy(sure, right).threshold_for(accuracy)
    return float(np.clip(MOST_CAUTIOUS if found is None else found, 0.5, MOST_CAUTIOUS))
