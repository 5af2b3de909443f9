"""Which fields belong together: of one patient, one file, one physical cell, one piece of glass."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.audit.cell_table import PHYSICAL, Table
from bloodfilm.duplicates.identical_files import copies

Pairs = Sequence[tuple[int, int]]


def place_of(path: str | Path) -> str:
    """Return the key of an image in a split: its absolute path."""
    text = os.fspath(path)
    return os.path.normpath(text if text.startswith("/") else Path(text).absolute())


def group_fields(tables: Sequence[Table], pairs: Sequence[Pairs] = ()) -> NDArray[np.int64]:
    """Return a group number for every field of all tables, in order.

    Args:
        tables: the data sets.
        pairs: for each table, pairs of its fields that show common glass; where they are given,
            files of the same bytes in several tables are tied too.
    """
    starts = np.cumsum([0, *(len(t.rows) for t in tables)]).tolist()
    ties = _Ties(starts[-1])
    first: dict[tuple[str, str], int] = {}
    for table, start in zip(tables, starts, strict=False):
        for number, key in _keys(table):
            ties.tie(start + number, first.setdefault(key, start + number))
    for linked, start in zip(pairs, starts, strict=False):
        for one, two in linked:
            ties.tie(start + one, start + two)
    if pairs and len(tables) > 1:  # within a table, `pairs` has them
        for one, two in _same_bytes(Path(r.path) for t in tables for r in t.rows):
            ties.tie(one, two)
    return ties.numbers()


def _keys(table: Table) -> Iterator[tuple[int, tuple[str, str]]]:
    """Yield (field, key): fields of one key belong together."""
    for number, row in enumerate(table.rows):
        yield number, ("path", place_of(row.path))
        if row.patient is not None:
            yield number, (table.name, row.patient)
    for cell, ident in enumerate(table.ids.tolist()):
        if ident.startswith(PHYSICAL):
            yield int(table.field[cell]), (table.source, ident)


def _same_bytes(paths: Iterable[Path]) -> Iterator[tuple[int, int]]:
    """Yield pairs of numbers of paths whose files hold the same bytes."""
    places = {path.resolve(): number for number, path in enumerate(paths)}
    for group in copies(places):
        for path in group[1:]:
            yield places[group[0]], places[path]


class _Ties:
    """Union-find over fields."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def root(self, item: int) -> int:
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def tie(self, one: int, two: int) -> None:
        a, b = sorted((self.root(one), self.root(two)))
        self.parent[b] = a

    def numbers(self) -> NDArray[np.int64]:
        roots = [self.root(i) for i in range(len(self.parent))]
        return np.unique(roots, return_inverse=True)[1].astype(np.int64)
