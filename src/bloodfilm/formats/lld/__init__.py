"""LLD (LeukemiaAttri): COCO and text labels, the layout of its subsets, names and codes."""

from bloodfilm.formats.lld.read import Subset, json_labels, make_field, read, recognises, subsets
from bloodfilm.formats.lld.write import write

__all__ = ["Subset", "json_labels", "make_field", "read", "recognises", "subsets", "write"]
