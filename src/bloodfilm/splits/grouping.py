"""Which fields belong together: of one patient, one file, one physical cell, one piece of glass."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.cell_table import PHYSICAL, CellTable
from bloodfilm.core.connected import connected_components
from bloodfilm.duplicates.identical_files import identical_files

Pairs = Sequence[tuple[int, int]]
AUGMENTED = re.compile(r"\.rf\.[0-9A-Za-z]{6,}\.\w+$")
"""How Roboflow names the augmented copies of one picture: NAME.rf.HASH.jpg."""


def place_of(path: str | Path) -> str:
    """Return the key of an image in a split: its absolute path."""
    text = os.fspath(path)
    return os.path.normpath(text if text.startswith("/") else Path(text).absolute())


def original_name(path: str) -> str:
    """Return what the name of an augmented copy says of its original.

    >>> original_name("train/images/f1_png.rf.0123456789ab.jpg")
    'f1_png'
    """
    return AUGMENTED.sub("", os.path.basename(path))  # noqa: PTH119


def group_fields(tables: Sequence[CellTable], pairs: Sequence[Pairs] = ()) -> NDArray[np.int64]:
    """Return a group number for every field of all tables, in order.

    Args:
        tables: the data sets.
        pairs: for each table, pairs of its fields that show common glass; where they are given,
            files of the same bytes in several tables belong together too.
    """
    starts = np.cumsum([0, *(len(t.rows) for t in tables)]).tolist()
    roots = connected_components(starts[-1], _links(tables, pairs, starts))
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def _links(
    tables: Sequence[CellTable], pairs: Sequence[Pairs], starts: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Yield pairs of fields that belong together, numbered over all tables."""
    first: dict[tuple[str, str], int] = {}
    for table, start in zip(tables, starts, strict=False):
        for number, key in _keys(table):
            yield start + number, first.setdefault(key, start + number)
    for linked, start in zip(pairs, starts, strict=False):
        for one, two in linked:
            yield start + one, start + two
    if pairs and len(tables) > 1:  # within a table, `pairs` has them
        yield from _same_bytes(Path(r.path) for t in tables for r in t.rows)


def _keys(table: CellTable) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield (field, key): fields of one key belong together."""
    for number, row in enumerate(table.rows):
        yield number, ("path", place_of(row.path))
        if row.patient is not None:
            yield number, (table.name, row.patient)
        if AUGMENTED.search(row.path):
            yield number, (table.source or table.name, original_name(row.path))
    for cell, ident in enumerate(table.ids.tolist()):
        if ident.startswith(PHYSICAL):
            yield int(table.field[cell]), (table.source, ident)


def _same_bytes(paths: Iterable[Path]) -> Iterator[tuple[int, int]]:
    """Yield pairs of numbers of paths whose files hold the same bytes."""
    places = {path.resolve(): number for number, path in enumerate(paths)}
    for group in identical_files(places):
        for path in group[1:]:
            yield places[group[0]], places[path]
