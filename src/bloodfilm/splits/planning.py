"""Splits that do not leak: whole patients, with everything that shows the same glass.

Fields are linked by patient (over all subsets and data sets of one name), by physical cells where
`bloodfilm data overlaps` named them, and by common content where that was searched for. Linked
fields go to one split.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core import ConfigError, DataError
from bloodfilm.core.cell_table import CellTable, FieldRow
from bloodfilm.splits.checks import check_split
from bloodfilm.splits.grouping import Pairs, group_fields, place_of
from bloodfilm.splits.split_file import NAMES, Split


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
