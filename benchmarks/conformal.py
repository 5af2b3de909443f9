"""Do conformal class sets hold their coverage on a site that nobody saw?

    python benchmarks/conformal.py SITE=FILE.npz ... [--right 0.95] [--doubtful SITE ...]
        [--coverage 0.9] [--json FILE]

Every file holds predictions of a classifier that was trained without the site: `logits`
(n, leaves), -1e9 for leaves never learnt, `leaves`, their names, and `labels` (n,), names of the
default taxonomy (`benchmarks/leave_one_site_out.py --predictions`). The temperature is fitted to
all sites, the limits to all but one, and judged on that one. Without `--coverage` it is the least
at which a share `--right` of the classes given to cells of sites left out is right; sites whose
labels are `--doubtful` have no say in that. The record also holds what `bloodfilm export
--calibration` takes: `conformal`, and `confusion`, how cells are then named.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bloodfilm.core.files import write_json
from bloodfilm.core.taxonomy import DEFAULT_TAXONOMY as T
from bloodfilm.core.taxonomy import NUCLEATED
from bloodfilm.evaluation.class_granularity import PRESETS
from bloodfilm.evaluation.conformal import LabelledProbabilities, fit_conformal, set_figures
from bloodfilm.evaluation.confusion_correction import ClassConfusion
from bloodfilm.inference.classifier import leaf_probabilities
from bloodfilm.inference.manifest import ConformalSpec
from bloodfilm.training.calibration import fit_temperature
from bloodfilm.training.vocabulary import DEFAULT_VOCABULARY

LEAVES = DEFAULT_VOCABULARY.leaves
NEVER = -1e8
CLASSES = (*PRESETS["five"], *LEAVES)
COVERAGES = (0.8, 0.85, *(level / 1000 for level in range(900, 1000, 5)))


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
    allowed = np.array([T.leaf_mask(name, LEAVES) for name in labels])
    learnt = (logits > NEVER).all(axis=0)
    temperature = fit_temperature(np.where(learnt, logits, -np.inf).astype(np.float32), allowed)
    return LabelledProbabilities(leaf_probabilities(logits, learnt, temperature), allowed, sites)


@dataclass(frozen=True)
class Named:
    """How cells of a site are named by class sets that were fitted on the others.

    Attributes:
        cells: how many.
        covered: share whose class is in their set.
        named: share that got a class, one of five mature ones or any other leaf.
        right: share of these whose class it is; 1 if there are none.
    """

    cells: int
    covered: float
    named: float
    right: float


def named_sites(
    cells: LabelledProbabilities, labels: np.ndarray, coverage: float
) -> dict[str, Named]:
    """Name the cells of every site by class sets of the others."""
    found = {}
    for site in np.unique(cells.sites):
        own, others = cells.of(cells.sites == site), cells.of(cells.sites != site)
        spec = fit_conformal(others, LEAVES, coverage)
        names = [name_of(row) for row in own.probabilities >= limits(spec)]
        given = np.array([any(T.is_under(n, c) for c in CLASSES) for n in names])
        right = np.array(
            [
                T.is_under(label, name) or T.is_under(name, label)
                for label, name in zip(labels[cells.sites == site], names, strict=True)
            ]
        )
        found[str(site)] = Named(
            len(names),
            set_figures(own, spec, LEAVES).covered,
            round(float(given.mean()), 4),
            round(float(right[given].mean()), 4) if given.any() else 1.0,
        )
    return found


def least_coverage(
    cells: LabelledProbabilities, labels: np.ndarray, right: float, doubtful: Sequence[str] = ()
) -> float:
    """Return the least coverage at which classes given on sites left out are right often enough.

    The mean over sites counts, but for those whose labels are doubtful; if none suffices, it is the
    highest coverage that was tried.
    """
    for coverage in COVERAGES:
        figures = named_sites(cells, labels, coverage).items()
        if np.mean([f.right for site, f in figures if site not in doubtful]) >= right:
            return coverage
    return COVERAGES[-1]


def limits(spec: ConformalSpec) -> np.ndarray:
    """Return the limit of every leaf, (leaves,)."""
    return np.array([spec.least[leaf] for leaf in LEAVES])


def name_of(members: np.ndarray) -> str:
    """Return the deepest name that holds a whole set of classes."""
    names = [leaf for leaf, inside in zip(LEAVES, members, strict=True) if inside]
    return T.common(names) if names else NUCLEATED


def left_out_record(
    cells: LabelledProbabilities, labels: np.ndarray, coverage: float
) -> dict[str, Any]:
    """Return class sets fitted on all cells, and how they and those of other sites name cells."""
    spec = fit_conformal(cells, LEAVES, coverage)
    named = [name_of(row) for row in cells.probabilities >= limits(spec)]
    confusion = ClassConfusion.of_pairs(
        zip(labels.tolist(), named, strict=True), cells.sites.tolist()
    )
    figures = named_sites(cells, labels, coverage) if len(spec.sites) > 1 else {}
    return {
        "conformal": spec.model_dump(mode="json"),
        "confusion": confusion.to_json(),
        "named": {site: asdict(f) for site, f in figures.items()},
    }


def main() -> None:
    """Print coverage by site; write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("predictions", nargs="+", metavar="SITE=FILE")
    parser.add_argument("--coverage", type=float)
    parser.add_argument("--right", type=float, default=0.95)
    parser.add_argument("--doubtful", nargs="*", default=[], metavar="SITE")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    logits, labels, sites = read_predictions(given.predictions)
    cells = labelled(logits, labels, sites)
    known = cells.allowed.any(axis=1)
    cells, labels = cells.of(known), labels[known]
    coverage = given.coverage or least_coverage(cells, labels, given.right, given.doubtful)
    found = named_sites(cells, labels, coverage)
    print(f"coverage {coverage}")
    for site, figures in found.items():
        print(
            f"{site}: {figures.cells} cells, covered {figures.covered:.3f}, given a class "
            f"{figures.named:.3f}, of these right {figures.right:.3f}"
        )
    record = left_out_record(cells, labels, coverage)
    if given.json:
        write_json(given.json, {"coverage": coverage, **record})


if __name__ == "__main__":
    main()
