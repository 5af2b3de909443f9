"""Core types: data sets, fields, cells, results, vocabulary; numpy and the standard library."""

from bloodfilm.core.attributes import LLD_SCHEMA, WBCATT_SCHEMA, Attribute, Schema
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.detections import Detections
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import BloodfilmError, BundleError, ConfigError, DataError
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.issues import Issue
from bloodfilm.core.pixels import PixelSize, ViewRecord
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import (
    AnalysisRun,
    AttributeResult,
    CellResult,
    FieldFailure,
    FieldResult,
    ImageRef,
    ModelInfo,
)
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Node, Taxonomy

__all__ = [
    "DEFAULT_TAXONOMY",
    "LLD_SCHEMA",
    "WBCATT_SCHEMA",
    "AnalysisRun",
    "Attribute",
    "AttributeResult",
    "BloodfilmError",
    "Box",
    "BundleError",
    "Cell",
    "CellResult",
    "ConfigError",
    "DataError",
    "Dataset",
    "Detections",
    "Domain",
    "Field",
    "FieldFailure",
    "FieldResult",
    "ImageRef",
    "Issue",
    "ModelInfo",
    "Node",
    "PixelSize",
    "Region",
    "Schema",
    "Taxonomy",
    "ViewRecord",
]
