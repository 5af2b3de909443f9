"""Use exactly a given split, and check that nothing is on both sides of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from bloodfilm.core import Dataset, Field
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import sha256_of
from bloodfilm.duplicates.identical_files import identical_files
from bloodfilm.splits.grouping import place_of
from bloodfilm.splits.split_file import Split, apply_split, read_split

LINKS = ("field", "patient", "twin group", "physical cell", "identical file")
"""What must not be in training and in validation."""


class OriginField(Protocol):
    """A field with where it comes from."""

    @property
    def field(self) -> Field:
        """The field."""

    @property
    def dataset(self) -> Dataset:
        """The data set it is of."""

    @property
    def group(self) -> str:
        """Of fields that belong together in its split file; empty if it has none."""

    @property
    def split_file(self) -> Path | None:
        """The file that states its split, if there is one."""


def dataset_in_split(dataset: Dataset, file: Path, splits: Sequence[str]) -> tuple[Dataset, Split]:
    """Return a data set with the splits of a split file, fields outside it left out.

    Args:
        dataset: whose splits are replaced.
        file: written by `bloodfilm data split`.
        splits: those that will be used.

    Raises:
        ConfigError: if no splits are given, or the file leaks.
        DataError: if the file cannot be read or lists none of the data set's images.
    """
    if not splits:
        raise ConfigError(f'{file}: say which of its splits are meant: splits = ["train"]')
    split = read_split(file)
    placed = apply_split(dataset, split)
    _refuse_leaking_file(file, placed, split)
    return placed, split


def _refuse_leaking_file(file: Path, placed: Dataset, split: Split) -> None:
    """Raise `ConfigError` if an edit of the file has divided a patient or group over splits."""
    splits_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in placed:
        splits_of["group", str(split.groups[place_of(item.path)])].add(str(item.split))
        if item.patient is not None:
            splits_of["patient", item.patient].add(str(item.split))
    for (what, which), names in sorted(splits_of.items()):
        if len(names) > 1:
            raise ConfigError(
                f"{file}: {what} {which} is in {' and '.join(sorted(names))}; "
                "write it anew: bloodfilm data split"
            )


def group_keys(file: Path, split: Split, fields: Sequence[Field]) -> list[str]:
    """Return, for each field, the name of its group: fields linked by patient or common glass."""
    name = sha256_of(file)[:12]
    return [f"{name}/{split.groups[place_of(item.path)]}" for item in fields]


# ---- checks ----------------------------------------------------------------------------------


def check_disjoint(
    train: Sequence[OriginField], validation: Sequence[OriginField]
) -> dict[str, Any]:
    """Return what was compared and counted; no file, patient, twin or common cell is shared.

    Files are compared byte for byte. Fields that show common glass are known where a split file,
    made with `--content`, groups them.

    Raises:
        ConfigError: if something is on both sides.
    """
    of_train, of_validation = _links_of(train), _links_of(validation)
    same = _identical(
        {s.field.path.resolve() for s in train}, {s.field.path.resolve() for s in validation}
    )
    shared = {what: sorted((of_train[what] & of_validation[what]) - {""}) for what in of_train}
    shared["identical file"] = same
    for what in LINKS:
        both = shared[what]
        if both:
            raise ConfigError(
                f"data: {what} {both[0]} is in training and in validation"
                + (f" (and {len(both) - 1} more)" if len(both) > 1 else "")
                + "; split the data by patient first"
            )
    return {
        "train": _count(train),
        "validation": _count(validation),
        "shared": {what: len(shared[what]) for what in LINKS},
        "files": _files(chain(train, validation)),
    }


def _links_of(sourced: Iterable[OriginField]) -> dict[str, set[str]]:
    links: dict[str, set[str]] = {what: set() for what in LINKS[:4]}
    for item in sourced:
        field = item.field
        links["field"].add(str(field.path.resolve()))
        links["patient"].add(f"{item.dataset.name}/{field.patient}" if field.patient else "")
        links["twin group"].add(field.meta.get("twin", ""))
        links["physical cell"].add(item.group)
    return links


def _identical(left: set[Path], right: set[Path]) -> list[str]:
    """Return pairs of files, one of each side, that hold the same bytes."""
    found = []
    for group in identical_files(left | right):
        one, other = [p for p in group if p in left], [p for p in group if p in right]
        if one and other:
            found.append(f"{one[0]} = {other[0]}")
    return found


def _count(sourced: Sequence[OriginField]) -> dict[str, Any]:
    patients = {f"{s.dataset.name}/{s.field.patient}" for s in sourced if s.field.patient}
    return {
        "fields": len(sourced),
        "without_patient": sum(s.field.patient is None for s in sourced),
        "patients": sorted(patients),
        "groups": len({s.group for s in sourced if s.group}),
        "without_group": sum(not s.group for s in sourced),
    }


def _files(sourced: Iterable[OriginField]) -> list[dict[str, Any]]:
    """Return each split file with its digest and how it was made."""
    files = dict.fromkeys(s.split_file for s in sourced if s.split_file is not None)
    listed = []
    for file in files:
        split = read_split(file)
        listed.append(
            {
                "file": str(file),
                "sha256": sha256_of(file),
                "plan": dict(split.plan),
                "notes": list(split.notes),
                "counts": split.counts(),
            }
        )
    return listed


def same_splits(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two runs' records name split files of the same content."""

    def digests(record: Mapping[str, Any]) -> list[str]:
        proof = record.get("split") or {}
        return [str(item.get("sha256")) for item in proof.get("files", ())]

    return digests(before) == digests(now)
