"""Stream the fields of an index for training, shard by shard, in a seeded order.

An epoch takes every field once (or as often as its source is repeated). The shards, the row groups
of the index, are shuffled; consecutive ones are mixed in small groups; fields are read, and images
opened, only when they are drawn. The order depends on the seed and the epoch only, so training
can resume at any place, with any number of workers.
"""

import logging
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import Dataset, Field, Schema
from bloodfilm.core.cell_table import CellColumns
from bloodfilm.core.lazy_sequence import LazySequence
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields
from bloodfilm.formats.parquet.subset import ChosenFields, choose
from bloodfilm.training.data.keys import Key
from bloodfilm.training.data.sourced_field import SourcedField

Numbers = NDArray[np.int64]

MIXED_SHARDS = 4
SHARD = 256
"""Shard size of fields of a source in memory (not an index)."""
ORDER, PORTION = 21, 22
"""Random-stream ids, different from those of the tasks."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetShard:
    """The fields of one source: those of an index, or a list."""

    fields: ChosenFields | Sequence[Field]
    dataset: Dataset
    repeat: float
    groups: Sequence[str] = ()
    split_file: Path | None = None
    omit: frozenset[str] = frozenset()

    @property
    def streamed(self) -> bool:
        """Whether the fields are read as they are drawn."""
        return isinstance(self.fields, ChosenFields)

    def at(self, place: int, field: Field) -> SourcedField:
        """Return a field with the properties of its source."""
        group = self.groups[place] if self.groups else ""
        return SourcedField(field, self.dataset, self.repeat, group, self.split_file, self.omit)

    def cells(self, schema: Schema) -> CellColumns:
        """Return the cells of all fields as arrays."""
        if isinstance(self.fields, ChosenFields):
            return self.fields.cells(schema)
        return CellColumns.from_fields(self.fields, schema)

    def heads(self) -> Iterator[Field]:
        """Yield the fields without their cells, where those need not be read."""
        if isinstance(self.fields, ChosenFields):
            for head in self.fields.heads():
                yield field_of(head)
        else:
            yield from self.fields


def fields_in(dataset: Dataset, splits: Sequence[str]) -> ChosenFields | list[Field]:
    """Return a data set's fields of some splits, or of all.

    Fields of an index are not loaded. Those whose image is not on disk are left out and counted;
    images are not opened.
    """
    if not isinstance(dataset.fields, IndexFields | ChosenFields):
        return [f for f in dataset if not splits or f.split in splits]
    missing = 0
    files = lru_cache(maxsize=256)(_files_of)

    def keep(head: FieldHeader) -> FieldHeader | None:
        nonlocal missing
        if splits and head.origin["split"] not in splits:
            return None
        folder, name = os.path.split(head.path)
        if name in files(folder):
            return head
        missing += 1
        return None

    chosen = choose(dataset.fields, keep)
    if missing:
        _log.warning("left out: %d images of %s are not on disk", missing, dataset.source)
    return chosen


def _files_of(folder: str) -> frozenset[str]:
    try:
        with os.scandir(folder or ".") as entries:
            return frozenset(e.name for e in entries if e.is_file())
    except OSError:
        return frozenset()


class FieldStream(LazySequence[SourcedField]):
    """The fields of several sources, one of them an index or more; none is loaded."""

    def __init__(self, parts: Sequence[DatasetShard]) -> None:
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *(len(p.fields) for p in self.parts)]).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def item_at(self, place: int) -> SourcedField:
        """Read the field at a place."""
        which = bisect_right(self.starts, place) - 1
        part, inside = self.parts[which], place - self.starts[which]
        return part.at(inside, part.fields[inside])

    def __iter__(self) -> Iterator[SourcedField]:
        for part in self.parts:
            yield from (part.at(i, f) for i, f in enumerate(part.fields))

    def heads(self) -> Iterator[SourcedField]:
        """Yield all fields without their cells, to check patients and files."""
        for part in self.parts:
            yield from (part.at(i, f) for i, f in enumerate(part.heads()))

    def where(self, keep: Callable[[Field], bool]) -> "FieldStream":
        """Return the fields for which `keep` is true; it gets them without their cells."""
        return FieldStream([_kept(part, keep) for part in self.parts])

    @cached_property
    def shards(self) -> NDArray[np.int32]:
        """The shard of each field, (n,): no two sources share one."""
        found, count = [np.zeros(0, np.int32)], 0
        for part in self.parts:
            if isinstance(part.fields, ChosenFields):
                own = part.fields.shards()
            else:
                own = np.arange(len(part.fields), dtype=np.int32) // SHARD
            found.append(own + count)
            count += int(own.max(initial=-1)) + 1
        return np.concatenate(found)

    @cached_property
    def repeats(self) -> NDArray[np.float64]:
        """How often an epoch draws each field, (n,)."""
        return np.repeat([p.repeat for p in self.parts], np.diff(self.starts))

    def order(self, seed: int, epoch: int) -> Numbers:
        """Return the numbers of an epoch's fields in drawing order."""
        return shuffled_order(self.shards, repeat_counts(self.repeats, seed), [seed, ORDER, epoch])


