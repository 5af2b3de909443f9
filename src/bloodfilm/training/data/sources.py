"""The data sets of a configuration, opened; and the check that both sides are disjoint."""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core import Dataset, Field
from bloodfilm.core.errors import ConfigError
from bloodfilm.formats import open_dataset
from bloodfilm.formats.judged import refuse_unjudged
from bloodfilm.splits.disjoint import check_disjoint, dataset_in_split, group_keys
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.sharded import DatasetShard, FieldHeaders, FieldStream, fields_in
from bloodfilm.training.data.sourced_field import SourcedField

THINNED = 43
"""Random-stream id of the choice of fields where a source is thinned."""
_log = logging.getLogger(__name__)


def open_sources(sources: Sequence[DatasetConfig], root: Path) -> Sequence[SourcedField]:
    """Return the fields of all sources, in order: a list, or a `FieldStream` if one is an index.

    Raises:
        ConfigError: if a source's splits hold no field, or its split file leaks.
        DataError: if a data set or a split file cannot be read.
    """
    parts: list[DatasetShard] = []
    for source in sources:
        dataset = open_dataset(root / source.path, format=source.format, **source.options)
        refuse_unjudged(dataset, root / source.path)
        for found in dataset.issues:
            _log.info("%s: %s", source.path, found)
        file, split = None, None
        if source.split_file is not None:
            file = root / source.split_file
            dataset, split = dataset_in_split(dataset, file, source.splits)
        fields = fields_in(dataset, source.splits)
        if not fields:
            raise ConfigError(
                f"{root / source.path}: no field in splits {', '.join(source.splits) or '(any)'}"
            )
        if source.most is not None:
            if not isinstance(fields, list):
                raise ConfigError(
                    f"{root / source.path}: fields of an index cannot be thinned; list the data "
                    "set itself, or leave `most` out"
                )
            fields = thinned(fields, source.most)
        if source.omit_attributes and not isinstance(fields, list):
            raise ConfigError(
                f"{root / source.path}: attributes of an index cannot be left out; list the data "
                "set itself, or leave `omit_attributes` out"
            )
        groups = group_keys(file, split, fields) if file and split else ()
        omit = frozenset(source.omit_attributes)
        parts.append(DatasetShard(fields, dataset, source.repeat, groups, file, omit))
    if any(part.streamed for part in parts):
        return FieldStream(parts)
    return [part.at(i, field) for part in parts for i, field in enumerate(part.fields)]


def thinned(fields: Sequence[Field], most: int) -> list[Field]:
    """Return at most so many fields per class of their first cell, chosen at random, in order."""
    taken: Counter[str | None] = Counter()
    kept = []
    for i in np.random.default_rng(THINNED).permutation(len(fields)):
        cells = fields[i].cells
        label = cells[0].label if cells else None
        taken[label] += 1
        if taken[label] <= most:
            kept.append(int(i))
    return [fields[i] for i in sorted(kept)]


def check_split_disjoint(
    train: Sequence[SourcedField], validation: Sequence[SourcedField]
) -> dict[str, Any]:
    """Check that training and validation are disjoint; return the record, see `check_disjoint`.

    Raises:
        ConfigError: if a field, a patient, a twin, a physical cell or a file is on both sides.
    """
    return check_disjoint(FieldHeaders(train), FieldHeaders(validation))


def datasets_of(*sourced: Sequence[SourcedField]) -> list[Dataset]:
    """Return the data sets that fields come from, each once, in order."""
    found: dict[int, Dataset] = {}
    for fields in sourced:
        shards: Iterable[DatasetShard | SourcedField]
        shards = fields.parts if isinstance(fields, FieldStream) else fields
        for item in shards:
            found.setdefault(id(item.dataset), item.dataset)
    return list(found.values())
