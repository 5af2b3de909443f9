"""The figures the README states, measured anew: one evaluation each, kept as JSON, one table.

    python benchmarks/figures.py --data DATA [--bundle FOLDER] [--only NAME ...] [--table]

Every figure is printed by `bloodfilm evaluate` with the arguments listed here; `--table` measures
nothing and prints the table of the records that are there.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bloodfilm.core import Cell
from bloodfilm.formats import open_dataset, save_dataset

RESULTS = Path(__file__).parent / "results"
FAULTS = Path(__file__).parent / "txl_label_faults.json"
ELEVEN = [
    "wbcatt_cell_size",
    "cell_shape",
    "nucleus_shape",
    "nuclear_cytoplasmic_ratio",
    "chromatin_density",
    "cytoplasm_vacuole",
    "cytoplasm_texture",
    "cytoplasm_colour",
    "granule_type",
    "granule_colour",
    "granularity",
]
MAPPED = [
    "cell_size",
    "nuclear_chromatin",
    "nuclear_shape",
    "cytoplasm",
    "cytoplasmic_basophilia",
    "cytoplasmic_vacuoles",
]

COMMANDS = {
    "txl_test": "txl_pbc --split test --clean-splits --level three",
    "txl_test_mended": "MENDED --split test --level three",
    "txl_test_raw": "txl_pbc --split test --level three",
    "wbcatt_test": "pbc --cells --split test --classes five",
    "lld_complete": "lld40x --labels complete --level white-cell",
    "lld_reading": "lld40x --level white-cell",
    "lld_cells": "lld40x --cells",
    "films": "FILMS --level white-cell --classes five",
}
"""Name of the record -> arguments of `bloodfilm evaluate`, the first relative to the data root.

`FILMS` are fields drawn for this, `MENDED` is `txl_pbc --clean-splits` with the labels listed in
`txl_label_faults.json` put right.
"""

FILMS = 50
"""Rendered fields of each of the four looks that imitate real sets; seed 0."""

Record = dict[str, Any]
Figure = tuple[str, str, Callable[[Record], float], float | None]


def _mean_f1(names: list[str]) -> Callable[[Record], float]:
    def mean(record: Record) -> float:
        questions = record["reading"]["questions"]
        return sum(questions[n]["scores"]["macro_f1"] for n in names) / len(names)

    return mean


def _ap(figure: str, kind: str | None = None) -> Callable[[Record], float]:
    def read(record: Record) -> float:
        scores = record["detection"]["scores"]
        return float(scores["per_class"][kind][figure] if kind else scores[figure])

    return read


def _class_accuracy(record: Record) -> float:
    return float(record["reading"]["questions"]["class"]["scores"]["accuracy"])


def _blast_auroc(record: Record) -> float:
    return float(record["reading"]["blasts"]["auroc"]["value"])


WHITE_AP50 = _ap("ap50", "white cell")
FIGURES: list[Figure] = [
    ("txl_test", "TXL test without twins: WBC AP50", WHITE_AP50, 0.97),
    ("txl_test", "TXL test without twins: mAP50-95, three classes", _ap("ap"), 0.71),
    ("txl_test_mended", "the same, seven wrong labels put right: WBC AP50", WHITE_AP50, None),
    ("txl_test_raw", "TXL raw test: mAP50-95, three classes", _ap("ap"), None),
    ("wbcatt_test", "WBCAtt test: class accuracy", _class_accuracy, 0.985),
    ("wbcatt_test", "WBCAtt test: mean macro-F1, eleven attributes", _mean_f1(ELEVEN), 0.90),
    ("wbcatt_test", "WBCAtt test: mean macro-F1, the six mapped to LLD's", _mean_f1(MAPPED), 0.86),
    ("lld_complete", "LLD, 50 complete fields: WBC AP50", _ap("ap50"), 0.97),
    ("lld_complete", "LLD, 50 complete fields: WBC AP50-95", _ap("ap"), None),
    ("lld_cells", "LLD, five leukaemia patients: blasts, AUROC", _blast_auroc, 0.92),
    ("films", "rendered fields: WBC AP50", _ap("ap50"), 0.95),
    ("films", "rendered fields: accuracy, five normal classes", _class_accuracy, 0.80),
]


def measure(name: str, data: Path, bundle: Path | None) -> None:
    """Run one evaluation and keep its record."""
    place, *rest = COMMANDS[name].split()
    made = {"FILMS": _films, "MENDED": lambda: _mended(data)}
    target = made[place]() if place in made else data / place
    command = [sys.executable, "-m", "bloodfilm", "evaluate", str(target), *rest]
    if bundle:
        command += ["--bundle", str(bundle)]
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{name}.json"
    out.unlink(missing_ok=True)
    subprocess.run([*command, "--json", str(out)], check=True)


def _films() -> Path:
    """Draw the fields the renderer is judged on, once; return their data set."""
    folder = Path("out/films")
    if not (folder / "dataset.json").exists():
        draw = [sys.executable, "-m", "bloodfilm", "films", str(folder), "--fields", str(FILMS)]
        subprocess.run(draw, check=True)
    return folder / "dataset.json"


def _mended(data: Path) -> Path:
    """Write TXL-PBC's labels without the faults that were seen in its test images."""
    dataset = open_dataset(data / "txl_pbc", format="txl", clean_splits=True)
    faults = json.loads(FAULTS.read_text(encoding="utf-8"))["faults"]
    left = {(f["image"], tuple(f["box"]), f["says"]): f["is"] for f in faults}

    def mended(cell: Cell, image: str) -> Cell:
        at = image, tuple(round(v) for v in cell.box or ()), cell.label
        if at not in left:
            return cell
        label = left.pop(at)
        return replace(cell, label=label, ignore=label is None)

    fields = [
        replace(f, cells=tuple(mended(cell, f.path.name) for cell in f.cells)) for f in dataset
    ]
    if left:
        raise SystemExit(f"{FAULTS.name}: no such boxes in this copy: {sorted(left)}")
    out = Path("out/txl_mended.json")
    out.parent.mkdir(exist_ok=True)
    out.unlink(missing_ok=True)
    save_dataset(replace(dataset, name="txl_mended", fields=tuple(fields)), out, "bloodfilm")
    return out


def table() -> None:
    """Print every figure whose record is there, beside what it should reach."""
    print("| figure | value | goal | 95 % interval of its figures | command |")
    print("|---|---|---|---|---|")
    for name, title, read, goal in FIGURES:
        path = RESULTS / f"{name}.json"
        if not path.exists():
            continue
        value = read(json.loads(path.read_text(encoding="utf-8")))
        aim = "" if goal is None else f">= {goal:g}"
        print(f"| {title} | {value:.4f} | {aim} | in `{path.name}` | `{COMMANDS[name]}` |")


def main() -> None:
    """Measure what is asked for, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--only", nargs="*", choices=[*COMMANDS], default=[*COMMANDS])
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    if not options.table:
        if options.data is None:
            parser.error("--data or BLOODFILM_DATA is needed")
        for name in options.only:
            measure(name, Path(options.data), options.bundle)
    table()


if __name__ == "__main__":
    main()