def _kept(part: DatasetShard, keep: Callable[[Field], bool]) -> DatasetShard:
    """Return a part with some of its fields, and their groups."""
    verdicts: list[bool] = []

    def judged(field: Field) -> bool:
        verdicts.append(keep(field))
        return verdicts[-1]

    fields: ChosenFields | Sequence[Field]
    if isinstance(part.fields, ChosenFields):
        fields = choose(part.fields, lambda head: head if judged(field_of(head)) else None)
    else:
        fields = [f for f in part.fields if judged(f)]
    groups = [g for g, kept in zip(part.groups, verdicts, strict=bool(part.groups)) if kept]
    return replace(part, fields=fields, groups=groups)


def field_of(head: FieldHeader) -> Field:
    """Return the field that a head is of, without its cells."""
    return Field(Path(head.path), head.width, head.height, (), **head.origin)


def with_annotation(sourced: Sequence[SourcedField]) -> Sequence[SourcedField]:
    """Return the fields with an annotated region, or all."""
    if isinstance(sourced, FieldStream):
        return sourced.where(lambda field: not field.region.is_nothing)
    return [s for s in sourced if not s.field.region.is_nothing]


class FieldHeaders(Sequence[SourcedField]):
    """Fields of a stream or a list, repeated; those of a stream without cells."""

    def __init__(self, *sourced: Sequence[SourcedField]) -> None:
        self.sourced = sourced

    def __len__(self) -> int:
        return sum(map(len, self.sourced))

    def __iter__(self) -> Iterator[SourcedField]:
        for listed in self.sourced:
            yield from listed.heads() if isinstance(listed, FieldStream) else listed

    def __getitem__(self, index: int | slice) -> SourcedField:  # type: ignore[override]
        raise TypeError("heads are read from first to last")


# ---- order -----------------------------------------------------------------------------------


def repeat_counts(weights: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """Return the draws per item and epoch: floor(weight) plus one with probability frac(weight).

    They are the same in every epoch, so all have equal length, and a place in the stream is
    an epoch and a place in it.
    """
    whole, part = np.divmod(weights, 1)
    luck = np.random.default_rng([seed, PORTION]).random(len(weights))
    return np.asarray(whole.astype(np.int64) + (luck < part))


def shuffled_order(
    shards: NDArray[np.int32], often: NDArray[np.int64], seed: Sequence[int]
) -> Numbers:
    """Return item numbers repeated by count; shards are shuffled and mixed in small groups."""
    rng = np.random.default_rng(list(seed))
    count = int(shards.max(initial=-1)) + 1
    block = rng.permutation(count)[shards] // MIXED_SHARDS
    numbers = np.repeat(np.arange(len(shards)), often)
    return numbers[np.lexsort((rng.random(len(numbers)), block[numbers]))]


class HasEpochOrder(Protocol):
    """An object with an order for every epoch, all of one length."""

    def order(self, seed: int, epoch: int) -> Numbers:
        """Return an epoch's numbers in drawing order."""
        ...


class EpochOrder:
    """An endless sequence of numbers, epoch by epoch; at most two epochs are kept."""

    def __init__(self, source: HasEpochOrder, seed: int) -> None:
        self.source, self.seed = source, seed
        self._kept: dict[int, Numbers] = {}
        self.length = len(self._epoch(0))

    def _epoch(self, epoch: int) -> Numbers:
        if epoch not in self._kept:
            before = {e: numbers for e, numbers in self._kept.items() if e == epoch - 1}
            self._kept = before | {epoch: self.source.order(self.seed, epoch)}
        return self._kept[epoch]

    def __getitem__(self, place: int) -> int:
        epoch, rest = divmod(place, self.length)
        return int(self._epoch(epoch)[rest])

    def window(self, start: int, count: int) -> Numbers:
        """Return `count` numbers from a place on."""
        parts = [np.zeros(0, np.int64)]
        while count > 0:
            epoch, rest = divmod(start, self.length)
            part = self._epoch(epoch)[rest : rest + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)


class EpochKeys(Sequence[Key]):
    """The keys (epoch, number) of an epoch, computed on access."""

    def __init__(self, epoch: int, numbers: Numbers) -> None:
        self.epoch, self.numbers = epoch, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> Key: ...
    @overload
    def __getitem__(self, index: slice) -> "EpochKeys": ...
    def __getitem__(self, index: int | slice) -> "Key | EpochKeys":
        """Return one key, or those of a slice."""
        if isinstance(index, slice):
            return EpochKeys(self.epoch, self.numbers[index])
        return self.epoch, int(self.numbers[index])
