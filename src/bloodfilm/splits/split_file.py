"""Split files: which field is in which split, written, read and applied to a data set."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bloodfilm.core import DataError, Dataset, Field
from bloodfilm.core.json_text import read_json_file
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields
from bloodfilm.formats.parquet.subset import ChosenFields, choose
from bloodfilm.splits.grouping import place_of

FORMAT = "bloodfilm-split"
VERSION = 1
NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Which field is in which split.

    Attributes:
        splits: image path -> `train`, `val`, `test`, or `None` for a field in none of them.
        groups: image path -> number of the group that must stay together.
        notes: what a user of the split should know.
        plan: how it was made.
    """

    splits: Mapping[str, str | None]
    groups: Mapping[str, int]
    notes: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Count fields by split."""
        counted = Counter(s or "none" for s in self.splits.values())
        return {name: counted[name] for name in (*NAMES, "none") if counted[name]}

    def to_json(self, folder: Path) -> dict[str, Any]:
        """Return plain data, images named as seen from a folder."""
        rows = [
            {"image": _relative(path, folder), "split": split, "group": self.groups[path]}
            for path, split in self.splits.items()
        ]
        return {
            "format": FORMAT,
            "version": VERSION,
            "plan": dict(self.plan),
            "notes": list(self.notes),
            "counts": self.counts(),
            "fields": rows,
        }


def _relative(path: str, folder: Path) -> str:
    above, name = os.path.split(path)
    return f"{_seen_from(above, folder)}/{name}".removeprefix("./")


@lru_cache(maxsize=1024)
def _seen_from(above: str, folder: Path) -> str:
    """Return a folder as seen from another; cached, for a set has few folders and many images."""
    return Path(os.path.relpath(Path(above).absolute(), folder.absolute())).as_posix()


def read_split(file: Path) -> Split:
    """Read a split file; `DataError` if it is none."""
    try:
        content = read_json_file(file)
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise DataError(f"{file}: not a split of version {VERSION}; write it anew")
        rows = [
            (place_of(file.parent / r["image"]), r["split"], int(r["group"]))
            for r in content["fields"]
        ]
        notes, plan = tuple(map(str, content["notes"])), dict(content["plan"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{file}: no split file that can be read ({error}); write it anew"
        ) from None
    return Split({p: s for p, s, _ in rows}, {p: g for p, _, g in rows}, notes, plan)


def apply_split(dataset: Dataset, split: Split) -> Dataset:
    """Return a data set whose fields are in the splits of a split file; others are left out.

    `DataError` if no field of the data set is in the file.
    """
    placed = {place_of(path): name for path, name in split.splits.items()}
    fields: Sequence[Field]
    if isinstance(dataset.fields, IndexFields | ChosenFields):
        fields = choose(dataset.fields, lambda head: _into(head, placed))
    else:
        fields = [
            replace(item, split=placed[place])
            for item in dataset
            if placed.get(place := place_of(item.path)) is not None
        ]
    if not fields:
        raise DataError(f"{dataset.source}: the split file lists none of its images")
    return replace(dataset, fields=fields if isinstance(fields, ChosenFields) else tuple(fields))


def _into(head: FieldHeader, placed: Mapping[str, str | None]) -> FieldHeader | None:
    """Return the header of a field that is in a split, with that split."""
    name = placed.get(place_of(head.path))
    return None if name is None else head._replace(origin=head.origin | {"split": name})
