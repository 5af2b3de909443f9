"""Data sets on disk: one module or package per format, and one call that opens any of them.

    dataset = open_dataset("path/to/anything")

`READERS` and `WRITERS` list the formats.
"""

from bloodfilm.formats.registry import READERS, WRITERS, detect, open_dataset, save_dataset

__all__ = ["READERS", "WRITERS", "detect", "open_dataset", "save_dataset"]
