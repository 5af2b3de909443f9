"""The networks: backbones from timm, the cell detector, the cell classifier."""

from bloodfilm.models.backbone import Backbone
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.models.detector import CellDetector

__all__ = ["Backbone", "CellClassifierNet", "CellDetector"]
