"""What the networks put out."""

import numpy as np
import pytest
import torch

from bloodfilm.core.errors import ConfigError
from bloodfilm.models import CellClassifierNet, CellDetector

torch.set_num_threads(1)
TINY = "lcnet_035"


@pytest.mark.parametrize("size", [(64, 64), (32, 96)])
def test_the_detector_answers_on_a_grid_of_its_stride(size):
    torch.manual_seed(0)
    model = CellDetector(TINY, 3, 8).eval()
    with torch.no_grad():
        out = model(torch.rand(2, 3, *size) * 255)
    grid = tuple(side // CellDetector.stride for side in size)
    assert out["types"].shape == (2, 3, *grid) and out["boxes"].shape == (2, 4, *grid)
    assert (out["boxes"] > 0).all()
    # Cells are rare: an untrained detector says so.
    assert out["types"].sigmoid().mean() < 0.1


def test_boxes_stay_positive_whatever_the_head_says():
    model = CellDetector(TINY, 3, 8).eval()
    with torch.no_grad():
        model.box_head.bias.fill_(-12.0)
        assert (model(torch.zeros(1, 3, 32, 32))["boxes"] > 0).all()


def test_a_backbone_without_the_strides_is_refused():
    with pytest.raises(ConfigError, match="stride"):
        CellDetector("convnext_atto", 3, 8)


@pytest.mark.parametrize(("grid", "levels"), [(0, (2, 3, 4)), (3, (1, 2))])
def test_the_reader_answers_every_question(grid, levels):
    torch.manual_seed(0)
    model = CellClassifierNet(5, [3, 2], TINY, levels, width=8, grid=grid).eval()
    with torch.no_grad():
        out = model(torch.rand(4, 3, 64, 64) * 255)
    assert out["classes"].shape == (4, 5) and out["attributes"].shape == (4, 5)
    assert out["description"].shape == (4, model.size)
    assert model.novelty(out["description"]).shape == (4,)


def test_the_reader_looks_at_the_middle_twice():
    torch.manual_seed(0)
    model = CellClassifierNet(5, [2], TINY, (1, 2), width=8).eval()
    plain = torch.full((1, 3, 64, 64), 245.0)
    middle, rim = plain.clone(), plain.clone()
    middle[:, :, 24:40, 24:40] = 60
    rim[:, :, :16, :16] = 60
    with torch.no_grad():
        d0, d1, d2 = (model.describe(x) for x in (plain, middle, rim))
    assert (d1 - d0).norm() > 1.5 * (d2 - d0).norm() > 0


def test_novelty_is_the_distance_to_the_nearest_prototype_in_spreads():
    model = CellClassifierNet(2, [2], TINY, (1,), width=4).eval()
    means = np.zeros((2, model.size), np.float32)
    means[1] = 3
    spread = np.full(model.size, 2, np.float32)
    model.set_prototypes(means, spread)
    at = torch.tensor([[0.0], [1.0], [3.0], [7.0]]).expand(-1, model.size)
    assert model.novelty(at).tolist() == pytest.approx([0, 0.25, 0, 4])
    assert {"prototypes", "spread"} <= set(model.state_dict())
