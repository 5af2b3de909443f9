"""Thresholds and temperatures: sane, and of nothing but what is passed in."""

import numpy as np
import pytest
import torch

from bloodfilm.core import DEFAULT_TAXONOMY, LLD_SCHEMA, Region
from bloodfilm.core.detections import Detections
from bloodfilm.core.errors import ConfigError
from bloodfilm.imaging.colour_normalisation import ColourStandard
from bloodfilm.inference.manifest import UntrainedParts
from bloodfilm.training import calibration as module
from bloodfilm.training.calibration import (
    best_threshold,
    calibrate_classifier,
    detector_thresholds,
    node_threshold,
    walk_down,
)
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.data.cell_crops import CellCrops
from bloodfilm.training.data.crop_views import CropView
from tiny import OBJECT_TYPES, VOCABULARY

CPU = torch.device("cpu")
LEAVES = len(VOCABULARY.leaves)


def field(boxes, kinds, region=None, ignore=()):
    return CanonicalField(
        np.zeros((64, 64, 3), np.uint8),
        np.array(boxes, float).reshape(-1, 4),
        np.array(kinds, np.int64),
        np.array(ignore, float).reshape(-1, 4),
        Region.everything() if region is None else region,
    )


def detections(*rows):
    """Rows of (x, y, score, kind), boxes of 10 x 10."""
    return Detections(
        np.array([(x, y, 10.0, 10.0) for x, y, *_ in rows]).reshape(-1, 4),
        np.array([r[2] for r in rows], float),
        np.array([r[3] for r in rows], np.intp),
    )


def thresholds(monkeypatch, fields, found):
    answers = iter(found)
    monkeypatch.setattr(module, "detect", lambda *_: next(answers))
    return detector_thresholds(None, fields, OBJECT_TYPES, CPU)


def test_the_threshold_is_where_f1_is_best(monkeypatch):
    one = field([(0, 0, 10, 10), (20, 0, 10, 10), (40, 0, 10, 10)], [0, 0, 0])
    found = detections(
        (0, 0, 0.9, 0), (50, 50, 0.8, 0), (20, 0, 0.61239, 0), (40, 0, 0.31239, 0), (9, 40, 0.3, 0)
    )
    limits, f1 = thresholds(monkeypatch, [one], [found])
    assert limits["nucleated cell"] == 0.3123  # rounded down: the cell itself must pass
    assert f1["nucleated cell"] == pytest.approx(2 * 3 / (4 + 3))
    # Nothing to go by: a middling threshold, and no boast.
    assert limits["platelet"] == 0.3 and f1["platelet"] == 0.0
    assert set(limits) == set(OBJECT_TYPES)


def test_kinds_are_chosen_apart(monkeypatch):
    one = field([(0, 0, 10, 10), (20, 0, 10, 10)], [0, 1])
    found = detections((0, 0, 0.7, 0), (20, 0, 0.4, 1), (20, 0, 0.9, 0))
    limits, f1 = thresholds(monkeypatch, [one], [found])
    assert limits["red cell"] == 0.4 and f1["red cell"] == 1.0
    assert limits["nucleated cell"] == 0.7 and f1["nucleated cell"] == pytest.approx(2 / 3)


def test_unannotated_area_gives_no_false_positives(monkeypatch):
    """Outside the region and on ignore boxes; cells outside need not be found either."""
    cells = [(0, 0, 10, 10), (50, 50, 10, 10)]
    half = Region.rect(0, 0, 64, 32)
    found = [
        (0, 0, 0.5, 0), (20, 40, 0.9, 0), (40, 40, 0.8, 0), (30, 0, 0.7, 0), (50, 50, 0.6, 0)
    ]  # fmt: skip
    one = field(cells, [0, 0], half, ignore=[(28, 0, 14, 14)])
    limits, f1 = thresholds(monkeypatch, [one], [detections(*found)])
    assert (limits["nucleated cell"], f1["nucleated cell"]) == (0.5, 1.0)
    _, f1 = thresholds(monkeypatch, [field(cells, [0, 0])], [detections(*found)])
    assert f1["nucleated cell"] < 1


