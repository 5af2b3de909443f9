"""LLD (LeukemiaAttri): COCO and text labels, the layout of its subsets, names and codes.

`layout` finds subsets and their files; `raw_json` and `raw_text` parse labels as they stand; `read`
lowers them to a data set; `raw` gathers all labels of a set for who judges or edits them.
"""

from bloodfilm.formats.lld.layout import Subset, subsets
from bloodfilm.formats.lld.read import make_field, read, recognises
from bloodfilm.formats.lld.write import write

__all__ = ["Subset", "make_field", "read", "recognises", "subsets", "write"]
