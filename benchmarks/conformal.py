"""Do conformal class sets hold their coverage on a site that nobody saw?

    python benchmarks/conformal.py SITE=FILE.npz ... [--coverage 0.9] [--json FILE]

Every file holds predictions of a classifier that was trained without the site: `logits`
(n, leaves), -1e9 for leaves never learnt, `leaves`, their names, and `labels` (n,), names of the
default taxonomy (`benchmarks/leave_one_site_out.py --predictions`). The temperature is fitted to
all sites, the limits to all but one, and judged on that one. The record also holds what
`bloodfilm export --calibration` takes: `conformal`, and `confusion`, how cells are then named.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.files import write_json
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY
from bloodfilm.evaluation.conformal import (
    LabelledProbabilities,
    fit_conformal,
    leave_one_site_out,
)
from bloodfilm.evaluation.confusion_correction import ClassConfusion
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.training.calibration import fit_temperature
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

LEAVES = DEFAULT_VOCABULARY.leaves
NEVER = -1e8


def read_predictions(given: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return logits (n, leaves), labels (n,) and sites (n,) of SITE=FILE arguments."""
    logits, labels, sites = [], [], []
    for text in given:
        site, _, path = text.partition("=")
        with np.load(path, allow_pickle=False) as data:
            found = np.full((len(data["labels"]), len(LEAVES)), -1e9)
            for column, leaf in enumerate(data["leaves"].astype(str)):
                if leaf in LEAVES:  # objects that are no white cells have no set
                    found[:, LEAVES.index(leaf)] = data["logits"][:, column]
            logits.append(found)
            labels.append(data["labels"].astype(str))
        sites.append(np.full(len(labels[-1]), site))
    return np.concatenate(logits), np.concatenate(labels), np.concatenate(sites)


def labelled(logits: np.ndarray, labels: np.ndarray, sites: np.ndarray) -> LabelledProbabilities:
    """Return calibrated probabilities; the temperature is fitted to these cells."""
    allowed = np.array([DEFAULT_TAXONOMY.leaf_mask(name, LEAVES) for name in labels])
    learnt = (logits > NEVER).all(axis=0)
    temperature = fit_temperature(np.where(learnt, logits, -np.inf).astype(np.float32), allowed)
    return LabelledProbabilities(leaf_probabilities(logits, learnt, temperature), allowed, sites)


def name_of(members: np.ndarray) -> str:
    """Return the deepest name that holds a whole set of classes."""
    names = [leaf for leaf, inside in zip(LEAVES, members, strict=True) if inside]
    return DEFAULT_TAXONOMY.common(names) if names else "nucleated cell"


def left_out_record(
    cells: LabelledProbabilities, labels: np.ndarray, coverage: float
) -> dict[str, Any]:
    """Return class sets fitted on all cells, and how cells are named by them."""
    spec = fit_conformal(cells, LEAVES, coverage)
    least = np.array([spec.least[leaf] for leaf in LEAVES])
    named = [name_of(row) for row in cells.probabilities >= least]
    confusion = ClassConfusion.of_pairs(
        zip(labels.tolist(), named, strict=True), cells.sites.tolist()
    )
    return {"conformal": spec.model_dump(mode="json"), "confusion": confusion.to_json()}


def main() -> None:
    """Print coverage by site; write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", nargs="+", metavar="SITE=FILE")
    parser.add_argument("--coverage", type=float, default=0.9)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logits, labels, sites = read_predictions(given.predictions)
    cells = labelled(logits, labels, sites)
    known = cells.allowed.any(axis=1)
    cells, labels = cells.of(known), labels[known]
    found = leave_one_site_out(cells, LEAVES, given.coverage)
    for site, figures in found.items():
        print(
            f"{site}: {figures.cells} cells, covered {figures.covered:.3f}, one class "
            f"{figures.single:.3f}, classes in a set {figures.size:.2f}"
        )
    record = left_out_record(cells, labels, given.coverage)
    if given.json:
        figures = {site: asdict(f) for site, f in found.items()}
        write_json(given.json, {"coverage": given.coverage, "sites": figures, **record})


if __name__ == "__main__":
    main()
