"""Files of the same bytes, found by reading as few of them as possible."""

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from bloodfilm.core.files import sha256_of


def identical_files(paths: Iterable[Path]) -> list[list[Path]]:
    """Return groups of two or more files of the same bytes; only files of one size are read.

    Paths that name one file (links) are one file.
    """
    sizes: dict[int, dict[Path, Path]] = defaultdict(dict)
    for path in paths:
        if os.path.isfile(path):  # noqa: PTH113, never raises
            sizes[path.stat().st_size].setdefault(path.resolve(), path)
    found: list[list[Path]] = []
    for listed in sizes.values():
        groups: dict[str, list[Path]] = defaultdict(list)
        for path in listed.values() if len(listed) > 1 else ():
            groups[sha256_of(path)].append(path)
        found += [sorted(group) for group in groups.values() if len(group) > 1]
    return sorted(found)
