"""QuPath annotations (GeoJSON)."""

from bloodfilm.formats.qupath.read import read, recognises
from bloodfilm.formats.qupath.write import write

__all__ = ["read", "recognises", "write"]
