"""The outline network: which pixels of a crop belong to its cell, and which to the nucleus."""

import itertools
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

CHANNELS = ("cell", "nucleus")
"""What the two maps of the output show."""


class OutlineNet(nn.Module):
    """A small U-Net (Ronneberger et al., MICCAI 2015) for crops of one centred cell.

    Its first convolution halves the resolution and the maps come out at that half; an outline is
    drawn where their bilinear interpolation changes sign. What comes up from below is added to a
    level instead of set beside it (LinkNet, Chaurasia and Culurciello, VCIP 2017), which spares
    more than half of the arithmetic.

    Args:
        widths: channels of each level, from half the resolution of the crop down. Multiples of 16
            fill the registers of the processor.
    """

    stride = 2

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError("the outline network needs two levels or more")
        self.stem = _convolution(3, widths[0], 2)
        self.down = nn.ModuleList()
        self.level = nn.ModuleList([_convolution(widths[0], widths[0])])
        for above, below in itertools.pairwise(widths):
            self.down.append(_convolution(above, below, 2))
            self.level.append(_convolution(below, below))
        self.narrow, self.up = nn.ModuleList(), nn.ModuleList()
        for above, below in itertools.pairwise(widths):
            self.narrow.append(nn.Conv2d(below, above, 1))
            self.up.append(_convolution(above, above))
        self.head = nn.Conv2d(widths[0], len(CHANNELS), 1)

    def forward(self, crops: Tensor) -> Tensor:
        """Return logits (N, 2, S/2, S/2) of cell and nucleus for crops (N, 3, S, S) in [0, 255]."""
        x = self.level[0](self.stem(crops / 127.5 - 1))
        kept: list[Tensor] = []
        for down, level in zip(self.down, list(self.level)[1:], strict=True):
            kept.append(x)
            x = level(down(x))
        steps = zip(reversed(self.narrow), reversed(self.up), reversed(kept), strict=True)
        for narrow, up, beside in steps:
            below = functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest")
            x = up(beside + below)
        logits: Tensor = self.head(x)
        return logits


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )
