"""What self-training does to names on a microscope that a bundle was not trained on, and elsewhere.

    python benchmarks/self_training.py --bundle DIR --set DATASET --work DIR [--seeds 0 1 2]
        [--shares 0.7 0] [--steps 200] [--other DATASET ...] [--json FILE]

On true boxes, at the scales that the sets state (`bloodfilm annotate scale`). A labelled set is
divided by patients (slides; fields where neither is known) into two halves; the first is learnt
from without its labels, and both are named before and after. `--shares` are those of the original's
weights in what is returned (0: the trained network as it is). `--other` are sets of other
microscopes, whose classes the first half need not show: what is lost there is lost unnoticed.
`accepted` is how often marked fields, drawn from the first half, would speak for the outcome. The
set must not have been in the bundle's training.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats, Pixels
from bloodfilm.core.progress import NoProgress
from bloodfilm.evaluation.intervals import group_fields
from bloodfilm.evaluation.marked_figures import marked_figures, reasons_by_marked
from bloodfilm.export.adaptation import (
    CPU,
    AdaptationSettings,
    adapt_classifier,
    balanced_accuracy,
    bundle_view,
    calibration_of,
    is_balanced,
)
from bloodfilm.export.recovered import recover_classifier, vocabulary_of
from bloodfilm.inference.bundle import Bundle, load_bundle
from bloodfilm.models.classifier import CellClassifierNet
from bloodfilm.training.config import DatasetConfig
from bloodfilm.training.data.cell_crops import load_crops, trainable_cells
from bloodfilm.training.data.sources import open_sources
from bloodfilm.training.tasks.adaptation import TargetCells
from bloodfilm.training.tasks.classifier import predict_images
from bloodfilm.workflows.adapt_cells import hold_out

MARKED = (5, 10, 20)
DRAWS = 200


@dataclass(frozen=True)
class LabelledCells:
    """Cells of a set as they are stored.

    Attributes:
        images: (n, S, S, 3); allowed: (n, leaves) the classes of each label.
        field: (n,) number of each cell's field; group: (n,) of its patient.
    """

    images: Pixels
    allowed: Bools
    field: NDArray[np.int64]
    group: NDArray[np.int64]

    @classmethod
    def read(cls, path: Path, bundle: Bundle, most: int | None = None) -> "LabelledCells":
        """Cut out the cells whose label tells classes apart, of at most so many fields."""
        words = vocabulary_of(bundle)
        items = open_sources([DatasetConfig(path=path.absolute())], Path())
        names, _ = group_fields([item.field for item in items])
        places = {name: number for number, name in enumerate(sorted(set(names)))}
        order = np.random.default_rng(0).permutation(len(items))[:most]
        parts, numbers = [], []
        for i in sorted(order.tolist()):
            item = items[i]
            if not trainable_cells(item.field.cells, words, item.dataset.taxonomy):
                continue
            cells = load_crops([item], words, NoProgress(), balanced=is_balanced(bundle))
            parts.append((np.asarray(cells.images), np.asarray(cells.allowed)))
            numbers += [(i, places[names[i]])] * len(cells)
        images, allowed = (np.concatenate(column) for column in zip(*parts, strict=True))
        told = ~allowed.all(1) & allowed.any(1)
        field, group = np.array(numbers, dtype=np.int64)[told].T
        return cls(images[told], allowed[told], field, group)


@dataclass(frozen=True)
class Outcome:
    """Of one seed and share: pairs of figures before and after."""

    seed: int
    share: float
    test: tuple[float, float]
    learnt: tuple[float, float]
    consistency: tuple[float, float]
    accepted: dict[int, float]
    others: dict[str, tuple[float, float]]
    blasts: dict[str, tuple[float, float]]


class Site:
    """A bundle, and sets that it is judged on.

    Args:
        bundle: that never saw the first.
        path: of the set that is adapted to; others: of other microscopes.
    """

    def __init__(self, bundle: Bundle, path: Path, others: list[Path]) -> None:
        self.bundle, self.view = bundle, bundle_view(bundle)
        self.cells = LabelledCells.read(path, bundle)
        self.others = {p.name: LabelledCells.read(p, bundle, 160) for p in others}
        m = bundle.manifest
        self.blasts = np.array([leaf in m.taxonomy.blasts for leaf in m.leaves])

    def classify(self, model: CellClassifierNet, images: Pixels) -> Floats:
        """Return class probabilities of stored crops."""
        plain = (self.view.plain(image) for image in images)
        logits = predict_images(model, plain, CPU)["classes"]
        return calibration_of(self.bundle).probabilities(logits)

    def adapt(self, seed: int, shares: list[float], steps: int, work: Path) -> list[Outcome]:
        """Adapt to one half; what was trained is kept in `work` for every share."""
        cells = self.cells
        names = np.random.default_rng(seed).permutation(np.unique(cells.group))
        first = np.isin(cells.group, names[: len(names) // 2])
        probes = np.stack([self.view.plain(image) for image in cells.images[first][::4]])
        original, _ = recover_classifier(self.bundle, probes)
        target = TargetCells(
            cells.images[first], self.classify(original, cells.images[first]), cells.field[first]
        )
        held = hold_out(target.groups, seed)
        found = []
        for share in shares:
            recipe = AdaptationSettings(steps=steps, seed=seed, original_share=share)
            done = adapt_classifier(self.bundle, target, held, recipe, work, NoProgress())
            models = done.original, done.model
            test, learnt = (
                self._pair(models, cells.images[rows], cells.allowed[rows])
                for rows in (~first, first)
            )
            others = {k: self._pair(models, c.images, c.allowed) for k, c in self.others.items()}
            blasts = {k: self._blast_recalls(models, c) for k, c in self.others.items()}
            pair = done.before.consistency, done.after.consistency
            accepted = {count: self._accepted(models, first, count) for count in MARKED}
            found.append(Outcome(seed, share, test, learnt, pair, accepted, others, blasts))
            print(json.dumps(asdict(found[-1])), flush=True)
        return found

    def _pair(
        self, models: tuple[CellClassifierNet, ...], images: Pixels, allowed: Bools
    ) -> tuple[float, float]:
        before, after = (
            balanced_accuracy(self.classify(model, images), allowed) for model in models
        )
        return round(before, 4), round(after, 4)

    def _accepted(self, models: tuple[CellClassifierNet, ...], first: Bools, count: int) -> float:
        """Return the share of draws of so many marked fields that speak for the change."""
        images, allowed = self.cells.images[first], self.cells.allowed[first]
        before, after = (self.classify(model, images) for model in models)
        labels = np.array(["".join(map(str, row.astype(int))) for row in allowed])
        field = self.cells.field[first]
        spoke = 0
        for number in range(DRAWS):
            drawn = np.random.default_rng([count, number]).permutation(np.unique(field))[:count]
            rows = np.isin(field, drawn)
            figures = marked_figures(labels[rows], allowed[rows], before[rows], after[rows])
            spoke += not reasons_by_marked(figures)
        return spoke / DRAWS

    def _blast_recalls(
        self, models: tuple[CellClassifierNet, ...], cells: LabelledCells
    ) -> tuple[float, float]:
        """Return the share of blasts that are named as some blast."""
        rows = (cells.allowed & self.blasts).any(1) & ~(cells.allowed & ~self.blasts).any(1)
        if not rows.any():
            return float("nan"), float("nan")
        before, after = (
            float(self.blasts[self.classify(model, cells.images[rows]).argmax(1)].mean())
            for model in models
        )
        return round(before, 4), round(after, 4)


def main() -> None:
    """Adapt for every seed and share, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--set", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.7, 0.0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--other", type=Path, nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    site = Site(load_bundle(given.bundle), given.set, given.other)
    found = []
    for seed in given.seeds:
        work = given.work / f"{given.set.name}-{seed}"
        work.mkdir(parents=True, exist_ok=True)
        found += site.adapt(seed, given.shares, given.steps, work)
    if given.json:
        text = json.dumps([asdict(outcome) for outcome in found], indent=1)
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
