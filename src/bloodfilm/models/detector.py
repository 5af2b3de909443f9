"""The cell detector: one feature level, because the canonical view makes one scale enough."""

from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.core.errors import ConfigError
from bloodfilm.models.attribute_heads import AttributeBranch
from bloodfilm.models.backbone import Backbone

TYPE_PRIOR = -4.0
"""Logit of an object type before training: cells are rare among locations."""


class Separable(nn.Sequential):
    """A depthwise and a pointwise convolution, each with batch norm, then an activation."""

    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.Hardswish(),
        )


class CellDetector(nn.Module):
    """Where the objects are and of which type, on a grid of stride 4.

    Features of strides 16 and 8 are fused, brought to stride 4 and joined there with early ones.
    Every location predicts how likely an object of each type is centred near it and how far its
    box reaches to the left, top, right and bottom (FCOS, arXiv 1904.01355). The fine grid is for
    platelets, which are 8 to 12 canonical pixels wide.

    Args:
        backbone: name of a timm model with levels of stride 4, 8 and 16.
        types: number of object types.
        width: channels at stride 8; heads at stride 4 have 0.6 of them.
        values: number of values of all attributes that it predicts for the detected cells; 0
            for none.

    Raises:
        ConfigError: if the backbone has no such levels.
    """

    stride = 4

    def __init__(
        self, backbone: str = "mobilenetv2_100", types: int = 3, width: int = 80, values: int = 0
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, (1, 2, 3))
        if self.backbone.strides != [4, 8, 16]:
            raise ConfigError(
                f"backbone {backbone!r} has levels of stride {self.backbone.strides}; "
                "the detector needs 4, 8 and 16"
            )
        self.types = types
        fine = round(0.6 * width)
        early, middle, late = self.backbone.channels
        self.late = _project(late, width)
        self.middle = _project(middle, width)
        self.fuse = nn.Sequential(Separable(width, width, 5), Separable(width, width, 5))
        self.down = _project(width, fine)
        self.early = _project(early, fine)
        self.kind_branch = nn.Sequential(Separable(fine, fine, 5), Separable(fine, fine))
        self.box_branch = nn.Sequential(Separable(fine, fine, 5), Separable(fine, fine))
        self.kind_head = nn.Conv2d(fine, types, 1)
        self.box_head = nn.Conv2d(fine, 4, 1)
        nn.init.constant_(self.kind_head.bias, TYPE_PRIOR)  # type: ignore[arg-type]
        self.attributes = (
            AttributeBranch((early, middle), self.backbone.strides[:2], values) if values else None
        )

    def features(self, image: Tensor) -> Tensor:
        """Return the fused map (B, 0.6 width, H/4, W/4) of pixels (B, 3, H, W)."""
        return self.join(self.backbone(image))

    def join(self, levels: list[Tensor]) -> Tensor:
        """Return the fused map of the backbone's levels."""
        early, middle, late = levels
        fused = self.middle(middle) + functional.interpolate(self.late(late), scale_factor=2.0)
        fused = functional.interpolate(self.down(self.fuse(fused)), scale_factor=2.0)
        return functional.hardswish(fused + self.early(early))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return raw outputs for pixels (B, 3, H, W) in [0, 255], H and W multiples of 32.

        Returns:
            `types`: logits (B, types, H/4, W/4); `boxes`: distances left, top, right, bottom
            from each location's centre, in pixels, (B, 4, H/4, W/4).
        """
        return self.heads(self.features(image))

    def heads(self, features: Tensor) -> dict[str, Tensor]:
        """Return the outputs of `forward` for the map of `features`."""
        types = self.kind_head(self.kind_branch(features))
        # Distances grow like the exponential near zero and linearly beyond: small and large boxes
        # both get useful gradients.
        reach = functional.softplus(self.box_head(self.box_branch(features)).float())
        return {"types": types, "boxes": reach * (2 * self.stride)}


def _project(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
