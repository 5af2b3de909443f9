"""The operating threshold: from which score on a finished bundle lists a nucleated cell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bloodfilm.core.detections import Detections
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources import read_whole
from bloodfilm.imaging.sources.field import open_field
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.inference.detector import LOWEST_SCORE
from bloodfilm.inference.model import Model
from bloodfilm.training.calibration import best_threshold
from bloodfilm.training.data.canonical_fields import (
    CanonicalField,
    field_targets,
    training_view,
)
from bloodfilm.training.data.sourced_field import SourcedField
from bloodfilm.training.vocabulary import Vocabulary

SLACK = 0.006
"""F1 that is given up for a lower threshold."""


def set_threshold(bundle: Path, validation: Sequence[SourcedField]) -> float:
    """Choose the score threshold of nucleated cells on validation fields; write it to the manifest.

    The fields are analysed by the runtime itself: what counts is the score that results will show,
    of the stored graphs and after the classifier's verification.

    Args:
        bundle: a bundle's folder.
        validation: fields; their scale is taken from the labels.

    Returns:
        the F1 at IoU 0.5 at the threshold, within `SLACK` of the best.
    """
    loaded = load_bundle(bundle)
    manifest, classified = loaded.manifest, loaded.manifest.roles.classified
    model = Model(loaded, device="cpu", min_score=LOWEST_SCORE)
    types = manifest.object_types
    vocabulary = Vocabulary(manifest.taxonomy, manifest.attributes, types, manifest.roles)
    fields, found = [], []
    for item in validation:
        source = open_field(item.field)
        image = read_whole(source)
        view = training_view(item.field, source, manifest.roles.ruler)
        cells = model.analyze(
            source, prior=ScalePrior(view.um_per_px_y, view.pixel_aspect_ratio, "metadata")
        ).cells
        boxes = np.array([c.box for c in cells], dtype=np.float64).reshape(-1, 4)
        kinds = np.array([types.index(c.object_type) for c in cells], dtype=np.intp)
        found.append(Detections(boxes, np.array([c.confidence for c in cells], dtype=float), kinds))
        targets = field_targets(item, vocabulary)
        fields.append(
            CanonicalField(
                image, targets.boxes, targets.type_ids, targets.ignore, item.field.region
            )
        )
    threshold, f1 = best_threshold(fields, found, types.index(classified), SLACK)
    known = manifest.metrics.get("validation", {}).get("detector", {})
    figures = {"detector": {**known, "f1_confirmed_cell": round(f1, 4)}}
    manifest.with_threshold(classified, threshold).with_figures(validation=figures).write(bundle)
    return f1
