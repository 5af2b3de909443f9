"""Label Studio tasks (JSON)."""

from bloodfilm.formats.label_studio.read import read, recognises
from bloodfilm.formats.label_studio.write import write

__all__ = ["read", "recognises", "write"]
