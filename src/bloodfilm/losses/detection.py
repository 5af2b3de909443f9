"""The detector's loss: task-aligned assignment, soft classification, box terms."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bloodfilm.losses.targets import TargetBatch

_EPS = 1e-7
ALIGNMENT_POWER = 4
BONUS = 1e-12
LEAST_SHARE = 0.2
"""Minimum weight of a box, so that cells without overlapping predictions are learnt too."""


def locations(height: int, width: int, stride: int, device: torch.device) -> Tensor:
    """Return the centres (h * w, 2) as x, y in pixels of a grid's cells, row by row."""
    ys = (torch.arange(height, device=device) + 0.5) * stride
    xs = (torch.arange(width, device=device) + 0.5) * stride
    return torch.stack(
        [xs[None].expand(height, -1), ys[:, None].expand(-1, width)], dim=-1
    ).reshape(-1, 2)


def boxes_at(distances: Tensor, points: Tensor) -> Tensor:
    """Convert distances left, top, right, bottom (..., L, 4) at points (L, 2) to x1, y1, x2, y2."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalised IoU of paired x1, y1, x2, y2 boxes (..., 4) (arXiv 1902.09630)."""
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(0)
    inter = wh.prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).clamp(0).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).clamp(0).prod(-1)
    union = area_a + area_b - inter
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(0)
    hull_area = hull.prod(-1)
    iou = inter / (union + _EPS)
    return iou, iou - (hull_area - union) / (hull_area + _EPS)


@dataclass(frozen=True)
class Assignment:
    """Assignment of cells to locations.

    Attributes:
        index: (B, L) the cell's index in its image, 0 where there is none.
        positive: (B, L) whether a cell is assigned to the location.
        quality: (B, L) the classification target in [0, 1].
    """

    index: Tensor
    positive: Tensor
    quality: Tensor


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, points: Tensor, target: TargetBatch, top_k: int = 10
) -> Assignment:
    """Give every cell its best locations (task alignment, TOOD, arXiv 2108.07755, eq. 1 and 4).

    A location may learn a cell if it lies inside the cell's box and is known. Alignment is
    score^0.5 * IoU^4; a cell takes its `top_k` best-aligned locations; a location assigned to
    several cells goes to the one it overlaps most.

    Args:
        scores: (B, L, kinds) probabilities; boxes: (B, L, 4) x1, y1, x2, y2; points: (L, 2).
        target: the truth.
        top_k: locations per cell.
    """
    batch, cells = target.type_ids.shape
    length = len(points)
    valid = _inside(target.corners, points) & target.known.flatten(1)[:, None]
    valid &= (target.weights > 0)[:, :, None]
    # Few locations lie in a cell: overlaps are computed for those pairs only.
    b, n, at = valid.nonzero(as_tuple=True)
    pair_overlap = giou(target.corners[b, n], boxes[b, at])[0].clamp(0)
    pair_align = scores[b, at, target.type_ids[b, n]].clamp_min(0).sqrt()
    pair_align = pair_align * pair_overlap.pow(ALIGNMENT_POWER)
    align = scores.new_zeros(batch, cells, length)
    overlap = scores.new_zeros(batch, cells, length)
    # The small bonus assigns locations to cells without overlapping predictions, early in training.
    align[b, n, at] = pair_align.to(align.dtype) + BONUS
    overlap[b, n, at] = pair_overlap.to(overlap.dtype)
    rank, index = torch.topk(align, min(top_k, length), dim=2)
    chosen = torch.zeros_like(valid).scatter_(2, index, rank > 0)
    # A location assigned to several cells goes to the one it overlaps most.
    wanted = torch.where(chosen, overlap, -1.0)
    most, owner = wanted.max(1)
    positive = most >= 0
    mine = chosen & (owner[:, None] == torch.arange(cells, device=owner.device)[None, :, None])
    align = align * mine
    best_align = align.amax(2, keepdim=True)
    best_overlap = (overlap * mine).amax(2, keepdim=True)
    quality = (align / (best_align + _EPS) * best_overlap).amax(1)
    return Assignment(torch.where(positive, owner, 0), positive, quality * positive)


def _inside(boxes: Tensor, points: Tensor) -> Tensor:
    """Return which points (L, 2) lie in which x1, y1, x2, y2 boxes (B, N, 4): (B, N, L)."""
    x, y = points[:, 0], points[:, 1]
    within_x = (x > boxes[..., :1]) & (x < boxes[..., 2:3])
    return within_x & (y > boxes[..., 1:2]) & (y < boxes[..., 3:])


def detection_loss(
    outputs: dict[str, Tensor], target: TargetBatch, stride: int
) -> dict[str, Tensor]:
    """Return the terms `object_type`, `box` and `edge`, each a mean over the batch's cells.

    `object_type` fits the score to the box's quality, `box` is 1 - GIoU, `edge` the error of the
    box's four edges in units of the cell's size. Locations that are not
    known contribute to no term, so their gradient is exactly zero.

    Args:
        outputs: of `CellDetector`.
        target: the truth.
        stride: pixels per grid step.

    Source of `object_type`: the varifocal loss, arXiv 2008.13367, eq. 2.
    """
    logits = outputs["types"].float().flatten(2).transpose(1, 2)  # (B, L, K)
    distances = outputs["boxes"].float().flatten(2).transpose(1, 2)  # (B, L, 4)
    height, width = outputs["types"].shape[2:]
    points = locations(height, width, stride, logits.device)
    boxes = boxes_at(distances, points)
    found = assign(logits.detach().sigmoid(), boxes.detach(), points, target)
    weight = target.weights.gather(1, found.index) * found.positive
    total = (found.quality * weight).sum().clamp_min(1.0)
    kind = _object_type_term(logits, target, found, weight) / total

    at = found.positive
    truth = torch.gather(target.corners, 1, found.index[..., None].expand(-1, -1, 4))[at]
    share = found.quality[at].clamp_min(LEAST_SHARE) * weight[at]
    total = share.sum().clamp_min(1.0)
    box = ((1 - giou(boxes[at], truth)[1]) * share).sum() / total
    size = (truth[:, 2:] - truth[:, :2]).clamp_min(1.0).repeat(1, 2)
    edge = (((boxes[at] - truth).abs() / size).mean(1) * share).sum() / total
    return {"object_type": kind, "box": box, "edge": edge}


def _object_type_term(
    logits: Tensor, target: TargetBatch, found: Assignment, weight: Tensor
) -> Tensor:
    """Sum the varifocal loss over known locations; logits (B, L, K), weight (B, L)."""
    # Unknown locations are cut out before and after, not multiplied by zero: neither an infinite
    # loss nor the gradient of a NaN may leak.
    known = target.known.flatten(1)[..., None]
    logits = torch.where(known, logits, 0.0)
    kind = target.type_ids.gather(1, found.index)
    goal = functional.one_hot(kind, logits.shape[2]) * found.quality[..., None]
    focus = torch.where(goal > 0, goal, 0.75 * logits.detach().sigmoid().square())
    focus = focus * torch.where(found.positive, weight, 1.0)[..., None]
    entropy = functional.binary_cross_entropy_with_logits(logits, goal, reduction="none")
    return torch.where(known, entropy * focus, 0.0).sum()
