"""Prior odds at export: how much rarer a class is in use than in training."""

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.export.onnx_graphs import ClassifierGraph
from bloodfilm.export.trained import apply_prior, class_prior
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.models import CellClassifierNet
from tiny import VOCABULARY

torch.set_num_threads(1)
LEAVES = VOCABULARY.leaves


def test_prior_odds_are_multiplied_whatever_the_temperature():
    torch.manual_seed(0)
    model = CellClassifierNet(len(LEAVES), [2], "lcnet_035", (1,), width=8).eval()
    graph = ClassifierGraph(model)
    crops = torch.full((1, 32, 32, 3), 120, dtype=torch.uint8)
    learnt = [True] * len(LEAVES)
    with torch.no_grad():
        before = leaf_probabilities(graph(crops)[0], learnt, 2.5)[0]
        apply_prior(model, class_prior(LEAVES, {"erythroblast": 0.1}), 2.5)
        after = leaf_probabilities(graph(crops)[0], learnt, 2.5)[0]
    rare = LEAVES.index("erythroblast")
    odds = [p / (1 - p) for p in (before[rare], after[rare])]
    assert odds[1] / odds[0] == pytest.approx(0.1, rel=1e-4)
    others = np.arange(len(LEAVES)) != rare
    assert after[others] / before[others] == pytest.approx(after[0] / before[0], rel=1e-4)


@pytest.mark.parametrize("priors", [{"toad": 0.1}, {"monocyte": 0.0}, {"monocyte": float("nan")}])
def test_priors_that_mean_nothing_are_refused(priors):
    with pytest.raises(ConfigError, match="--prior"):
        class_prior(LEAVES, priors)
