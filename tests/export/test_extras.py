"""What an export may do beside writing graphs: eight-bit detectors, prior odds."""

import logging

import numpy as np
import pytest
import torch

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.errors import ConfigError
from bloodfilm.export.bundle import DetectorGraph, Part, ReaderGraph, to_onnx
from bloodfilm.export.publish import _weigh, odds_of
from bloodfilm.export.quantise import _detections, agreement, quantise
from bloodfilm.inference.decode import Detections
from bloodfilm.inference.reading import leaf_probabilities
from bloodfilm.models import CellDetector, CellReader
from bloodfilm.training.crops import reader_leaves
from bloodfilm.training.sources import KINDS

torch.set_num_threads(1)
LEAVES = reader_leaves(DEFAULT_TAXONOMY)


def boxes(*rows):
    """Rows of (x, kind): boxes of 10 x 10."""
    return Detections(
        np.array([(x, 0.0, 10.0, 10.0) for x, _ in rows]).reshape(-1, 4),
        np.full(len(rows), 0.5),
        np.array([k for _, k in rows], np.intp),
    )


def test_agreement_counts_cells_found_by_both_and_how_well_they_lie():
    same = boxes((0, 0), (30, 1))
    assert agreement([same], [same]) == {"int8_agreement": 1.0, "int8_iou": 1.0}
    one_off = agreement([same], [boxes((1, 0), (30, 1))])
    assert one_off["int8_agreement"] == 1.0
    assert one_off["int8_iou"] == pytest.approx((9 / 11 + 1) / 2)
    renamed = agreement([same], [boxes((0, 0), (30, 2))])
    assert renamed["int8_agreement"] == pytest.approx(0.5)
    assert agreement([same], [boxes()])["int8_agreement"] == 0.0
    assert agreement([boxes()], [boxes()]) == {"int8_agreement": 1.0, "int8_iou": 1.0}


@pytest.mark.slow
def test_an_eight_bit_detector_is_smaller_and_finds_nearly_the_same():
    torch.manual_seed(0)
    model = CellDetector("mobilenetv2_035", 3, 16).eval()
    with torch.no_grad():
        model.kind_head.bias.fill_(-1.0)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64, 64, 3), dtype=np.uint8) for _ in range(3)]
    example = torch.from_numpy(images[0][None])
    plain = to_onnx(DetectorGraph(model), example, ("image", ("scores", "boxes")))
    level = logging.getLogger().level
    small = quantise(plain, images)
    assert logging.getLogger().level == level
    assert len(small) < 0.8 * len(plain)
    spec = {
        "file": "detector.onnx",
        "thresholds": dict.fromkeys(KINDS, 0.2),
        "stride": CellDetector.stride,
        "nms_iou": 0.6,
    }
    found = [_detections(m, images, spec) for m in (plain, small)]
    assert sum(map(len, found[0])) > 10 and agreement(*found)["int8_iou"] > 0.7


def reader_part():
    torch.manual_seed(0)
    model = CellReader(len(LEAVES), [2], "lcnet_035", (1,), width=8).eval()
    return Part(ReaderGraph(model), {"leaves": list(LEAVES)}, {})


def test_prior_odds_are_multiplied_whatever_the_temperature():
    crops = torch.full((1, 32, 32, 3), 120, dtype=torch.uint8)
    part = reader_part()
    learnt = [True] * len(LEAVES)
    with torch.no_grad():
        before = leaf_probabilities(part.graph(crops)[0], learnt, 2.5)[0]
        _weigh(part, 2.5, {"erythroblast": 0.1})
        after = leaf_probabilities(part.graph(crops)[0], learnt, 2.5)[0]
    rare = LEAVES.index("erythroblast")
    odds = [p / (1 - p) for p in (before[rare], after[rare])]
    assert odds[1] / odds[0] == pytest.approx(0.1, rel=1e-4)
    others = np.arange(len(LEAVES)) != rare
    assert after[others] / before[others] == pytest.approx(after[0] / before[0], rel=1e-4)
    assert part.run["priors"] == {"erythroblast": 0.1}


@pytest.mark.parametrize("priors", [{"toad": 0.1}, {"monocyte": 0.0}, {"monocyte": float("nan")}])
def test_priors_that_mean_nothing_are_refused(priors):
    with pytest.raises(ConfigError, match="--prior"):
        odds_of(LEAVES, priors)
