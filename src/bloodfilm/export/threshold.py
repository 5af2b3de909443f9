"""Where the finished bundle draws the line: from which score on it lists a nucleated cell."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bloodfilm.core import Domain
from bloodfilm.core.detections import Detections
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.analyzer import Analyzer
from bloodfilm.inference.bundle import load_bundle
from bloodfilm.training.calibration import best_threshold
from bloodfilm.training.data.sources import (
    OBJECT_TYPES,
    CanonicalField,
    SourcedField,
    training_view,
    truth_of,
)
from bloodfilm.training.tasks.detector import LOWEST_SCORE


def set_threshold(bundle: Path, held: Sequence[SourcedField]) -> float:
    """Choose the nucleated cell's threshold on validation fields, and write it to the manifest.

    The fields go through the runtime itself: what counts is the score it will show, of the graphs
    as they are stored and after the reader's closer look.

    Args:
        bundle: a bundle's folder.
        held: validation fields; their scale is told, from the labels.

    Returns:
        the best F1 at IoU 0.5, which the threshold gives.
    """
    loaded = load_bundle(bundle)
    manifest, classified = loaded.manifest, loaded.manifest.roles.classified
    analyzer = Analyzer(loaded, device="cpu", min_score=LOWEST_SCORE)
    fields, found = [], []
    for item in held:
        image = open_image(item.field.path)
        view = training_view(item.field, image)
        told = Domain(um_per_px=view.um_per_px_y, squeeze=view.squeeze)
        cells = analyzer.analyze(image, item.field.path, told).cells
        boxes = np.array([c.box for c in cells], dtype=np.float64).reshape(-1, 4)
        kinds = np.array([OBJECT_TYPES.index(c.object_type) for c in cells], dtype=np.intp)
        found.append(Detections(boxes, np.array([c.confidence for c in cells], dtype=float), kinds))
        truth = truth_of(item)
        fields.append(
            CanonicalField(image, truth.boxes, truth.kinds, truth.ignore, item.field.region)
        )
    threshold, f1 = best_threshold(fields, found, OBJECT_TYPES.index(classified))
    validation = manifest.metrics.get("validation", {})
    detector = validation.get("detector", {}) | {"f1_confirmed_cell": round(f1, 4)}
    metrics = {"validation": {**validation, "detector": detector}}
    manifest.with_threshold(classified, threshold).with_metrics(metrics).write(bundle)
    return f1
