"""CVAT for images 1.1 (XML)."""

from bloodfilm.formats.cvat.read import read, recognises
from bloodfilm.formats.cvat.write import write

__all__ = ["read", "recognises", "write"]
