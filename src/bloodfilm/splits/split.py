"""Splits that do not leak: whole patients, with everything that shows the same glass.

Fields are linked by patient (over all subsets and data sets of one name), by physical cells where
`bloodfilm data overlaps` named them, and by common content where that was searched for. Linked
fields go to one split.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import ConfigError, DataError, Dataset, Field
from bloodfilm.core.cell_table import CellTable, FieldRow
from bloodfilm.core.findings import Finding
from bloodfilm.formats.parquet.index import FieldHeader, IndexFields
from bloodfilm.formats.parquet.subset import ChosenFields, choose
from bloodfilm.splits.grouping import Pairs, group_fields, place_of

FORMAT = "bloodfilm-split"
VERSION = 1
NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class SplitPlan:
    """How to split.

    Attributes:
        test_share, val_share: of the cells and fields, as near as whole groups allow.
        seed: of the order in which equal groups are assigned.
        leave_patient_out: this patient, and what is linked to it, is the test split.
        leave_domain_out: the test split is of this domain (`H/100X/C1`) only, and the others hold
            nothing of it.
        keep_test: what is in test anywhere stays in test.
    """

    test_share: float = 0.2
    val_share: float = 0.1
    seed: int = 0
    leave_patient_out: str | None = None
    leave_domain_out: str | None = None
    keep_test: bool = True

    def __post_init__(self) -> None:
        shares = (self.test_share, self.val_share)
        if min(shares) < 0 or sum(shares) >= 1:
            raise ConfigError("split: shares of test and val must be 0 or more and leave a train")
        if self.leave_patient_out and self.leave_domain_out:
            raise ConfigError("split: leave out a patient or a domain, not both")


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
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise DataError(f"{file}: not a split of version {VERSION}; write it anew")
        rows = [
            (place_of(file.parent / r["image"]), r["split"], int(r["group"]))
            for r in content["fields"]
        ]
        notes = tuple(map(str, content["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: no split file that can be read ({error}); write it anew"
        ) from None
    return Split({p: s for p, s, _ in rows}, {p: g for p, _, g in rows}, notes, content["plan"])


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


# ---- planning --------------------------------------------------------------------------------


def plan_split(
    tables: Sequence[CellTable], plan: SplitPlan | None = None, pairs: Sequence[Pairs] = ()
) -> Split:
    """Assign groups of fields to train, val and test so that classes and diagnoses are spread.

    Raises:
        ConfigError: if there are too few groups, or what is to be left out is not there.
        DataError: if the result would leak.
    """
    plan = plan or SplitPlan()
    rows = [r for t in tables for r in t.rows]
    groups = group_fields(tables, pairs)
    weights = _weights(tables, groups)
    fixed, notes = _fixed(plan, rows, groups)
    assigned = _assign(weights, plan, fixed)
    splits: list[str | None] = [NAMES[assigned[g]] for g in groups.tolist()]
    if plan.leave_domain_out is not None:
        splits = _only_domain(plan.leave_domain_out, rows, splits, notes)
    made = Split(
        {place_of(r.path): s for r, s in zip(rows, splits, strict=True)},
        {place_of(r.path): int(g) for r, g in zip(rows, groups, strict=True)},
        tuple(notes),
        {k: v for k, v in vars(plan).items() if v is not None} | {"content": bool(pairs)},
    )
    leaks = [f for f in check_split(made, tables, pairs) if f.severity == "error"]
    if leaks:
        raise DataError(f"split: refused, it would leak: {leaks[0].message}")
    return made


def _weights(tables: Sequence[CellTable], groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (groups, features): how much of each class, diagnosis, domain a group holds."""
    columns: dict[tuple[str, str], int] = {("all", "fields"): 0}
    entries: list[tuple[int, NDArray[np.intp]]] = []
    count = int(groups.max(initial=-1)) + 1
    start = 0
    for table in tables:
        of_table = groups[start : start + len(table.rows)]
        start += len(table.rows)
        of_cell = of_table[table.field]
        for label, name in enumerate(table.names):
            column = columns.setdefault(("class", name), len(columns))
            entries.append((column, np.bincount(of_cell[table.label == label], minlength=count)))
        for kind, values in (
            ("diagnosis", [r.diagnosis for r in table.rows]),
            ("domain", [r.domain.name for r in table.rows]),
        ):
            for value in sorted({v for v in values if v}):
                column = columns.setdefault((kind, value), len(columns))
                chosen = of_table[[v == value for v in values]]
                entries.append((column, np.bincount(chosen, minlength=count)))
    weights = np.zeros((count, len(columns)))
    weights[:, 0] = np.bincount(groups, minlength=count)
    for column, hits in entries:
        weights[:, column] += hits
    return weights


def _fixed(
    plan: SplitPlan, rows: Sequence[FieldRow], groups: NDArray[np.int64]
) -> tuple[dict[int, int], list[str]]:
    """Return the groups whose split is fixed beforehand, and notes."""
    fixed: dict[int, int] = {}
    notes: list[str] = []
    listed = list(zip(rows, groups.tolist(), strict=True))
    if plan.leave_patient_out is not None:
        held = {g for r, g in listed if r.patient == plan.leave_patient_out}
        if not held:
            known = sorted({r.patient for r in rows if r.patient})
            raise ConfigError(
                f"split: no patient {plan.leave_patient_out!r}; there are {', '.join(known)}"
            )
        fixed = dict.fromkeys(held, 2)
        others = {r.patient for r, g in listed if g in held and r.patient}
        others -= {plan.leave_patient_out}
        if others:
            notes.append(f"linked to it by common glass: patients {', '.join(sorted(others))}")
        return fixed, notes
    if plan.keep_test:
        fixed = {g: 2 for r, g in listed if r.split == "test"}
        if fixed:
            notes.append(f"{len(fixed)} groups are in test somewhere, so they are test everywhere")
    lacking = sum(r.patient is None for r in rows)
    if lacking:
        notes.append(f"{lacking} fields name no patient: only their content links them")
    return fixed, notes


