"""The nouns of bloodfilm; numpy and the standard library only."""

from bloodfilm.core.attributes import LLD_SCHEMA, WBCATT_SCHEMA, Attribute, Schema
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.domain import Domain
from bloodfilm.core.errors import BloodfilmError, BundleError, ConfigError, DataError
from bloodfilm.core.field import Box, Cell, Field
from bloodfilm.core.polygons import Region
from bloodfilm.core.results import AttributeResult, CellResult, FieldResult
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY, Node, Taxonomy

__all__ = [
    "DEFAULT_TAXONOMY",
    "LLD_SCHEMA",
    "WBCATT_SCHEMA",
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
    "Domain",
    "Field",
    "FieldResult",
    "Node",
    "Region",
    "Schema",
    "Taxonomy",
]
