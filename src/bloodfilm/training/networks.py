"""Untrained networks, as a configuration describes them."""

from bloodfilm.core import DEFAULT_TAXONOMY
from bloodfilm.core.attributes import Schema, schema_named
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.training.config import Config
from bloodfilm.training.data.cell_crops import classifier_leaves
from bloodfilm.training.data.sources import OBJECT_TYPES


def build_detector(config: Config) -> CellDetector:
    """Return an untrained detector as the configuration describes it."""
    reads = config.task == "sparse" and config.sparse.attributes > 0
    values = schema_named(config.data.schemas).width if reads else 0
    return CellDetector(config.model.backbone, len(OBJECT_TYPES), config.model.width, values)


def build_classifier(config: Config, schema: Schema) -> CellClassifierNet:
    """Return an untrained classifier as the configuration describes it."""
    levels, grid = ((1, 2), 7) if config.model.input == "roi" else ((2, 3, 4), 0)
    return CellClassifierNet(
        len(classifier_leaves(DEFAULT_TAXONOMY)),
        [len(a.values) for a in schema.attributes],
        config.model.backbone,
        width=config.model.width,
        dropout=config.model.dropout,
        levels=levels,
        grid=grid,
    )
