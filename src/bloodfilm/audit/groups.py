"""Checks of patients, splits and slides: leaks, re-acquisitions, too few of a kind."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from bloodfilm.audit.cell_table import IGNORE, Table
from bloodfilm.audit.finding import Finding

MANY_OF_A_CLASS = 0.3
ENOUGH_CELLS = 30
ENOUGH_PATIENTS = 3
FEW_MISSING = 50


def patient_leaks(tables: Sequence[Table]) -> Iterator[Finding]:
    """Patients whose fields are in several splits, over all subsets and data sets of one name."""
    where: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    acquired: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.patient is not None and row.split is not None:
                where[table.name, row.patient][row.split].append(row.path)
                acquired[table.name, row.patient, row.split].add(row.domain.name)
    for (name, patient), splits in sorted(where.items()):
        if len(splits) > 1:
            held = ", ".join(
                f"{len(paths)} fields in {split} "
                f"({'; '.join(sorted(acquired[name, patient, split]))})"
                for split, paths in sorted(splits.items())
            )
            what = f"patient {patient} of {name}: {held}"
            hint = "a patient in test anywhere is test everywhere: `bloodfilm data split` does it"
            first = [paths[0] for _, paths in sorted(splits.items())]
            yield Finding(
                "patient leak", "error", first[0], what, hint, 1.0, others=tuple(first[1:])
            )


def missing_images(tables: Sequence[Table]) -> Iterator[Finding]:
    """Images that are not on disk; where many of a folder are missing, one finding names them all.

    LLD's own labels are not looked at: reading them has told.
    """
    for table in tables:
        folders: dict[str, list[str]] = defaultdict(list)
        for row in table.rows:
            if not row.lld:
                folder, name = os.path.split(row.path)
                folders[folder].append(name)
        for folder, names in folders.items():
            there = _files_of(folder)
            missing = [f"{folder}/{name}" for name in names if name not in there]
            if len(missing) <= FEW_MISSING:
                for path in missing:
                    what, hint = "this image is not on disk", "restore it"
                    yield Finding("missing image", "error", path, what, hint)
            else:
                what = f"{len(missing)} of this folder's {len(names)} images are not on disk"
                hint = "unpack the archive they came in again, or name their folder"
                yield Finding("missing image", "error", folder, what, hint, others=tuple(missing))


def _files_of(folder: str) -> set[str]:
    """Return the names in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def reacquisitions(tables: Sequence[Table]) -> Iterator[Finding]:
    """Fields of one patient and number in several subsets: the same cells photographed again."""
    seen: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.patient is not None and row.number is not None:
                seen[table.name, row.patient, row.number].add(row.domain.name)
    for name in sorted({key[0] for key in seen}):
        again = [k for k, domains in seen.items() if k[0] == name and len(domains) > 1]
        if again:
            what = f"{len(again)} fields are in two or more subsets: the same cells again"
            hint = "group by patient, never count them as independent samples"
            yield Finding("re-acquisition", "info", name, what, hint, 0.9)


def one_slide(tables: Sequence[Table]) -> Iterator[Finding]:
    """Classes of which one patient holds a large share."""
    for table in tables:
        if not len(table):
            continue
        patients = sorted({r.patient for r in table.rows if r.patient is not None})
        if len(patients) < ENOUGH_PATIENTS:
            continue
        place = {p: i for i, p in enumerate(patients)}
        of_field = np.array([place.get(r.patient or "", -1) for r in table.rows])
        of_cell = of_field[table.field]
        known = (of_cell >= 0) & table.white & ~table.ignored
        counts = np.zeros((len(table.names), len(patients)), dtype=np.int64)
        np.add.at(counts, (table.label[known], of_cell[known]), 1)
        for label, row in enumerate(counts):
            total, most = int(row.sum()), int(row.argmax())
            if total >= ENOUGH_CELLS and row[most] >= MANY_OF_A_CLASS * total:
                what = (
                    f"patient {patients[most]} holds {row[most] / total:.0%} of the {total} cells "
                    f"named {table.names[label]}"
                )
                hint = "weigh by patient, and report figures by patient"
                yield Finding("one slide", "warning", table.name, what, hint, 1.0)


def few_patients(tables: Sequence[Table]) -> Iterator[Finding]:
    """Diagnoses with fewer than three patients in a split."""
    patients: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.diagnosis and row.patient:
                patients[table.name, row.diagnosis, row.split or "all"].add(row.patient)
    lacking = [(key, len(p)) for key, p in sorted(patients.items()) if len(p) < ENOUGH_PATIENTS]
    for name in sorted({key[0] for key, _ in lacking}):
        listed = ", ".join(f"{k[1]} in {k[2]}: {n}" for k, n in lacking if k[0] == name)
        what = f"diagnoses with fewer than {ENOUGH_PATIENTS} patients in a split ({listed})"
        yield Finding("few patients", "warning", name, what, "claim nothing about them", 1.0)


def to_ignore(tables: Sequence[Table]) -> Iterator[Finding]:
    """Objects named `none`: how many, and what to do with them."""
    for table in tables:
        counted = Counter(table.class_of(int(c)) for c in np.flatnonzero(table.ignored))
        if counted[IGNORE]:
            what = f"{counted[IGNORE]} objects are named `none`; intact white cells are among them"
            hint = "treat them as unknown, not as background"
            yield Finding("to ignore", "info", table.name, what, hint, 1.0)


def reader_problems(tables: Sequence[Table]) -> Iterator[Finding]:
    """What a reader had to leave out or mend, as it said it."""
    for table in tables:
        for line in table.problems:
            where, _, what = line.partition(": ")
            shown = (where, what) if what else (table.name, line)
            yield Finding("reader", "warning", *shown, "mend it in the file", 0.9)
