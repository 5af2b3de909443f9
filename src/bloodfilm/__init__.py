"""Find white cells on blood-film micrographs, name them and describe seven attributes.

Research use only. The public names load on first use, so `import bloodfilm` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bloodfilm import _telemetry

_telemetry.switch_off()  # before anything else is imported

# A public name stands in three places: here for editors and mypy, and in the two lists below.
# A test holds the three together.
if TYPE_CHECKING:
    from bloodfilm.core.attributes import LLD_SCHEMA as LLD_SCHEMA
    from bloodfilm.core.attributes import WBCATT_SCHEMA as WBCATT_SCHEMA
    from bloodfilm.core.attributes import Schema as Schema
    from bloodfilm.core.dataset import Dataset as Dataset
    from bloodfilm.core.domain import Domain as Domain
    from bloodfilm.core.errors import BloodfilmError as BloodfilmError
    from bloodfilm.core.errors import BundleError as BundleError
    from bloodfilm.core.errors import ConfigError as ConfigError
    from bloodfilm.core.errors import DataError as DataError
    from bloodfilm.core.field import Cell as Cell
    from bloodfilm.core.field import Field as Field
    from bloodfilm.core.polygons import Region as Region
    from bloodfilm.core.results import AttributeResult as AttributeResult
    from bloodfilm.core.results import CellResult as CellResult
    from bloodfilm.core.results import FieldResult as FieldResult
    from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY as DEFAULT_TAXONOMY
    from bloodfilm.core.taxonomy import Taxonomy as Taxonomy
    from bloodfilm.formats import open_dataset as open_dataset
    from bloodfilm.imaging.canonical import canonical_view as canonical_view
    from bloodfilm.imaging.sources.image_file import open_image as open_image
    from bloodfilm.inference.analyzer import Analyzer as Analyzer
    from bloodfilm.inference.bundle import default_bundle as default_bundle
    from bloodfilm.inference.bundle import load_bundle as load_bundle
    from bloodfilm.inference.runner import analyze_paths as analyze_paths
    from bloodfilm.synthetic import render_field as render_field

__version__ = "0.1.0"

__all__ = [
    "DEFAULT_TAXONOMY",
    "LLD_SCHEMA",
    "WBCATT_SCHEMA",
    "Analyzer",
    "AttributeResult",
    "BloodfilmError",
    "BundleError",
    "Cell",
    "CellResult",
    "ConfigError",
    "DataError",
    "Dataset",
    "Domain",
    "Field",
    "FieldResult",
    "Region",
    "Schema",
    "Taxonomy",
    "__version__",
    "analyze_paths",
    "canonical_view",
    "default_bundle",
    "load_bundle",
    "open_dataset",
    "open_image",
    "render_field",
]

_HOME = {
    "Analyzer": "bloodfilm.inference.analyzer",
    "AttributeResult": "bloodfilm.core.results",
    "BloodfilmError": "bloodfilm.core.errors",
    "BundleError": "bloodfilm.core.errors",
    "Cell": "bloodfilm.core.field",
    "CellResult": "bloodfilm.core.results",
    "ConfigError": "bloodfilm.core.errors",
    "DEFAULT_TAXONOMY": "bloodfilm.core.taxonomy",
    "DataError": "bloodfilm.core.errors",
    "Dataset": "bloodfilm.core.dataset",
    "Domain": "bloodfilm.core.domain",
    "Field": "bloodfilm.core.field",
    "FieldResult": "bloodfilm.core.results",
    "LLD_SCHEMA": "bloodfilm.core.attributes",
    "Region": "bloodfilm.core.polygons",
    "Schema": "bloodfilm.core.attributes",
    "Taxonomy": "bloodfilm.core.taxonomy",
    "WBCATT_SCHEMA": "bloodfilm.core.attributes",
    "analyze_paths": "bloodfilm.inference.runner",
    "canonical_view": "bloodfilm.imaging.canonical",
    "default_bundle": "bloodfilm.inference.bundle",
    "load_bundle": "bloodfilm.inference.bundle",
    "open_dataset": "bloodfilm.formats",
    "open_image": "bloodfilm.imaging.sources.image_file",
    "render_field": "bloodfilm.synthetic",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'bloodfilm' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
