"""What does the reader's closer look add to the detector's score? On validation fields only.

    python benchmarks/closer_look.py --data DATA [--bundle FOLDER] [--json FILE]

TXL-PBC's validation fields, as they are and redrawn in looks nobody photographed (red cells of any
colour, other stain, light, focus; seeded). A nucleated cell's score is the detector's times the
reader's probability to some power; the table shows white-cell AP50 and AP50-95 for several powers.
The analyser's `CLOSER_LOOK` is chosen by it.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bloodfilm.core import Domain
from bloodfilm.core.result import CellResult
from bloodfilm.inference.analyzer import CLOSER_LOOK, Analyzer
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.training.augment import vary_look
from bloodfilm.training.config import load_config
from bloodfilm.training.dyes import dyes_of, recolour
from bloodfilm.training.sources import CanonicalField, load_field, open_sources
from bloodfilm.training.tasks.detector import LOWEST_SCORE, score_results

POWERS = (0.0, 0.25, 0.5, 1.0, 2.0)
SCALE = 0.1
"""Canonical um per pixel at which the fields are redrawn: finer than either network sees."""
CONFIG = Path(__file__).parents[1] / "configs" / "detector.toml"


def redrawn(field: CanonicalField, seed: int) -> NDArray[np.uint8]:
    """Return a field's picture in another look, as hard as the detector is trained on."""
    rng = np.random.default_rng([5, seed])
    dyes = dyes_of(field)
    image = field.image if dyes is None else recolour(field.image, dyes, rng)
    return vary_look(image, rng, load_config(CONFIG).augment)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("BLOODFILM_DATA"))
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or BLOODFILM_DATA is needed")
    cv2.setNumThreads(1)
    bundle = load_bundle(options.bundle) if options.bundle else default_bundle()
    analyzer = Analyzer(bundle, "cpu", min_score=LOWEST_SCORE)
    sources = open_sources(load_config(CONFIG).data.validation, Path(options.data))
    rows: dict[str, dict[str, dict[str, float]]] = {"as they are": {}, "redrawn": {}}
    fields, seen = [], {name: [] for name in rows}
    for i in track(range(len(sources)), "fields"):
        field = load_field(sources[i], SCALE)
        fields.append(field)
        for name, image in (("as they are", field.image), ("redrawn", redrawn(field, i))):
            told = Domain(um_per_px=SCALE, squeeze=1.0)
            seen[name].append(analyzer.analyze(image, "field", told).cells)
    for name, results in seen.items():
        for power in POWERS:
            weighed = [[weigh(c, power) for c in cells] for cells in results]
            scores = score_results(fields, weighed)
            rows[name][str(power)] = {
                k: round(scores[f"nucleated_cell_{k}"], 4) for k in ("ap50", "ap")
            }
    show(rows)
    if options.json:
        record = {"bundle": bundle.sha256, "fields": len(fields), "power": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def weigh(cell: CellResult, power: float) -> CellResult:
    """Return a cell with the closer look weighed by another power."""
    if cell.confirmed is None:
        return cell
    plain = cell.score / max(cell.confirmed, 1e-12) ** CLOSER_LOOK
    return replace(cell, score=plain * cell.confirmed**power)


def show(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print the table: a line a power, AP50 and AP50-95 for each kind of field."""
    print("| power | " + " | ".join(f"{n}: AP50 | AP50-95" for n in rows) + " |")
    print("|---|" + "---|---|" * len(rows))
    for power in POWERS:
        cells = [rows[n][str(power)] for n in rows]
        figures = " | ".join(f"{c['ap50']:.4f} | {c['ap']:.4f}" for c in cells)
        print(f"| {power:g} | {figures} |")


if __name__ == "__main__":
    main()