def _assign(
    weights: NDArray[np.float64], plan: SplitPlan, fixed: Mapping[int, int]
) -> NDArray[np.int64]:
    """Return each group's split, 0 train, 1 val, 2 test.

    Large groups first; each is assigned where it brings the splits nearest to their shares of every
    class, diagnosis and domain (Sechidis et al., ECML 2011, for groups instead of examples).
    """
    count = len(weights)
    test = 0.0 if plan.leave_patient_out else plan.test_share
    shares = np.array([1 - test - plan.val_share, plan.val_share, test])
    wanted = [s for s in (1, 2) if shares[s] > 0 and s not in fixed.values()]
    if count - len(fixed) < 1 + len(wanted):
        raise ConfigError(
            f"split: {count} groups of fields that belong together, {len(fixed)} of them settled, "
            "are too few for the splits asked for; ask for fewer, or add patients"
        )
    total = np.maximum(weights.sum(axis=0), 1e-9)
    relative = weights / total
    have = np.zeros((3, weights.shape[1]))
    assigned = np.full(count, -1, dtype=np.int64)
    for group, split in fixed.items():
        assigned[group] = split
        have[split] += relative[group]
    tie_breaker = np.random.default_rng([plan.seed, 8]).random(count)
    for group in np.lexsort((tie_breaker, -relative.max(axis=1))).tolist():
        if assigned[group] < 0:
            before = ((have - shares[:, None]) ** 2).sum(axis=1)
            after = ((have + relative[group] - shares[:, None]) ** 2).sum(axis=1)
            after[shares <= 0] = np.inf
            assigned[group] = int(np.argmin(after - before))
            have[assigned[group]] += relative[group]
    for split in (*wanted, 0):
        if not (assigned == split).any():
            _give(assigned, relative, fixed, split)
    return assigned


def _give(
    assigned: NDArray[np.int64],
    relative: NDArray[np.float64],
    fixed: Mapping[int, int],
    split: int,
) -> None:
    """Move the smallest free group of the fullest split to one that has none."""
    free = [g for g in range(len(assigned)) if g not in fixed]
    most = Counter(assigned[free].tolist()).most_common(1)[0][0]
    donors = [g for g in free if assigned[g] == most]
    assigned[min(donors, key=lambda g: float(relative[g].sum()))] = split


def _only_domain(
    domain: str,
    rows: Sequence[FieldRow],
    splits: list[str | None],
    notes: list[str],
) -> list[str | None]:
    """Keep test fields of a domain and the other splits' fields of other domains."""
    known = sorted({r.domain.name for r in rows})
    if domain not in known:
        raise ConfigError(f"split: no domain {domain!r}; there are {', '.join(known)}")
    kept = [
        s if (r.domain.name == domain) == (s == "test") else None
        for r, s in zip(rows, splits, strict=True)
    ]
    if "test" not in kept or "train" not in kept:
        raise ConfigError(f"split: nothing is left to test on {domain}, or to train without it")
    dropped = sum(s is None for s in kept)
    notes.append(
        f"test is {domain} alone; {dropped} fields are in no split, because their patients are on "
        "the other side"
    )
    return kept


# ---- checks ----------------------------------------------------------------------------------


def check_split(
    split: Split, tables: Sequence[CellTable], pairs: Sequence[Pairs] = ()
) -> list[Finding]:
    """Return what is wrong with a split; none of it with severity `error` if it does not leak."""
    found: list[Finding] = []
    placed = {place_of(path): name for path, name in split.splits.items()}
    patients: dict[str, dict[str, str]] = defaultdict(dict)
    for table, linked in zip(tables, [*pairs, *([()] * len(tables))], strict=False):
        for row in table.rows:
            path = place_of(row.path)
            if path not in placed:
                message = "the split does not list this field"
                found.append(
                    Finding("not-checked", "warning", message, file=row.path, advice="split anew")
                )
            elif placed[path] and row.patient is not None:
                patients[f"{table.name}/{row.patient}"].setdefault(str(placed[path]), row.path)
        found += _linked_apart(table, linked, placed)
    for patient, where in sorted(patients.items()):
        if len(where) > 1:
            splits = sorted(where)
            files = [where[s] for s in splits]
            found.append(
                Finding(
                    "patient-leak",
                    "error",
                    f"patient {patient} is in {' and '.join(splits)}",
                    {"patient": patient, "splits": splits},
                    file=files[0],
                    advice="split anew",
                    others=tuple(files[1:]),
                )
            )
    return found


def _linked_apart(
    table: CellTable, linked: Iterable[tuple[int, int]], placed: Mapping[str, str | None]
) -> list[Finding]:
    found = []
    for one, two in linked:
        a, b = table.rows[one].path, table.rows[two].path
        here, there = placed.get(place_of(a)), placed.get(place_of(b))
        if here and there and here != there:
            found.append(
                Finding(
                    "overlapping-fields",
                    "error",
                    f"two fields that show the same glass are in {here} and {there}",
                    {"splits": [here, there]},
                    file=a,
                    advice="split anew",
                    others=(b,),
                )
            )
    return found
