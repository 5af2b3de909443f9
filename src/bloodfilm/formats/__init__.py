"""Data sets on disk: one module or package per format, and one call that opens any of them.

    dataset = open_dataset("path/to/anything")

`READERS`, `WRITERS` and `TABLES` list the formats.
"""

from bloodfilm.formats.registry import READERS, TABLES, WRITERS, detect, open_dataset, save_dataset

__all__ = ["READERS", "TABLES", "WRITERS", "detect", "open_dataset", "save_dataset"]
