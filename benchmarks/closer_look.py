"""What do stain contrast and closer look add to the detector's score? On validation fields only.

    python benchmarks/closer_look.py --data DATA [--bundle FOLDER] [--json FILE]

TXL-PBC's validation fields, as they are, redrawn in looks nobody photographed (red cells of any
colour, other stain, light, focus; seeded), and with four tenths of their colour. A nucleated cell's
score is the detector's, times a share that its stain contrast leaves, times the reader's
probability to some power; the table shows white-cell AP50 and AP50-95 for several weights. The
defaults of `ScoreFusion` are chosen by it.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from bloodfilm.core.results import CellResult
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.fusion import ScoreFusion
from bloodfilm.inference.model import Model
from bloodfilm.training.config import load_config
from bloodfilm.training.data.augment import vary_appearance
from bloodfilm.training.data.canonical_fields import CanonicalField, FieldLoader
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.data.stain_augment import recolour, stain_vectors
from bloodfilm.training.tasks.detector import LOWEST_SCORE, score_results
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

CONTRASTS = (0.0, 0.03, 0.045, 0.06, 0.12)
STEEPNESS = (2.0, 4.0)
POWERS = (0.0, 0.125, 0.25, 0.5, 1.0)
ALONE = ScoreFusion(contrast=0, closer_look=0)
TRIED = [
    ScoreFusion(contrast, steepness, power)
    for contrast in CONTRASTS
    for steepness in (STEEPNESS if contrast else STEEPNESS[:1])
    for power in POWERS
]
SCALE = 0.1
"""Canonical um per pixel at which the fields are redrawn: finer than either network sees."""
PALE = 0.4
CONFIG = Path("detector.toml")


def redrawn(field: CanonicalField, seed: int) -> NDArray[np.uint8]:
    """Return a field's image in another appearance, as varied as in the detector's training."""
    rng = np.random.default_rng([5, seed])
    dyes = stain_vectors(field, DEFAULT_VOCABULARY.stain_types or (0, 1))
    image = field.image if dyes is None else recolour(field.image, dyes, rng)
    return vary_appearance(image, rng, load_config(CONFIG).augment)


def paled(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with `PALE` of its colour, as light as before."""
    grey = image.mean(axis=2, keepdims=True)
    return np.asarray(grey + (image - grey) * PALE + 0.5, dtype=np.uint8)


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
    model = Model(bundle, device="cpu", min_score=LOWEST_SCORE, fusion=ALONE)
    sources = open_sources(load_config(CONFIG).data.validation, Path(options.data))
    rows: list[dict[str, Any]] = [asdict(weights) for weights in TRIED]
    fields: list[CanonicalField] = []
    seen: dict[str, list[Sequence[CellResult]]] = {"as they are": [], "redrawn": [], "paled": []}
    for i in track(range(len(sources)), "fields"):
        field = FieldLoader(DEFAULT_VOCABULARY, SCALE).load(sources[i])
        fields.append(field)
        prior = ScalePrior(SCALE, 1.0)
        looks = (field.image, redrawn(field, i), paled(field.image))
        for name, image in zip(seen, looks, strict=True):
            seen[name].append(model.analyze(image, prior=prior).cells)
    for (name, results), (row, weights) in product(seen.items(), zip(rows, TRIED, strict=True)):
        weighed = [[weigh(c, weights) for c in cells] for cells in results]
        scores = score_results(fields, weighed, DEFAULT_VOCABULARY)
        row[name] = {k: round(scores[f"nucleated_cell_{k}"], 4) for k in ("ap50", "ap")}
    show(rows, list(seen))
    if options.json:
        record = {"bundle": bundle.sha256, "fields": len(fields), "weights": rows}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def weigh(cell: CellResult, weights: ScoreFusion) -> CellResult:
    """Return a cell that the detector alone has scored with the other evidence weighed in."""
    score = cell.confidence
    if cell.stain_contrast is not None:
        score *= float(weights.of_contrast(np.array(cell.stain_contrast)))
    if cell.nucleated_probability is not None:
        score *= weights.of_closer_look(cell.nucleated_probability)
    return replace(cell, score=score)


def show(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Print the table: a line a setting, AP50 and AP50-95 for each kind of field."""
    print(
        "| contrast | steepness | power |" + "|".join(f" {n}: AP50 | AP50-95 " for n in names) + "|"
    )
    print("|---|---|---|" + "---|---|" * len(names))
    for row in rows:
        cells = [row[n] for n in names]
        figures = " | ".join(f"{c['ap50']:.4f} | {c['ap']:.4f}" for c in cells)
        print(
            f"| {row['contrast']:g} | {row['steepness']:g} | {row['closer_look']:g} | {figures} |"
        )


if __name__ == "__main__":
    main()
