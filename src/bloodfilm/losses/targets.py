"""What is known of a batch of canonical images, in the form every detection loss takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What is known of one canonical image. Losses never ask where it came from.

    Attributes:
        boxes: (n, 4) x, y, w, h in canonical pixels.
        kinds: (n,) index of each box's kind.
        weights: (n,) how much each box counts, 1 for a person's label.
        known: (h, w) boolean per output location: whether it may be learnt from. Outside the
            annotated region, and on ignore boxes, it is False.
        trust: (h, w) how much a known location without a cell counts as background; `None`
            counts each fully, as a person's label does.
        values: (n, values) of each cell's attributes: every attribute's part of a row adds up to
            1, or is all 0 where it is unknown. `None` says nothing of any.
    """

    boxes: NDArray[np.float32]
    kinds: NDArray[np.int64]
    weights: NDArray[np.float32]
    known: NDArray[np.bool_]
    trust: NDArray[np.float32] | None = None
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class TargetBatch:
    """Targets padded to one length.

    Attributes:
        boxes: (B, N, 4) x1, y1, x2, y2 in canonical pixels, zeros where padded.
        kinds: (B, N); weights: (B, N), 0 where padded; known: (B, h, w) boolean.
        trust: (B, h, w), or `None` where every location counts fully.
    """

    boxes: Tensor
    kinds: Tensor
    weights: Tensor
    known: Tensor
    trust: Tensor | None = None

    @classmethod
    def collate(cls, targets: Sequence[Target]) -> "TargetBatch":
        """Pad targets of equally large images into one batch."""
        count = max(1, *(len(t.boxes) for t in targets))
        boxes = torch.zeros(len(targets), count, 4)
        kinds = torch.zeros(len(targets), count, dtype=torch.long)
        weights = torch.zeros(len(targets), count)
        for i, t in enumerate(targets):
            n = len(t.boxes)
            if n:
                xywh = torch.from_numpy(np.asarray(t.boxes, dtype=np.float32))
                boxes[i, :n, :2] = xywh[:, :2]
                boxes[i, :n, 2:] = xywh[:, :2] + xywh[:, 2:]
                kinds[i, :n] = torch.from_numpy(np.asarray(t.kinds, dtype=np.int64))
                weights[i, :n] = torch.from_numpy(np.asarray(t.weights, dtype=np.float32))
        known = torch.from_numpy(np.stack([t.known for t in targets]))
        trust = None
        if any(t.trust is not None for t in targets):
            full = np.ones(targets[0].known.shape, np.float32)
            rows = [full if t.trust is None else t.trust for t in targets]
            trust = torch.from_numpy(np.stack(rows))
        return cls(boxes, kinds, weights, known, trust)

    def to(self, device: torch.device) -> "TargetBatch":
        """Move every tensor."""
        return TargetBatch(
            self.boxes.to(device),
            self.kinds.to(device),
            self.weights.to(device),
            self.known.to(device),
            None if self.trust is None else self.trust.to(device),
        )
