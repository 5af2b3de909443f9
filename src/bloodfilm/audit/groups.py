"""Checks of patients, splits and slides: leaks, reacquisitions, too few of a kind."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from bloodfilm.core.cell_table import CellTable
from bloodfilm.core.findings import Finding

MANY_OF_A_CLASS = 0.3
ENOUGH_CELLS = 30
ENOUGH_PATIENTS = 3
MAX_LISTED_MISSING = 50


def patient_leaks(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Patients whose fields are in several splits, over all subsets and data sets of one name."""
    files: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    acquired: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.patient is not None and row.split is not None:
                files[table.name, row.patient][row.split].append(row.path)
                acquired[table.name, row.patient, row.split].add(row.domain.name)
    for (name, patient), splits in sorted(files.items()):
        if len(splits) > 1:
            listed = ", ".join(
                f"{len(paths)} fields in {split} "
                f"({'; '.join(sorted(acquired[name, patient, split]))})"
                for split, paths in sorted(splits.items())
            )
            first = [paths[0] for _, paths in sorted(splits.items())]
            yield Finding(
                "patient-leak",
                "error",
                f"patient {patient} of {name}: {listed}",
                {
                    "dataset": name,
                    "patient": patient,
                    "fields": {split: len(paths) for split, paths in sorted(splits.items())},
                },
                file=first[0],
                advice="a patient in test anywhere is test everywhere: "
                "`bloodfilm data split` does it",
                others=tuple(first[1:]),
            )


def missing_images(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Images that are not on disk; where many of a folder are missing, one finding names them all.

    Images that a reader has looked for already are passed over.
    """
    for table in tables:
        folders: dict[str, list[str]] = defaultdict(list)
        for row in table.rows:
            if not row.checked:
                folder, name = os.path.split(row.path)
                folders[folder].append(name)
        for folder, names in folders.items():
            yield from _missing_of(folder, names)


def _missing_of(folder: str, names: Sequence[str]) -> Iterator[Finding]:
    there = _files_of(folder)
    missing = [f"{folder}/{name}" for name in names if name not in there]
    if len(missing) <= MAX_LISTED_MISSING:
        for path in missing:
            message = "this image is not on disk"
            yield Finding("missing-image", "error", message, file=path, advice="restore it")
    else:
        yield Finding(
            "missing-image",
            "error",
            f"{len(missing)} of this folder's {len(names)} images are not on disk",
            {"missing": len(missing), "images": len(names)},
            file=folder,
            advice="unpack the archive they came in again, or name their folder",
            others=tuple(missing),
        )


def _files_of(folder: str) -> set[str]:
    """Return the names in a folder; none if there is no such folder."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError:
        return set()


def reacquisitions(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Fields of one patient and number in several subsets: the same cells photographed again."""
    seen: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.patient is not None and row.number is not None:
                seen[table.name, row.patient, row.number].add(row.domain.name)
    for name in sorted({key[0] for key in seen}):
        again = [k for k, domains in seen.items() if k[0] == name and len(domains) > 1]
        if again:
            yield Finding(
                "reacquisition",
                "info",
                f"{len(again)} fields are in two or more subsets: the same cells again",
                {"fields": len(again)},
                file=name,
                advice="group by patient, never count them as independent samples",
                confidence=0.9,
            )


def one_slide(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Classes of which one patient holds a large share."""
    for table in tables:
        patients = sorted({r.patient for r in table.rows if r.patient is not None})
        if not len(table) or len(patients) < ENOUGH_PATIENTS:
            continue
        place = {p: i for i, p in enumerate(patients)}
        of_field = np.array([place.get(r.patient or "", -1) for r in table.rows])
        of_cell = of_field[table.field]
        known = (of_cell >= 0) & table.white & ~table.ignored
        counts = np.zeros((len(table.names), len(patients)), dtype=np.int64)
        np.add.at(counts, (table.label[known], of_cell[known]), 1)
        for label, row in enumerate(counts):
            total, largest = int(row.sum()), int(row.argmax())
            if total >= ENOUGH_CELLS and row[largest] >= MANY_OF_A_CLASS * total:
                name, share = table.names[label], float(row[largest] / total)
                yield Finding(
                    "one-slide",
                    "warning",
                    f"patient {patients[largest]} holds {share:.0%} of the {total} cells "
                    f"named {name}",
                    {
                        "patient": patients[largest],
                        "class": name,
                        "cells": total,
                        "share": round(share, 4),
                    },
                    file=table.name,
                    advice="weight by patient, and report figures by patient",
                )


def few_patients(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Diagnoses with fewer than three patients in a split."""
    patients: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for table in tables:
        for row in table.rows:
            if row.diagnosis and row.patient:
                patients[table.name, row.diagnosis, row.split or "all"].add(row.patient)
    lacking = [(key, len(p)) for key, p in sorted(patients.items()) if len(p) < ENOUGH_PATIENTS]
    for name in sorted({key[0] for key, _ in lacking}):
        here = [(diagnosis, split, n) for (own, diagnosis, split), n in lacking if own == name]
        listed = ", ".join(f"{diagnosis} in {split}: {n}" for diagnosis, split, n in here)
        yield Finding(
            "few-patients",
            "warning",
            f"diagnoses with fewer than {ENOUGH_PATIENTS} patients in a split ({listed})",
            {"patients": [{"diagnosis": d, "split": s, "patients": n} for d, s, n in here]},
            file=name,
            advice="claim nothing about them",
        )


def to_ignore(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """Objects named `none`: how many, and what to do with them."""
    for table in tables:
        count = int(table.ignored.sum())
        if count:
            yield Finding(
                "to-ignore",
                "info",
                f"{count} objects are named `none`; intact white cells are among them",
                {"objects": count},
                file=table.name,
                advice="treat them as unknown, not as background",
            )


def reader_issues(tables: Sequence[CellTable]) -> Iterator[Finding]:
    """What a reader had to leave out or correct."""
    for table in tables:
        for found in table.issues:
            file = found.data.get("file")
            yield Finding(
                "reader-problem",
                found.severity,
                found.message if file is None else found.message.removeprefix(f"{file}: "),
                {"code": found.code, **found.data},
                file=table.name if file is None else str(file),
                advice="correct it in the file",
                confidence=0.9,
            )
