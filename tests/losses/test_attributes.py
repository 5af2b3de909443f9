"""Losses of attribute values: what is unknown masks only itself; the asymmetric loss's shape."""

import pytest
import torch

from bloodfilm.losses.attributes import asymmetric_loss, attribute_loss

SLICES = {"size": slice(0, 3), "shape": slice(3, 5)}


@pytest.mark.parametrize("asymmetric", [False, True])
def test_an_unknown_attribute_masks_only_itself(asymmetric: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 5, requires_grad=True)
    goal = torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    attribute_loss(logits, goal, torch.ones(3), SLICES, asymmetric).backward()
    assert logits.grad is not None
    told = logits.grad != 0
    assert told[0].any()
    assert told[1, :3].any()
    assert not told[1, 3:].any()
    assert not told[2].any()


def test_nothing_known_gives_a_zero_that_can_be_differentiated() -> None:
    logits = torch.randn(2, 5, requires_grad=True)
    loss = attribute_loss(logits, torch.zeros(2, 5), torch.ones(2), SLICES, False)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


def test_the_cross_entropy_is_least_at_a_teachers_own_shares() -> None:
    goal = torch.tensor([[0.7, 0.2, 0.1, 0.4, 0.6]])
    own = goal.log()
    best = attribute_loss(own, goal, torch.ones(1), SLICES, False)
    for column in range(5):
        moved = own.clone()
        moved[0, column] += 0.3
        assert attribute_loss(moved, goal, torch.ones(1), SLICES, False) > best


def test_weights_scale_cells_against_each_other() -> None:
    logits = torch.tensor([[4.0, 0, 0, 0, 0], [0, 4.0, 0, 0, 0]])
    goal = torch.tensor([[1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]])  # the second is wrong
    even = attribute_loss(logits, goal, torch.ones(2), SLICES, False)
    trusted = attribute_loss(logits, goal, torch.tensor([1.0, 0.1]), SLICES, False)
    assert trusted < even


def test_the_asymmetric_loss_forgives_easy_absences_entirely() -> None:
    easy = torch.logit(torch.tensor([[0.04]]))
    assert asymmetric_loss(easy, torch.zeros(1, 1)).item() == 0
    hard = torch.logit(torch.tensor([[0.9]]))
    # eq. 4 by hand: (0.9 - 0.05)^4 * -log(1 - 0.85)
    assert asymmetric_loss(hard, torch.zeros(1, 1)).item() == pytest.approx(
        0.85**4 * -torch.log(torch.tensor(0.15)).item(), rel=1e-4
    )
    assert asymmetric_loss(hard, torch.ones(1, 1)).item() == pytest.approx(
        0.1 * -torch.log(torch.tensor(0.9)).item(), rel=1e-4
    )
