"""Targets of a batch of canonical images, in the form every detection loss takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Targets of one canonical image, whether annotated or pseudo labels.

    Attributes:
        boxes: (n, 4) x, y, w, h in canonical pixels.
        type_ids: (n,) index of each box's object type.
        weights: (n,) of each box, 1 for an annotation.
        known: (h, w) boolean per output location: whether it is supervised. Outside the annotated
            region, and on ignore boxes, it is False.
        values: (n, values) attribute targets of each cell: every attribute's part of a row adds up
            to 1, or is all 0 where it is unknown. `None`: no attribute is known.
        domain: index of the domain that the image is from, -1 for several or an unknown one.
    """

    boxes: NDArray[np.float32]
    type_ids: NDArray[np.int64]
    weights: NDArray[np.float32]
    known: NDArray[np.bool_]
    values: NDArray[np.float32] | None = None
    domain: int = -1


@dataclass(frozen=True)
class TargetBatch:
    """Targets padded to one length.

    Attributes:
        corners: (B, N, 4) x1, y1, x2, y2 in canonical pixels, zeros where padded.
        type_ids: (B, N); weights: (B, N), 0 where padded; known: (B, h, w) boolean.
        domain: (B,) index of each image's domain, -1 for several or an unknown one.
    """

    corners: Tensor
    type_ids: Tensor
    weights: Tensor
    known: Tensor
    domain: Tensor

    @classmethod
    def collate(cls, targets: Sequence[Target]) -> "TargetBatch":
        """Pad targets of equally large images into one batch."""
        count = max(1, *(len(t.boxes) for t in targets))
        corners = torch.zeros(len(targets), count, 4)
        type_ids = torch.zeros(len(targets), count, dtype=torch.long)
        weights = torch.zeros(len(targets), count)
        for i, t in enumerate(targets):
            n = len(t.boxes)
            if n:
                xywh = torch.from_numpy(np.asarray(t.boxes, dtype=np.float32))
                corners[i, :n, :2] = xywh[:, :2]
                corners[i, :n, 2:] = xywh[:, :2] + xywh[:, 2:]
                type_ids[i, :n] = torch.from_numpy(np.asarray(t.type_ids, dtype=np.int64))
                weights[i, :n] = torch.from_numpy(np.asarray(t.weights, dtype=np.float32))
        known = torch.from_numpy(np.stack([t.known for t in targets]))
        domain = torch.tensor([t.domain for t in targets], dtype=torch.long)
        return cls(corners, type_ids, weights, known, domain)

    def to(self, device: torch.device) -> "TargetBatch":
        """Move every tensor."""
        return TargetBatch(
            self.corners.to(device),
            self.type_ids.to(device),
            self.weights.to(device),
            self.known.to(device),
            self.domain.to(device),
        )
