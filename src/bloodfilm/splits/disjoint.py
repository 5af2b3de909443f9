"""Training on exactly a given split, and the proof that nothing is on both sides of it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bloodfilm.core import Dataset, Field
from bloodfilm.core.errors import ConfigError
from bloodfilm.core.files import sha256_of
from bloodfilm.duplicates.identical_files import copies
from bloodfilm.splits.grouping import place_of
from bloodfilm.splits.split import Split, apply_split, read_split

if TYPE_CHECKING:
    from bloodfilm.training.config import DatasetConfig
    from bloodfilm.training.data.sources import SourcedField

KINDS_OF_TIES = ("field", "patient", "twin group", "physical cell", "identical file")


def dataset_in_split(
    dataset: Dataset, source: "DatasetConfig", root: Path
) -> tuple[Dataset, Split]:
    """Return a source's data set with the splits of its split file, fields outside it left out.

    Raises:
        ConfigError: if the source does not say which splits it takes, or the file leaks.
        DataError: if the file cannot be read or speaks of other images.
    """
    file = root / (source.split_file or "")
    if not source.splits:
        raise ConfigError(f'{file}: say which of its splits are meant: splits = ["train"]')
    split = read_split(file)
    placed = apply_split(dataset, split)
    _refuse_a_leaking_file(file, placed, split)
    return placed, split


def _refuse_a_leaking_file(file: Path, placed: Dataset, split: Split) -> None:
    """Raise `ConfigError` if somebody edited the file so that a patient or group is torn apart."""
    torn: dict[tuple[str, str], set[str]] = defaultdict(set)
    for item in placed:
        torn["group", str(split.groups[place_of(item.path)])].add(str(item.split))
        if item.patient is not None:
            torn["patient", item.patient].add(str(item.split))
    for (what, which), names in sorted(torn.items()):
        if len(names) > 1:
            raise ConfigError(
                f"{file}: {what} {which} is in {' and '.join(sorted(names))}; "
                "write it anew: bloodfilm data split"
            )


def group_keys(file: Path, split: Split, fields: Sequence[Field]) -> list[str]:
    """Return, for each field, the name of its group: fields tied by patient or common glass."""
    name = sha256_of(file)[:12]
    return [f"{name}/{split.groups[place_of(item.path)]}" for item in fields]


# ---- proof -----------------------------------------------------------------------------------


def check_disjoint(
    train: Sequence["SourcedField"], validation: Sequence["SourcedField"]
) -> dict[str, Any]:
    """Return what was compared and counted; no file, patient, twin or common cell is shared.

    Files are compared byte for byte. Fields that show common glass are known where a split file,
    made with `--content`, ties them together.

    Raises:
        ConfigError: if something is on both sides.
    """
    mine, theirs = _ties(train), _ties(validation)
    same = _identical(
        {s.field.path.resolve() for s in train}, {s.field.path.resolve() for s in validation}
    )
    shared = {what: sorted((mine[what] & theirs[what]) - {""}) for what in mine}
    shared["identical file"] = same
    for what in KINDS_OF_TIES:
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
        "shared": {what: len(shared[what]) for what in KINDS_OF_TIES},
        "files": _files(chain(train, validation)),
    }


def _ties(sourced: Iterable["SourcedField"]) -> dict[str, set[str]]:
    ties: dict[str, set[str]] = {what: set() for what in KINDS_OF_TIES[:4]}
    for item in sourced:
        field = item.field
        ties["field"].add(str(field.path.resolve()))
        ties["patient"].add(f"{item.dataset.name}/{field.patient}" if field.patient else "")
        ties["twin group"].add(field.meta.get("twin", ""))
        ties["physical cell"].add(item.group)
    return ties


def _identical(left: set[Path], right: set[Path]) -> list[str]:
    """Return pairs of files, one of each side, that hold the same bytes."""
    found = []
    for group in copies(left | right):
        mine, theirs = [p for p in group if p in left], [p for p in group if p in right]
        if mine and theirs:
            found.append(f"{mine[0]} = {theirs[0]}")
    return found


def _count(sourced: Sequence["SourcedField"]) -> dict[str, Any]:
    patients = {f"{s.dataset.name}/{s.field.patient}" for s in sourced if s.field.patient}
    return {
        "fields": len(sourced),
        "without_patient": sum(s.field.patient is None for s in sourced),
        "patients": sorted(patients),
        "groups": len({s.group for s in sourced if s.group}),
        "without_group": sum(not s.group for s in sourced),
    }


def _files(sourced: Iterable["SourcedField"]) -> list[dict[str, Any]]:
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
