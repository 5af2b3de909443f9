"""The cell detector: one feature level, because the canonical view makes one scale enough."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.models.backbone import Backbone


class Separable(nn.Sequential):
    """A depthwise and a pointwise convolution, each with batch norm, then an activation."""

    def __init__(self, channels: int, out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(
                channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False
            ),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.Hardswish(),
        )


class CellDetector(nn.Module):
    """Where the cells are and of which kind, on a grid of one stride.

    Every location says how likely a cell of each kind is centred near it and how far that cell's
    box reaches to the left, top, right and bottom. The distances are distributions over `bins`
    steps of `bin_px` (Generalized Focal Loss, Li et al., NeurIPS 2020, eq. 6): their expectation
    is finer than the grid, which small boxes need.

    Args:
        backbone: name of a timm model.
        kinds: how many kinds of cells.
        width: channels of the neck and the heads.
        levels: backbone levels that are fused, among them the one of stride 8.
        bins, bin_px: the range of the distances: `(bins - 1) * bin_px` canonical pixels.
    """

    stride = 8

    def __init__(
        self,
        backbone: str = "mobilenetv2_100",
        kinds: int = 3,
        width: int = 80,
        levels: tuple[int, ...] = (1, 2, 3),
        bins: int = 17,
        bin_px: float = 5.0,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, levels)
        self.kinds, self.bins, self.bin_px = kinds, bins, bin_px
        self.project = nn.ModuleList(
            Separable(channels, width, 5, 2)
            if stride == self.stride // 2
            else nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))
            for channels, stride in zip(
                self.backbone.channels, self.backbone.strides, strict=True
            )
        )
        self.fuse = nn.Sequential(Separable(width, width, 5), Separable(width, width, 5))
        self.kind_branch = nn.Sequential(Separable(width, width), Separable(width, width))
        self.box_branch = nn.Sequential(Separable(width, width), Separable(width, width))
        self.kind_head = nn.Conv2d(width, kinds, 1)
        self.box_head = nn.Conv2d(width, 4 * bins, 1)
        self.register_buffer("steps", torch.arange(bins).float() * bin_px, persistent=False)
        nn.init.constant_(self.kind_head.bias, -4.0)  # type: ignore[arg-type]

    def features(self, image: Tensor) -> Tensor:
        """Return the fused map (B, width, H/8, W/8) of pixels (B, 3, H, W)."""
        fused: Tensor | None = None
        size: list[int] = [image.shape[2] // self.stride, image.shape[3] // self.stride]
        for feature, project, stride in zip(
            self.backbone(image), self.project, self.backbone.strides, strict=True
        ):
            part = project(feature)
            if stride > self.stride:
                part = functional.interpolate(part, size=size, mode="nearest")
            fused = part if fused is None else fused + part
        assert fused is not None
        out: Tensor = self.fuse(fused)
        return out

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return raw outputs for pixels (B, 3, H, W) in [0, 255], H and W multiples of 32.

        Returns:
            `kinds`: logits (B, kinds, H/8, W/8); `bins`: logits (B, 4, bins, H/8, W/8);
            `boxes`: their expectation, distances left, top, right, bottom in pixels
            (B, 4, H/8, W/8).
        """
        features = self.features(image)
        kinds = self.kind_head(self.kind_branch(features))
        bins = self.box_head(self.box_branch(features)).unflatten(1, (4, self.bins))
        return {"kinds": kinds, "bins": bins, "boxes": self.expectation(bins)}

    def expectation(self, bins: Tensor) -> Tensor:
        """Return the mean distance (B, 4, h, w) of distributions given as logits."""
        steps: Tensor = self.steps  # type: ignore[assignment]
        return (bins.float().softmax(2) * steps[None, None, :, None, None]).sum(2)
