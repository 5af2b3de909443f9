"""Region scores of unlabelled fields: from a bundle, or without a model from dark blobs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bloodfilm.active_learning.planning import RegionScores
from bloodfilm.active_learning.region_scores import dark_blobs, from_detections
from bloodfilm.core import Dataset, Field, Region
from bloodfilm.core.dataset_codes import PLANNED, dataset_issue
from bloodfilm.core.errors import DataError
from bloodfilm.core.results import FieldFailure, FieldResult
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.imaging.sources.image_file import open_image
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.model import Model
from bloodfilm.inference.runner import analyze_many

LOWEST_SCORE = 0.1
"""Minimum score of a detection: uncertain ones are needed."""

FieldScores = RegionScores | FieldFailure
"""Region scores of a field, or the reason why its file cannot be opened."""


def blob_scores(paths: Sequence[Path]) -> Iterator[FieldScores]:
    """Yield scores from each field's dark blobs, in the order of `paths`."""
    for path in paths:
        try:
            yield dark_blobs(open_image(path))
        except DataError as error:
            yield FieldFailure.from_error(path, error)


def bundle_scores(
    paths: Sequence[Path], bundle: Bundle, prior: ScalePrior
) -> Iterator[FieldScores]:
    """Yield scores from a bundle's detections on each field, with their uncertainty.

    The uncertainty of a cell is the greater of the detector's and the classifier's.
    A field that opens but cannot be analysed gets no scores.
    """
    model = Model(bundle, min_score=LOWEST_SCORE)
    names: dict[str, int] = {}
    for path, outcome in zip(paths, analyze_many(paths, model, prior=prior), strict=True):
        if isinstance(outcome, FieldResult):
            yield _from_result(outcome, names)
            continue
        try:
            height, width = open_image(path).shape[:2]
            yield RegionScores(width, height)
        except DataError:
            yield outcome


def _from_result(result: FieldResult, names: dict[str, int]) -> RegionScores:
    cells = result.cells
    boxes = np.array([c.box for c in cells], dtype=float).reshape(-1, 4)
    groups = [names.setdefault(c.label, len(names)) for c in cells]
    size = result.image.width, result.image.height
    found = from_detections(*size, boxes, [c.confidence for c in cells], groups)
    confidence = np.array([max(c.probabilities.values(), default=1.0) for c in cells])
    uncertainty = np.maximum(found.uncertainty, 1 - confidence)
    return replace(found, uncertainty=uncertainty)


def plan_dataset(
    paths: Sequence[Path], scores: Sequence[RegionScores], regions: Sequence[Region], name: str
) -> Dataset:
    """Return the plan as a data set: fields with the region to annotate and no cells."""
    fields = tuple(
        Field(path.resolve(), item.width, item.height, (), region)
        for path, item, region in zip(paths, scores, regions, strict=True)
    )
    message = "planned regions, not annotated yet: that they hold no cell says nothing"
    return Dataset(name, fields, issues=(dataset_issue(PLANNED, message),))
