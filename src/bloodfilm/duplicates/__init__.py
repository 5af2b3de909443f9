"""The same picture, glass or cell more than once: identical files, overlaps, re-acquired cells."""
