"""Pair images of the same field by file name or by a list."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bloodfilm.core.errors import DataError
from bloodfilm.formats.lld.names import parse_name
from bloodfilm.formats.shared.parsing import read_csv

Key = tuple[str, ...]


def name_key(path: Path) -> Key:
    """Key that the names of two images of one field share.

    LLD's names: patient and field number; others: the stem, case-insensitive.
    """
    parts = parse_name(path.name)
    if parts is not None:
        return ("lld", parts.patient, parts.field)
    return ("stem", re.sub(r"\s+", "", path.stem).lower())


def by_name(sources: Sequence[Path], targets: Sequence[Path]) -> list[tuple[int, int]]:
    """Pairs (source index, target index) of images with the same name key."""
    known: defaultdict[Key, list[int]] = defaultdict(list)
    for index, path in enumerate(sources):
        known[name_key(path)].append(index)
    return [(s, t) for t, path in enumerate(targets) for s in known.get(name_key(path), ())]


def from_file(
    table: Path, sources: Sequence[Path], targets: Sequence[Path]
) -> list[tuple[int, int]]:
    """Pairs that a CSV file lists in its columns `source` and `target`.

    An entry is a path, or its last parts, with or without the suffix. `DataError` names the line
    of an entry that matches no image or several.
    """
    rows = read_csv(table, ("source", "target"))
    if not rows:
        raise DataError(f"{table}: has a header and no rows")
    lookups = _endings(sources), _endings(targets)
    pairs = []
    for row in rows:
        found = []
        for column, lookup in zip(("source", "target"), lookups, strict=True):
            entry = row[column].strip()
            parts = tuple(Path(entry).parts)
            fitting = lookup.get(parts, [])
            if len(fitting) != 1:
                message = "fits several images, give more of its path" if fitting else "is no image"
                raise DataError(f"{table}: line {row.line}: {column} {entry!r} {message}")
            found.append(fitting[0])
        pairs.append((found[0], found[1]))
    return list(dict.fromkeys(pairs))


def _endings(paths: Sequence[Path]) -> dict[tuple[str, ...], list[int]]:
    """Every ending of every path, with and without suffix -> indices."""
    table: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        for parts in (path.parts, path.with_suffix("").parts):
            for start in range(len(parts)):
                if index not in table[parts[start:]]:
                    table[parts[start:]].append(index)
    return table
