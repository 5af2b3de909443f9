"""bloodfilm's own JSON document: carries everything."""

from bloodfilm.formats.native.document import read, recognises, write

__all__ = ["read", "recognises", "write"]
