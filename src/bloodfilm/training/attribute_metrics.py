"""Attributes that a detector predicts for the cells it finds: predicted and scored."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.detections import Detections
from bloodfilm.evaluation.classification import macro_f1
from bloodfilm.evaluation.matching import MATCH_IOU, match
from bloodfilm.imaging.tiles import pad
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.data.canonical_fields import CanonicalField
from bloodfilm.training.tasks.common import to_tensor
from bloodfilm.training.tasks.detector import MULTIPLE
from bloodfilm.training.vocabulary import Vocabulary

LEAST_SCORE = 0.1
"""Attributes are predicted for detections that score so much."""


@torch.no_grad()
def predict_attributes(
    model: CellDetector, image: NDArray[np.uint8], boxes: NDArray[np.float64], device: torch.device
) -> NDArray[np.float32]:
    """Return a detector's logits (n, values) of the attributes of cells in boxes of an image."""
    if model.attributes is None:
        raise ValueError("the detector predicts no attributes")
    levels = model.backbone(to_tensor([pad(image, MULTIPLE)]).to(device))[:2]
    at = torch.from_numpy(np.asarray(boxes, dtype=np.float32)).to(device)
    which = torch.zeros(len(boxes), dtype=torch.long, device=device)
    logits: NDArray[np.float32] = model.attributes(levels, which, at).cpu().numpy()
    return logits


def score_attributes(
    model: CellDetector,
    fields: Sequence[CanonicalField],
    found: Sequence[Detections],
    vocabulary: Vocabulary,
) -> dict[str, float]:
    """Return `attribute_f1` of a detector; nothing if it predicts none or none is annotated."""
    if model.attributes is None or all(f.values is None for f in fields):
        return {}
    device = next(model.parameters()).device
    found = [
        d.take((d.type_ids == vocabulary.classified_id) & (d.scores >= LEAST_SCORE)) for d in found
    ]
    pairs = zip(fields, found, strict=True)
    logits = [predict_attributes(model, item.image, seen.boxes, device) for item, seen in pairs]
    return attribute_f1(fields, found, logits, vocabulary)


def attribute_f1(
    fields: Sequence[CanonicalField],
    found: Sequence[Detections],
    logits: Sequence[NDArray[np.float32]],
    vocabulary: Vocabulary,
) -> dict[str, float]:
    """Return the macro-F1 of every attribute, over the annotated classified cells that were found.

    A cell counts if a detection of the classified type overlaps it by `MATCH_IOU`; the best-scored
    one is taken. The mean is over the values that occur in the truth; `attribute_f1` is the
    mean over the attributes that have any truth.

    Args:
        fields: with `values`; found: detections in their pixels.
        logits: per field (detections, values).
    """
    schema, classified = vocabulary.schema, vocabulary.classified_id
    none = np.zeros((0, schema.width), np.float32)
    truth: list[NDArray[np.float32]] = [none]
    said: list[NDArray[np.float32]] = [none]
    for item, seen, answer in zip(fields, found, logits, strict=True):
        if item.values is None:
            continue
        cells = np.flatnonzero(item.type_ids == classified)
        own = np.flatnonzero(seen.type_ids == classified)
        pairs = match(item.boxes[cells], seen.boxes[own], seen.scores[own], MATCH_IOU).pairs
        truth.append(item.values[cells[[a for a, _ in pairs]]])
        said.append(answer[own[[b for _, b in pairs]]])
    right, guess = np.concatenate(truth), np.concatenate(said)
    scores = {}
    for name, where in schema.slices.items():
        known = right[:, where].sum(1) > 0
        if known.any():
            scores[f"{name}_f1"] = macro_f1(
                right[known, where].argmax(1), guess[known, where].argmax(1)
            )
    if scores:
        scores["attribute_f1"] = float(np.mean(list(scores.values())))
    return scores
