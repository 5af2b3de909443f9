"""Losses of masks: what they ask of a network, by sign and gradient."""

import pytest
import torch

from bloodfilm.losses.masks import dice, mask_losses

MASKS = torch.zeros(2, 2, 6, 6)
MASKS[:, :, 1:4, 1:4] = 1.0


def test_the_right_maps_cost_nothing_and_wrong_ones_much():
    right = mask_losses(MASKS * 40 - 20, MASKS)
    wrong = mask_losses(20 - MASKS * 40, MASKS)
    assert all(float(v) < 1e-4 for v in right.values())
    assert float(wrong["pixels"]) > 10 and float(wrong["dice"]) > 0.8


def test_gradients_raise_maps_inside_and_lower_them_outside():
    for term in ("pixels", "dice"):
        logits = torch.zeros_like(MASKS, requires_grad=True)
        mask_losses(logits, MASKS)[term].backward()
        assert (logits.grad[MASKS == 1] < 0).all() and (logits.grad[MASKS == 0] > 0).all()


def test_a_small_mask_weighs_as_much_as_a_large_one():
    small, large = torch.zeros(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)
    small[..., :8, :8], large[..., :40, :40] = 1.0, 1.0
    missed = torch.full_like(small, -20.0)
    costs = [float(mask_losses(missed, m)["dice"]) for m in (small, large)]
    assert abs(costs[0] - costs[1]) < 0.02


def test_two_empty_masks_agree():
    empty = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    assert dice(empty, empty).tolist() == [[1.0, 1.0]]
    square = MASKS[:1] > 0
    assert dice(square, square).tolist() == [[1.0, 1.0]]
    assert dice(square, torch.zeros_like(square)).tolist() == [[0.0, 0.0]]


def test_masks_that_are_not_known_have_no_gradient():
    torch.manual_seed(0)
    logits = torch.randn(3, 2, 6, 6, requires_grad=True)
    masks = torch.rand(3, 2, 6, 6)
    known = torch.tensor([[True, True], [True, False], [True, True]])
    terms = mask_losses(logits, masks, known)
    sum(terms.values()).backward()
    assert (logits.grad[1, 1] == 0).all()
    assert (logits.grad.abs().amax((2, 3))[known] > 0).all()
    # Each known mask counts the same, and none is missed.
    apart = [mask_losses(logits[i : i + 1, j : j + 1], masks[i : i + 1, j : j + 1])
             for i, j in known.nonzero().tolist()]  # fmt: skip
    for name, value in terms.items():
        assert float(value) == pytest.approx(sum(float(a[name]) for a in apart) / len(apart))
    nothing = mask_losses(logits, masks, torch.zeros_like(known))
    assert [float(v) for v in nothing.values()] == [0, 0]
