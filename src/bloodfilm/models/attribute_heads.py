"""Attributes of detected cells, predicted from the detector's features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class AttributeBranch(nn.Module):
    """Predicts attributes from a detector's early feature levels at given boxes.

    Each box is sampled on a grid, bilinearly, from every level; the samples are described by one
    hidden layer. This is AttriDet's attribute branch (RoI features of two early levels, arXiv
    2405.10803) on our levels.

    Args:
        channels: of each level; strides: pixels of the image per step of each level.
        values: how many values all attributes have together.
        width: of the hidden layer.
        grid: places per side.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        values: int,
        width: int = 64,
        grid: int = 4,
    ) -> None:
        super().__init__()
        self.strides, self.grid, self.values = list(strides), grid, values
        self.size = size = sum(channels) * grid**2
        self.read = nn.Sequential(
            nn.LayerNorm(size), nn.Linear(size, width), nn.Hardswish(), nn.Linear(width, values)
        )

    def forward(self, levels: Sequence[Tensor], images: Tensor, boxes: Tensor) -> Tensor:
        """Return logits (n, values).

        Args:
            levels: each (B, C, h, w).
            images: (n,) which image each box is of; boxes: (n, 4) x, y, w, h in pixels.
        """
        if not len(images):
            nothing = levels[0].new_zeros((0, self.size), dtype=torch.float32)
            none: Tensor = self.read(nothing)
            return none.float()
        steps = (torch.arange(self.grid, device=boxes.device) + 0.5) / self.grid
        x = boxes[:, :1] + boxes[:, 2:3] * steps  # (n, grid)
        y = boxes[:, 1:2] + boxes[:, 3:] * steps
        parts = [
            _sampled(level, images, x / stride, y / stride)
            for level, stride in zip(levels, self.strides, strict=True)
        ]
        logits: Tensor = self.read(torch.cat(parts, 1))
        return logits.float()


def _sampled(level: Tensor, images: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return (n, C * grid * grid) of a level at the places of each box, image by image.

    Args:
        level: (B, C, h, w).
        images: (n,).
        x, y: (n, grid) in steps of the level.
    """
    count, grid = y.shape
    # grid_sample's coordinates: -1 and 1 are the outer edges of the map.
    across, down = x * (2 / level.shape[3]) - 1, y * (2 / level.shape[2]) - 1
    places = torch.stack(
        [across[:, None].expand(-1, grid, -1), down[:, :, None].expand(-1, -1, grid)], dim=-1
    )
    out = level.new_zeros((count, level.shape[1] * grid**2), dtype=torch.float32)
    for number in images.unique().tolist():
        mine = images == number
        # One tall picture of all the image's boxes: the map is not copied for each.
        picked = functional.grid_sample(
            level[number : number + 1].float(),
            places[mine].reshape(1, -1, grid, 2),
            padding_mode="border",
            align_corners=False,
        )
        boxes = picked[0].reshape(level.shape[1], -1, grid**2).permute(1, 0, 2)
        out = out.index_put((mine.nonzero()[:, 0],), boxes.flatten(1))
    return out
