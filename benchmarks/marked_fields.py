"""What marked fields are worth of a microscope that a bundle was not trained on, over many lots.

    python benchmarks/marked_fields.py --bundle DIR --set DATASET [--fields 1 2 5 10] [--lots 5]
        [--json FILE]

`bloodfilm adapt --labelled` corrects the names of a bundle by marked fields. Here every cell of a
labelled set is described once, on its true box, and what the command does is repeated for many
lots: the set is divided by patients (slides; fields where neither is known) into two halves, marked
fields are drawn from the first, and the second is named before and after. A correction that
cross-validation refuses counts as no gain; `unguarded` is what the more careful correction would
gain if it were always made. Other methods and detection are not in it: `adaptation.py` measures
the whole command. The bundle must hold exemplars, and the set must not have been in its training.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.progress import NoProgress
from bloodfilm.evaluation.class_figures import label_recalls
from bloodfilm.export.adaptation import is_balanced
from bloodfilm.export.class_graph import Describer
from bloodfilm.export.exemplars import Exemplars, read_exemplars
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.training.class_rows import DescribedCells
from bloodfilm.training.marked_correction import PENALTIES, choose_correction, fit_on_cells
from bloodfilm.workflows.described import OwnCells, join_described, known_log, varied_descriptions
from bloodfilm.workflows.learn_cells import CellSource, TrainingCells, read_cells


@dataclass(frozen=True)
class Lot:
    """One draw: marked fields, the strength that was chosen, and balanced accuracies."""

    fields: int
    lot: int
    penalty: float | None
    before: float
    after: float
    unguarded: float


class Site:
    """A set whose cells are described once.

    Args:
        bundle: that describes and names them.
        path: of the set.
    """

    def __init__(self, bundle: Bundle, path: Path) -> None:
        self.bundle, self.describer = bundle, Describer(bundle)
        self.exemplars: Exemplars = read_exemplars(bundle)
        tree = bundle.manifest.taxonomy
        source = CellSource(path=path)
        self.cells: TrainingCells = read_cells(
            source, bundle, tree, NoProgress(), balanced=is_balanced(bundle)
        )
        self.plain = self.describer.describe(self.cells.crops).description
        self.varied, self.of_cell = varied_descriptions(
            bundle, self.cells, self.describer, 0, NoProgress()
        )
        leaves = bundle.manifest.leaves
        self.known = known_log(bundle, self.describer, self.plain, leaves)
        self.allowed = np.array([tree.leaf_mask(name, leaves) for name in self.cells.labels])
        self.labels = np.array(self.cells.labels)
        self.pictures = np.array(self.cells.pictures)
        self.groups = np.array(self.cells.groups)

    def halves(self, seed: int) -> NDArray[np.bool_]:
        """Return which cells are of the first half of the groups."""
        names = np.random.default_rng(seed).permutation(np.unique(self.groups))
        return np.isin(self.groups, names[: len(names) // 2])

    def described(self, chosen: NDArray[np.int64]) -> tuple[DescribedCells, list[str]]:
        """Return exemplars and some of the cells, and the labels of all that are no views."""
        views = np.isin(self.of_cell, chosen)
        own = OwnCells(
            tuple(self.labels[chosen]),
            tuple(self.pictures[chosen]),
            self.plain[chosen],
            self.varied[views],
            np.searchsorted(chosen, self.of_cell[views]),
        )
        m = self.bundle.manifest
        known = self.bundle, self.describer, self.exemplars
        return join_described(known, own, m.taxonomy, m.leaves), [
            *self.exemplars.names,
            *own.labels,
        ]

    def balanced(self, log_p: NDArray[np.float64], rows: NDArray[np.bool_]) -> float:
        """Return the mean recall of the set's classes."""
        p = np.exp(log_p[rows])
        recalls = label_recalls(self.labels[rows], self.allowed[rows], p, p)
        return float(np.mean([after for _, after in recalls.values()]))


def lots(site: Site, counts: list[int], number: int) -> list[Lot]:
    """Draw marked fields, correct, judge."""
    found = []
    for lot in range(number):
        first = site.halves(lot)
        order = np.random.default_rng([lot, 1]).permutation(np.unique(site.pictures[first]))
        for count in counts:
            cells, names = site.described(np.flatnonzero(np.isin(site.pictures, order[:count])))
            chosen = choose_correction(cells, names, lot)
            corrections = chosen.correction, fit_on_cells(cells, PENALTIES[0])
            figures = [
                site.balanced(
                    site.known if c is None else c.log_probabilities(site.known, site.plain), ~first
                )
                for c in (None, *corrections)
            ]
            found.append(Lot(count, lot, chosen.best.penalty, *figures))
            print(found[-1], flush=True)
    return found


def main() -> None:
    """Print a table of gains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--fields", type=int, nargs="*", default=[1, 2, 5, 10])
    parser.add_argument("--lots", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    site = Site(load_bundle(given.bundle), given.set)
    found = lots(site, given.fields, given.lots)
    for count in given.fields:
        rows = [f for f in found if f.fields == count]
        gain = np.array([f.after - f.before for f in rows])
        unguarded = np.array([f.unguarded - f.before for f in rows])
        kept = sum(f.penalty is None for f in rows)
        print(
            f"{count} marked fields: {np.mean([f.before for f in rows]):.3f} -> "
            f"{np.mean([f.after for f in rows]):.3f}, gain {gain.mean():+.3f} +- {gain.std():.3f} "
            f"({gain.min():+.3f} to {gain.max():+.3f}), original kept {kept} of {len(rows)}; "
            f"unguarded {unguarded.mean():+.3f} +- {unguarded.std():.3f} "
            f"({unguarded.min():+.3f} to {unguarded.max():+.3f})"
        )
    if given.json:
        record = {"set": given.set.name, "lots": [asdict(f) for f in found]}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