def reader(monkeypatch, n=4000, sharpness=3.0, seed=0):
    """Crops and outputs whose logits are `sharpness` times too sure."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (n, LEAVES))
    p = np.exp(honest) / np.exp(honest).sum(1, keepdims=True)
    labels = (p.cumsum(1) > rng.random((n, 1))).argmax(1)
    attributes = rng.normal(0, 1.5, (n, LLD_SCHEMA.width))
    codes = np.full((n, len(LLD_SCHEMA.attributes)), -1)
    for column, part in enumerate(list(LLD_SCHEMA.slices.values())[:3]):
        q = np.exp(attributes[:, part])
        q /= q.sum(1, keepdims=True)
        codes[:, column] = (q.cumsum(1) > rng.random((n, 1))).argmax(1)
    outputs = {
        "classes": honest * sharpness,
        "attributes": attributes * sharpness,
        "description": rng.random((n, 2)).astype(np.float32),
    }
    monkeypatch.setattr(module, "predict_crops", lambda *_: outputs)
    crops = CellCrops(
        np.zeros((n, 1, 1, 3), np.uint8),
        np.eye(LEAVES, dtype=bool)[labels],
        codes,
        np.ones(n),
        np.zeros((n, 2)),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )
    return crops, outputs


class FirstNumber:
    def novelty(self, description):
        return description[:, 0]


def calibrated(crops, learnt=None, **more):
    trained = learnt or [True] * LEAVES
    untrained = UntrainedParts(
        classes=[n for n, t in zip(VOCABULARY.leaves, trained, strict=True) if not t],
        attributes=more.pop("untrained_attributes", ()),
    )
    return calibrate_classifier(FirstNumber(), crops, VOCABULARY, untrained, **more)


def test_too_sure_a_reader_is_cooled(monkeypatch):
    crops, _ = reader(monkeypatch)
    done = calibrated(crops)
    named = list(LLD_SCHEMA.names)[:3]
    assert set(done.temperatures) == {"class", *named}  # nobody marked the others
    assert all(2.6 < t < 3.4 for t in done.temperatures.values())
    assert done.metrics["class_ece"] < 0.03 < 0.1 < done.metrics["class_ece_uncalibrated"]
    assert done.metrics["attribute_ece"] < 0.03
    assert 0.5 <= done.class_confidence <= 0.9 and 0.5 <= done.attribute_confidence <= 0.9
    assert 0 < done.metrics["attribute_coverage"] < 1
    assert 0.99 < done.novelty_threshold < 1.0


def test_a_good_reader_is_left_alone(monkeypatch):
    crops, _ = reader(monkeypatch, sharpness=1.0)
    assert all(0.9 < t < 1.1 for t in calibrated(crops).temperatures.values())


def test_the_order_of_the_cells_does_not_matter_and_what_was_done_before_neither(monkeypatch):
    crops, outputs = reader(monkeypatch)
    first = calibrated(crops)
    calibrated(reader(monkeypatch, seed=9)[0])
    order = np.random.default_rng(0).permutation(len(crops))
    monkeypatch.setattr(
        module, "predict_crops", lambda *_: {k: v[order] for k, v in outputs.items()}
    )
    mixed = CellCrops(*(v[order] for v in vars(crops).values()))
    again = calibrated(mixed)
    assert again.temperatures == pytest.approx(first.temperatures, abs=1e-3)
    assert again.class_confidence == pytest.approx(first.class_confidence, abs=1e-3)
    assert again.novelty_threshold == pytest.approx(first.novelty_threshold)


def test_what_was_not_learnt_is_not_measured(monkeypatch):
    crops, outputs = reader(monkeypatch)
    learnt = [leaf != 4 for leaf in range(LEAVES)]
    known = ~crops.allowed[:, 4]
    mixed = calibrated(crops, learnt, untrained_attributes=[LLD_SCHEMA.names[0]])
    assert LLD_SCHEMA.names[0] not in mixed.temperatures
    monkeypatch.setattr(
        module, "predict_crops", lambda *_: {k: v[known] for k, v in outputs.items()}
    )
    alone = calibrated(CellCrops(*(v[known] for v in vars(crops).values())), learnt)
    assert alone.temperatures["class"] == mixed.temperatures["class"]
    assert alone.class_confidence == mixed.class_confidence
    reader(monkeypatch)
    with pytest.raises(ConfigError, match="no validation cell"):
        calibrated(crops, [False] * LEAVES)


def spread(**shares):
    """Probabilities of leaves, named with underscores."""
    names = VOCABULARY.leaves
    return np.array([shares.get(n.replace(" ", "_"), 0.0) for n in names])


def test_nodes_are_followed_down_and_held_against_labels_of_any_depth():
    p = spread(band_neutrophil=0.4, segmented_neutrophil=0.35, monocyte=0.25)
    labels = ("segmented neutrophil", "neutrophil", "monocyte")
    allowed = np.array([DEFAULT_TAXONOMY.leaf_mask(n, VOCABULARY.leaves) for n in labels])
    sums, right = walk_down(np.tile(p, (3, 1)), allowed, VOCABULARY)
    # nucleated cell, white cell, granulocyte lineage, neutrophil, band neutrophil
    assert sums[0] == pytest.approx([1, 1, 0.75, 0.75, 0.4])
    assert right.tolist() == [
        [True, True, True, True, False],
        [True, True, True, True, True],  # the label does not say which neutrophil
        [True, True, False, False, False],
    ]


def test_the_least_confidence_that_makes_the_nodes_right_is_chosen():
    sums = np.array([[1.0, 0.6], [1.0, 0.7], [1.0, 0.8], [1.0, 0.95]])
    right = np.array([[True, False], [True, True], [True, True], [True, True]])
    assert node_threshold(sums, right, 1.0) == pytest.approx(0.61, abs=0.0101)
    assert node_threshold(sums, right, 0.75) == 0.5
    assert node_threshold(sums, ~right, 1.0) == 0.9
    # The wrong cell is of a kind that hardly occurs where the reader will be used.
    counts = np.array([0.01, 1, 1, 1])
    assert node_threshold(sums, right, 0.99, counts) == 0.5
    assert node_threshold(sums, right, 0.99) > 0.5


def test_the_confidence_is_chosen_at_the_odds_the_reader_will_meet(monkeypatch):
    crops, _ = reader(monkeypatch)
    learnt = [True] * LEAVES
    plain = calibrated(crops, learnt)
    same = calibrated(crops, learnt, odds=np.ones(LEAVES))
    assert same == plain
    odds = np.where(np.arange(LEAVES) == 1, 1e-3, 1.0)
    rare = calibrated(crops, learnt, odds=odds)
    assert rare.temperatures == plain.temperatures
    # Counted as often as it will occur, what the shift costs that class no longer shows.
    assert rare.metrics["class_ece"] == plain.metrics["class_ece"]
    assert rare.metrics["node_accuracy"] != plain.metrics["node_accuracy"]


def test_a_classifier_that_is_to_travel_is_calibrated_on_varied_cells(monkeypatch):
    seen = []

    def predict_images(_model, images, _device):
        seen.extend(images)
        n = len(seen)
        return {
            "classes": np.eye(LEAVES, dtype=np.float32)[[0] * n] * 4,
            "attributes": np.zeros((n, LLD_SCHEMA.width), np.float32),
            "description": np.zeros((n, 2), np.float32),
        }

    monkeypatch.setattr(module, "predict_images", predict_images)
    rng = np.random.default_rng(0)
    image = rng.integers(60, 200, (224, 224, 3), np.uint8)
    n = 4
    crops = CellCrops(
        np.stack([image] * n),
        np.eye(LEAVES, dtype=bool)[[0] * n],
        np.full((n, len(LLD_SCHEMA.attributes)), -1),
        np.ones(n),
        np.zeros((n, 2)),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
        np.zeros(n, np.int64),
    )
    view = CropView(standard=ColourStandard(nucleus=None))
    calibrated(crops, view=view)
    first, *others = seen
    assert len(seen) == n and all((first != other).any() for other in others)
    assert all((view.plain(image) != varied).any() for varied in seen)


def test_a_lower_threshold_is_taken_where_f1_hardly_changes():
    boxes = [(20 * i, 0, 10, 10) for i in range(10)]
    cells = [field(boxes, [0] * 10)]
    # Ten cells, the last found with a low score, below one false detection.
    rows = [(20 * i, 0, 0.9 - 0.01 * i, 0) for i in range(9)]
    found = [detections(*rows, (300, 0, 0.3, 0), (180, 0, 0.2, 0))]
    sharp, best = best_threshold(cells, found, 0)
    assert (sharp, best) == (0.2, pytest.approx(20 / 21))
    fewer = [detections(*rows, (300, 0, 0.3, 0))]
    assert best_threshold(cells, fewer, 0)[0] == pytest.approx(0.82)
    slack, f1 = best_threshold(cells, fewer, 0, slack=0.06)
    assert slack == pytest.approx((0.82 + 0.3) / 2) and f1 == pytest.approx(18 / 19)
