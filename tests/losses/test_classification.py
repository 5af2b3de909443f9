"""The reader's losses: labels of any depth, attributes that may be missing."""

import pytest
import torch
from torch.nn import functional

from bloodfilm.losses.classification import attribute_losses, tree_loss

torch.set_num_threads(1)
SLICES = {"size": slice(0, 3), "shape": slice(3, 5)}


def logits(rows=5, columns=6):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).requires_grad_()


def mask(*rows, leaves=6):
    allowed = torch.zeros(len(rows), leaves, dtype=torch.bool)
    for i, row in enumerate(rows):
        allowed[i, list(row)] = True
    return allowed


def test_leaves_give_the_cross_entropy():
    labels = [0, 5, 2, 2, 1]
    ours = tree_loss(logits(), mask(*([k] for k in labels)))
    assert ours.item() == pytest.approx(
        float(functional.cross_entropy(logits(), torch.tensor(labels)))
    )
    smooth = tree_loss(logits(), mask(*([k] for k in labels)), smoothing=0.1)
    theirs = functional.cross_entropy(logits(), torch.tensor(labels), label_smoothing=0.1)
    assert float(smooth) == pytest.approx(float(theirs))


def test_a_broader_label_asks_for_less_and_the_root_for_nothing():
    x = logits(1)
    losses = [float(tree_loss(x, mask(range(n)))) for n in range(1, 7)]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[4]
    assert losses[-1] == pytest.approx(0, abs=1e-6)


def test_a_broad_label_leaves_its_leaves_odds_alone():
    x = logits(1)
    tree_loss(x, mask([0, 1])).backward()
    p = x.softmax(1)[0, :2].detach()
    # d/dx = p - p / (p0 + p1) within the label: both rise in proportion to what they are.
    assert torch.allclose(x.grad[0, :2] / p, (x.grad[0, :2] / p)[0].expand(2), atol=1e-5)
    assert (x.grad[0, :2] < 0).all() and (x.grad[0, 2:] > 0).all()


def test_better_is_lower():
    x = logits(1).detach()
    better = x.clone()
    better[0, 3] += 1
    assert tree_loss(better, mask([3])) < tree_loss(x, mask([3]))
    assert tree_loss(better, mask([0])) > tree_loss(x, mask([0]))


@pytest.mark.parametrize("bad", [0.0, torch.inf, torch.nan])
def test_unknown_rows_take_no_part(bad):
    x = logits().detach()
    x[[1, 4]] = bad
    x.requires_grad_()
    loss = tree_loss(x, mask([0], [], [2, 3], [5], []), 0.05)
    loss.backward()
    assert float(loss) == pytest.approx(
        float(tree_loss(logits().detach()[[0, 2, 3]], mask([0], [2, 3], [5]), 0.05))
    )
    assert (x.grad[[1, 4]] == 0).all() and (x.grad[[0, 2, 3]].abs().sum(1) > 0).all()


def test_no_known_row_is_no_loss():
    x = torch.full((2, 6), torch.inf, requires_grad=True)
    loss = tree_loss(x, mask([], []))
    loss.backward()
    assert float(loss) == 0 and (x.grad == 0).all()
    x = torch.full((2, 5), torch.nan, requires_grad=True)
    terms = attribute_losses(x, torch.full((2, 2), -1), SLICES, {})
    sum(terms.values()).backward()
    assert [float(t) for t in terms.values()] == [0, 0] and (x.grad == 0).all()


def test_a_missing_attribute_masks_itself_only():
    codes = torch.tensor([[0, 1], [2, -1], [1, 0]])
    x, full = logits(3, 5), logits(3, 5)
    terms = attribute_losses(x, codes, SLICES, {})
    sum(terms.values()).backward()
    assert (x.grad[1, 3:] == 0).all()
    complete = codes.clone()
    complete[1, 1] = 1
    reference = attribute_losses(full, complete, SLICES, {})
    sum(reference.values()).backward()
    assert terms["size"] == reference["size"] and terms["shape"] != reference["shape"]
    assert torch.equal(x.grad[:, :3], full.grad[:, :3])
    assert (full.grad[1, 3:] != 0).all()
    by_hand = functional.cross_entropy(x.detach()[[0, 2], 3:], torch.tensor([1, 0]))
    assert float(terms["shape"]) == pytest.approx(float(by_hand))


def test_rare_values_can_count_more():
    codes = torch.tensor([[0, -1], [0, -1], [1, -1]])
    x, y = logits(3, 5), logits(3, 5)
    attribute_losses(x, codes, SLICES, {})["size"].backward()
    weights = {"size": torch.tensor([1.0, 5.0, 1.0])}
    attribute_losses(y, codes, SLICES, weights)["size"].backward()
    assert y.grad[2].abs().sum() > x.grad[2].abs().sum()
    assert y.grad[0].abs().sum() < x.grad[0].abs().sum()
