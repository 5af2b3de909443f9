"""Detected objects as arrays: boxes, scores, object types."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bloodfilm.core.arrays import Bools, BoxArray, Floats, Ints
from bloodfilm.core.boxes import as_boxes, to_xywh, to_xyxy


@dataclass(frozen=True, eq=False)
class Detections:
    """Objects found in one image.

    Attributes:
        boxes: (n, 4) float64; x, y of the top left corner, width, height in pixels.
        scores: (n,) float64, confidence in [0, 1].
        type_ids: (n,) integers, indices into the bundle's list of object types.

    Raises:
        ValueError: if the arrays differ in length or have another shape.

    >>> found = Detections.from_xyxy([[10, 20, 40, 60]], [0.9])
    >>> found.boxes.tolist(), found.xyxy.tolist(), found.type_ids.tolist()
    ([[10.0, 20.0, 30.0, 40.0]], [[10.0, 20.0, 40.0, 60.0]], [0])
    """

    boxes: BoxArray
    scores: Floats
    type_ids: Ints

    def __post_init__(self) -> None:
        n = len(self.scores)
        shapes = (self.boxes.shape, self.scores.shape, self.type_ids.shape)
        if shapes != ((n, 4), (n,), (n,)):
            raise ValueError(
                f"detections: boxes, scores and type_ids have shapes {shapes}, "
                "but (n, 4), (n,) and (n,) are needed"
            )

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def xyxy(self) -> BoxArray:
        """Boxes as (n, 4): left, top, right, bottom in pixels; right and bottom are exclusive."""
        return to_xyxy(self.boxes)

    @classmethod
    def empty(cls) -> "Detections":
        """Return no detections."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.intp))

    @classmethod
    def from_xyxy(
        cls, xyxy: ArrayLike, scores: ArrayLike, type_ids: ArrayLike | None = None
    ) -> "Detections":
        """Build detections from corners, the convention of torchvision and supervision.

        Args:
            xyxy: (n, 4) left, top, right, bottom in pixels.
            scores: (n,) confidence in [0, 1].
            type_ids: (n,) object types; all 0 if left out.
        """
        confidence = np.asarray(scores, dtype=np.float64).reshape(-1)
        types = np.zeros(len(confidence)) if type_ids is None else np.asarray(type_ids)
        return cls(to_xywh(as_boxes(xyxy)), confidence, types.astype(np.intp).reshape(-1))

    @classmethod
    def merge(cls, parts: Sequence["Detections"]) -> "Detections":
        """Concatenate detections, in the order given.

        >>> one = Detections.from_xyxy([[0, 0, 4, 4]], [0.5])
        >>> len(Detections.merge([one, Detections.empty(), one]))
        2
        """
        if not parts:
            return cls.empty()
        return cls(
            np.concatenate([p.boxes for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.type_ids for p in parts]),
        )

    def take(self, which: Bools | Ints) -> "Detections":
        """Return the detections that a mask or indices select, in that order."""
        return Detections(self.boxes[which], self.scores[which], self.type_ids[which])

    def with_boxes(self, boxes: BoxArray) -> "Detections":
        """Return the same detections with other boxes."""
        return Detections(np.asarray(boxes, dtype=np.float64), self.scores, self.type_ids)
