"""The cell classifier: class and attributes of the one cell a crop is centred on."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from bloodfilm.models.backbone import Backbone

NOT_NAMED = -1e4
"""Logit of a leaf that a film's cells cannot be."""


class CellClassifierNet(nn.Module):
    """Classifies a crop: nucleated or not, leaf of the taxonomy, attributes.

    All heads share the same description of the cell: the means of an early, a middle and a late
    feature level. Early levels carry texture (chromatin, granules, vacuoles), late ones shape.

    With a `grid` the description is instead the centre of the levels, pooled to grid x grid: on
    the two earliest levels of a wide view this is AttriDet's attribute branch (RoI features of a
    detector's early levels, arXiv 2405.10803), the baseline to compare with.

    Args:
        leaves: how many classes.
        attributes: how many values each attribute has.
        backbone: name of a timm model.
        levels: the backbone levels that are described.
        width: hidden width of each head.
        dropout: on the description, in training.
        grid: pool the centre to this many places per side; 0 takes means.
    """

    def __init__(
        self,
        leaves: int,
        attributes: list[int],
        backbone: str = "mobilenetv2_100",
        levels: Sequence[int] = (2, 3, 4),
        width: int = 96,
        dropout: float = 0.2,
        grid: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = Backbone(backbone, levels)
        self.grid, self.frozen = grid, False
        self.attribute_values = tuple(attributes)
        size = (grid**2 or 2) * sum(self.backbone.channels)
        self.size = size
        self.norm = nn.BatchNorm1d(size)
        self.dropout = nn.Dropout(dropout)
        self.class_head = self._head(size, width, leaves)
        self.attribute_heads = nn.ModuleList(self._head(size, width, n) for n in attributes)
        self.nucleated_head = self._head(size, width, 1)
        self.corrected = self.follows_film = False
        # Class means and spread of the description, set after training: see `novelty`.
        self.register_buffer("prototypes", torch.zeros(leaves, size))
        self.register_buffer("spread", torch.ones(size))

    @staticmethod
    def _head(size: int, width: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(size, width), nn.Hardswish(), nn.Linear(width, out))

    def add_corrections(self) -> None:
        """Add linear functions of the description to the logits of classes and attributes.

        They are zero until they are fitted.
        """
        values = sum(self.attribute_values)
        self.class_correction = self._no_correction(self.size, self.last_class_layer.out_features)
        self.attribute_correction = self._no_correction(self.size, values)
        self.corrected = True

    def add_film_offset(self) -> None:
        """Add what names cells by their film: see `film_classes`. It is empty until it is set."""
        leaves = self.last_class_layer.out_features
        self.film_correction = self._no_correction(self.size, leaves)
        self.register_buffer("film_means", torch.zeros(leaves, self.size))
        self.register_buffer("film_learnt", torch.zeros(leaves, dtype=torch.bool))
        self.register_buffer("film_named", torch.zeros(leaves, dtype=torch.bool))
        self.register_buffer("film_groups", torch.zeros(leaves, dtype=torch.long))
        self.follows_film = True

    @staticmethod
    def _no_correction(size: int, out: int) -> nn.Linear:
        layer = nn.Linear(size, out)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        return layer

    @property
    def last_class_layer(self) -> nn.Linear:
        """The last layer of the class head."""
        layer = self.class_head[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    @torch.no_grad()
    def reset_corrections(self) -> None:
        """Set the corrections back to zero, so that the answers are those of the heads."""
        for layer in (self.class_correction, self.attribute_correction):
            layer.weight.zero_()
            layer.bias.zero_()

    @torch.no_grad()
    def set_class_correction(self, weight: Tensor, bias: Tensor) -> None:
        """Set what is added to class logits: (leaves, size), (leaves,)."""
        self.class_correction.weight.copy_(weight)
        self.class_correction.bias.copy_(bias)

    @torch.no_grad()
    def set_attribute_correction(self, weight: Tensor, bias: Tensor) -> None:
        """Set what is added to attribute logits: (values, size), (values,)."""
        self.attribute_correction.weight.copy_(weight)
        self.attribute_correction.bias.copy_(bias)

    @torch.no_grad()
    def set_film_means(self, means: Tensor, learnt: Tensor, named: Tensor, groups: Tensor) -> None:
        """Set what a film's cells are compared with, and which leaves are told apart how.

        Args:
            means: (leaves, size) of the descriptions of training cells.
            learnt: (leaves,) for which leaves there is one.
            named: (leaves,) which leaves training names.
            groups: (leaves,) number of the group of each leaf.
        """
        self.get_buffer("film_means").copy_(means)
        self.get_buffer("film_learnt").copy_(learnt)
        self.get_buffer("film_named").copy_(named)
        self.get_buffer("film_groups").copy_(groups)

    @torch.no_grad()
    def set_film_correction(self, weight: Tensor, bias: Tensor) -> None:
        """Set what is added to class logits without the offset: (leaves, size), (leaves,)."""
        self.film_correction.weight.copy_(weight)
        self.film_correction.bias.copy_(bias)

    @property
    def class_bias(self) -> Tensor:
        """The bias (leaves,) of the class logits."""
        return self.last_class_layer.bias

    def freeze_backbone(self) -> None:
        """Train what follows the backbone only; its batch statistics stay as they are too."""
        self.frozen = True
        self.backbone.requires_grad_(False)
        self.backbone.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch between training and evaluation; a frozen backbone stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def describe(self, crops: Tensor) -> Tensor:
        """Return the description (N, size) of crops (N, 3, S, S), pixels in [0, 255].

        Every level gives two means: over the whole crop and over its centre, where the cell is.
        """
        parts: list[Tensor] = []
        for feature in self.backbone(crops):
            h, w = feature.shape[2], feature.shape[3]
            top, left = max(h // 4, 0), max(w // 4, 0)
            centre = feature[:, :, top : h - top, left : w - left]
            if self.grid:
                parts.append(functional.adaptive_avg_pool2d(centre, self.grid).flatten(1))
            else:
                parts += [feature.mean((2, 3)), centre.mean((2, 3))]
        described: Tensor = self.norm(torch.cat(parts, 1).float())
        return described

    def forward(self, crops: Tensor) -> dict[str, Tensor]:
        """Return logits and `description` (N, size).

        The logits are `classes` (N, leaves), `attributes` (N, values) and `nucleated` (N,).
        """
        description = self.describe(crops)
        x = self.dropout(description)
        classes = self.class_head(x)
        attributes = torch.cat([head(x) for head in self.attribute_heads], 1)
        if self.corrected:
            classes = classes + self.class_correction(x)
            attributes = attributes + self.attribute_correction(x)
        return {
            "classes": classes,
            "attributes": attributes,
            "nucleated": self.nucleated_head(x).squeeze(1),
            "description": description,
        }

    def film_residual(self, description: Tensor) -> Tensor:
        """Return by how much cells (n, size) differ from what their classes look like in training.

        A cell's classes are those that the class head alone sees in it, by their probabilities. The
        mean of a film's cells, its offset, is what they have in common: stain and camera.
        """
        learnt = self.get_buffer("film_learnt")
        logits = self.class_head(description).masked_fill(~learnt, -torch.inf)
        means = self.get_buffer("film_means") * learnt[:, None]
        expected: Tensor = logits.softmax(1) @ means
        return description - expected

    def film_classes(self, description: Tensor, offset: Tensor) -> Tensor:
        """Return class logits (n, leaves) of cells (n, size) of a film with an offset (size,).

        The group of a cell follows from its description less the offset, the class within the group
        from the description as it is: what tells classes of a group apart is largely how their
        films look.
        """
        named = self.get_buffer("film_named")
        recentred = description - offset
        by_film = self.class_head(recentred) + self.film_correction(recentred)
        by_cell = self.class_head(description) + self.class_correction(description)
        result = torch.full_like(by_cell, NOT_NAMED)
        by_film, by_cell = (
            logits.masked_fill(~named, -torch.inf).log_softmax(1) for logits in (by_film, by_cell)
        )
        for number in range(int(self.get_buffer("film_groups").max()) + 1):
            of_group = named & (self.get_buffer("film_groups") == number)
            if of_group.any():
                group = by_film[:, of_group].logsumexp(1) - by_cell[:, of_group].logsumexp(1)
                result[:, of_group] = by_cell[:, of_group] + group[:, None]
        return result

    def set_prototypes(self, means: NDArray[np.float32], spread: NDArray[np.float32]) -> None:
        """Set the class means (leaves, size) and the spread within classes (size,)."""
        self.get_buffer("prototypes").copy_(torch.from_numpy(means))
        self.get_buffer("spread").copy_(torch.from_numpy(spread))

    def novelty(self, description: Tensor) -> Tensor:
        """Return the distance of a description from every learnt class, shape (N,), 0 = equal.

        The mean squared distance to the nearest class mean, each dimension in units of its spread
        within classes (the Mahalanobis score of Lee et al., NeurIPS 2018, with a diagonal
        covariance).
        """
        difference = (description[:, None] - self.get_buffer("prototypes")[None]) / (
            self.get_buffer("spread")
        )
        return difference.square().mean(2).amin(1)
