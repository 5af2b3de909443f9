"""The networks: backbones from timm, the cell detector, the cell reader."""

from bloodfilm.models.backbone import Backbone
from bloodfilm.models.detector import CellDetector
from bloodfilm.models.reader import CellReader

__all__ = ["Backbone", "CellDetector", "CellReader"]
