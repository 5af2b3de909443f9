"""Build untrained networks from a configuration and a vocabulary."""

from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector
from bloodfilm.models.outlines import OutlineNet
from bloodfilm.training.config import Config
from bloodfilm.training.vocabulary import Vocabulary


def build_detector(config: Config, vocabulary: Vocabulary) -> CellDetector:
    """Return an untrained detector of the vocabulary's object types."""
    has_attributes = config.task == "sparse" and config.sparse.attributes > 0
    values = vocabulary.schema.width if has_attributes else 0
    types = len(vocabulary.object_types)
    return CellDetector(config.model.backbone, types, config.model.width, values)


def build_classifier(config: Config, vocabulary: Vocabulary) -> CellClassifierNet:
    """Return an untrained classifier of the vocabulary's leaves and attributes."""
    levels, grid = ((1, 2), 7) if config.model.input == "roi" else ((2, 3, 4), 0)
    network = CellClassifierNet(
        len(vocabulary.leaves),
        [len(a.values) for a in vocabulary.schema.attributes],
        config.model.backbone,
        width=config.model.width,
        dropout=config.model.dropout,
        levels=levels,
        grid=grid,
    )
    if config.correction.samples:
        network.add_corrections()
    if config.film_offset.sets:
        network.add_film_offset()
    if config.model.frozen:
        network.freeze_backbone()
    return network


def build_outline_net(config: Config) -> OutlineNet:
    """Return an untrained outline network."""
    return OutlineNet(config.outlines.widths)
