"""How often a film's patterns agree with the diagnosis: 42 patients of LLD.

`lld_patients.csv` holds, for each patient, the labelled differential and the diagnosis. Three
figures: patterns of the true counts; of counts in which every cell was named as the classifier
names cells of sites it was not trained on (its confusion; drawn `--draws` times), without and with
the correction for it. The rules hold no number that was fitted to these patients. A confusion that
was measured on these patients must not hold the patient it is used for: give `--confusion` once per
patient left out, as PATIENT=FILE, or one of other films.

    python benchmarks/patterns.py --data $BLOODFILM_DATA --confusion confusion.json
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bloodfilm.core.files import write_json
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.evaluation.confusion_correction import METRIC, ClassConfusion
from bloodfilm.evaluation.patterns import patterns_of_counts

DIAGNOSES = {
    "apl": "APML",
    "acute-lymphoblastic": "ALL",
    "acute-myeloid": "AML",
    "cml": "CML",
    "cll": "CLL",
}
NOT_CLASSES = ("patient", "diagnosis", "fields", "none")


@dataclass(frozen=True)
class Patient:
    """One patient: number, diagnosis, true counts by class."""

    number: str
    diagnosis: str
    counts: dict[str, int]


def read_patients(path: Path) -> list[Patient]:
    """Read the table of patients."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Patient(
            row["patient"],
            row["diagnosis"],
            {n: int(v) for n, v in row.items() if n not in NOT_CLASSES},
        )
        for row in rows
    ]


def suggested(
    counts: Mapping[str, int], confusion: ClassConfusion | None = None
) -> tuple[str | None, float]:
    """Return the diagnosis that the first specific pattern stands for, and its support."""
    able = None if confusion is None else set(confusion.named)
    found = patterns_of_counts(counts, DEFAULT_TAXONOMY, able, confusion)
    for pattern in found.patterns:
        if pattern.code in DIAGNOSES:
            return DIAGNOSES[pattern.code], pattern.support
    return None, 0.0


def named(
    counts: Mapping[str, int], confusion: ClassConfusion, rng: np.random.Generator
) -> dict[str, int]:
    """Return counts as the classifier would name the cells; unmeasured classes are left out."""
    found: Counter[str] = Counter()
    rows = dict(zip(confusion.true, confusion.counts, strict=True))
    for name, count in counts.items():
        row = rows.get(name)
        if row is not None and row.sum():
            drawn = rng.multinomial(count, row / row.sum())
            found.update(dict(zip(confusion.named, drawn.tolist(), strict=True)))
    return {name: count for name, count in found.items() if count}


def read_confusions(given: list[str]) -> dict[str, ClassConfusion]:
    """Read confusions: by patient left out, or one for all, under an empty name."""
    found = {}
    for text in given:
        patient, separator, path = text.rpartition("=")
        data = json.loads(Path(path if separator else text).read_text("utf-8"))
        held = data.get(METRIC, data.get("metrics", {}).get(METRIC, data))
        found[patient] = ClassConfusion.from_json(held)
    return found


def main() -> None:
    """Print, and with `--json` write, how often patterns agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--confusion", nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    patients = read_patients(given.data / "lld_patients.csv")
    rows = {p.number: suggested(p.counts)[0] for p in patients}
    right = sum(rows[p.number] == p.diagnosis for p in patients)
    record: dict[str, object] = {
        "patients": len(patients),
        "true_counts": {"agree": right, "share": round(right / len(patients), 4), "by": rows},
    }
    print(f"true counts: {right} of {len(patients)} agree")
    confusions = read_confusions(given.confusion)
    for kind in ("uncorrected", "corrected") if confusions else ():
        rng = np.random.default_rng(0)
        agreed = tried = 0
        for patient in patients:
            confusion = confusions.get(patient.number, confusions.get(""))
            if confusion is None:
                continue
            for _ in range(given.draws):
                counts = named(patient.counts, confusion, rng)
                used = confusion if kind == "corrected" else None
                agreed += suggested(counts, used)[0] == patient.diagnosis
                tried += 1
        record[kind] = {"agree": agreed, "tried": tried, "share": round(agreed / tried, 4)}
        print(f"named with the confusion, {kind}: {agreed / tried:.1%} of {tried} agree")
    if given.json:
        write_json(given.json, record)


if __name__ == "__main__":
    main()
