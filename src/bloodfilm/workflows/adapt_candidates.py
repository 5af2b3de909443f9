"""The ways to adapt a classifier, and how each is judged: what may take the original's place.

Where fields are marked, the marked cells decide (`evaluation.marked_figures`). A correction is
judged on fields that it was not fitted on, any other method learns from no marked cell. Without
marks only figures that need no labels are left (`evaluation.label_free`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.progress import Progress, track
from bloodfilm.core.sampling import evenly_spread
from bloodfilm.evaluation.label_free import (
    LabelFreeFigures,
    LabelledCheck,
    Original,
    label_free_figures,
    reasons_by_checks,
    reasons_to_refuse,
)
from bloodfilm.evaluation.marked_figures import MarkedFigures, marked_figures, reasons_by_marked
from bloodfilm.inference.bundle import Bundle
from bloodfilm.inference.manifest import CORRECTION
from bloodfilm.workflows.adapt_marked import MarkedFields
from bloodfilm.workflows.described import known_log

if TYPE_CHECKING:
    from bloodfilm.export.adaptation import AdaptationSettings
    from bloodfilm.training.marked_correction import ClassCorrection
    from bloodfilm.training.tasks.adaptation import TargetCells

MOST_JUDGED = 400
"""Unlabelled cells that a correction is judged on; each is classified in several views."""
NO_MARKS = (
    "no fields are marked (--labelled), and without labels nothing proves that names would become "
    "better; mark some, or ask for --method self-training"
)
LESS_GAIN = "another candidate names marked cells better"

Write = Callable[[Path, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Candidate:
    """A way to adapt a classifier, judged.

    Attributes:
        name: `correction`, or the method.
        reasons: why it must not take the original's place; nothing if it may.
        unlabelled: figures without labels, before and after, where it was judged by them.
        marked: figures of marked cells, where it was judged by some.
        checks: labelled sets, before and after.
        unjudged: classes of the bundle of which no labelled cell says whether they are still named.
        write: writes its bundle into a folder, with the record of the adaptation.
    """

    name: str
    reasons: tuple[str, ...]
    unlabelled: tuple[LabelFreeFigures, LabelFreeFigures] | None = None
    marked: MarkedFigures | None = None
    checks: tuple[LabelledCheck, ...] = ()
    unjudged: tuple[str, ...] = ()
    write: Write | None = None

    def to_json(self, *, returned: bool) -> dict[str, Any]:
        """Return what the record of an adaptation says of it."""
        before, after = self.unlabelled or (None, None)
        return {
            "name": self.name,
            "returned": returned,
            "reasons": list(self.reasons) or ([] if returned else [LESS_GAIN]),
            "marked": None if self.marked is None else self.marked.to_json(),
            "unlabelled": None
            if before is None or after is None
            else {"before": before.to_json(), "after": after.to_json()},
            "checks": [
                {"name": c.name, "before": round(c.before, 6), "after": round(c.after, 6)}
                for c in self.checks
            ],
            "unjudged": list(self.unjudged),
        }


def choose(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the candidate that takes the original's place, or `None`.

    Of several that may, the one that names marked cells best; of equal ones the first.
    """
    allowed = [c for c in candidates if not c.reasons]
    worth = [(0.0, 0.0) if c.marked is None else c.marked.worth for c in allowed]
    return allowed[worth.index(max(worth))] if allowed else None


# ---- corrections ---------------------------------------------------------------------------------


class UnlabelledCells:
    """Unlabelled cells as a bundle's graph classifies them, as they are and in varied views.

    Args:
        bundle: the original.
        cells: of the new microscope; of more than `MOST_JUDGED` some are taken.
        seed: of the views.
        progress: follows the work.
    """

    def __init__(self, bundle: Bundle, cells: "TargetCells", seed: int, progress: Progress) -> None:
        from bloodfilm.export.adaptation import bundle_view, calibration_of
        from bloodfilm.export.class_graph import BATCH, Describer
        from bloodfilm.training.tasks.adaptation import VIEWS, varied_images

        some = np.zeros(len(cells), dtype=bool)
        some[evenly_spread(len(cells), MOST_JUDGED)] = True
        cells, view, describer = cells.take(some), bundle_view(bundle), Describer(bundle)
        self.confidence = calibration_of(bundle).confidence
        looks = [
            (view.plain(image) for image in cells.images),
            *(varied_images(cells, view, number, seed) for number in range(VIEWS)),
        ]
        self._described: list[tuple[Floats, Floats]] = []
        for look in track(looks, progress, "unlabelled cells", len(looks)):
            crops = list(look)
            parts = []
            for i in range(0, len(crops), BATCH):
                progress.check_cancelled()
                parts.append(describer.describe(np.stack(crops[i : i + BATCH])).description)
            if parts:
                found = np.concatenate(parts)
                known = known_log(bundle, describer, found, bundle.manifest.leaves)
                self._described.append((known, found.astype(np.float64)))

    def figures(self, correction: "ClassCorrection | None" = None) -> LabelFreeFigures | None:
        """Return figures of the bundle, corrected or not; `None` without cells."""
        if not self._described:
            return None
        before, after = (self._probabilities(c) for c in (None, correction))
        original = Original.of(before[:, 0], before[:, 1:], self.confidence)
        return label_free_figures(after[:, 0], after[:, 1:], self.confidence, original)

    def _probabilities(self, correction: "ClassCorrection | None") -> Floats:
        """Return (n, 1 + views, leaves), the cells as they are first."""
        return np.stack(
            [
                np.exp(known if correction is None else correction.log_probabilities(known, found))
                for known, found in self._described
            ],
            axis=1,
        )


def judge_correction(
    bundle: Bundle,
    marked: MarkedFields | None,
    cells: UnlabelledCells,
    checks: Sequence[Path],
    progress: Progress,
) -> Candidate:
    """Judge the correction that marked fields speak for."""
    if marked is None:
        return Candidate(CORRECTION, (NO_MARKS,))
    chosen = marked.chosen
    figures = None if chosen.nearest.penalty is None else chosen.nearest.marked
    correction = chosen.correction
    if correction is None:
        return Candidate(CORRECTION, tuple(chosen.reasons()), marked=figures)
    before, after = cells.figures(), cells.figures(correction)
    pair = None if before is None or after is None else (before, after)
    sets = tuple(_check(bundle, correction, path, progress) for path in checks)

    def write(out: Path, record: Mapping[str, Any]) -> None:
        from bloodfilm.export.adapted import write_corrected

        crops = marked.cells.crops
        write_corrected(bundle, correction, out, record, crops, marked.expected)

    reasons = tuple(reasons_by_checks(sets))
    unjudged = _unjudged(bundle, (*chosen.best.marked.recalls, *chosen.best.known), sets)
    return Candidate(CORRECTION, reasons, pair, figures, sets, unjudged, write)


def _unjudged(
    bundle: Bundle, labels: Iterable[str], checks: Sequence[LabelledCheck]
) -> tuple[str, ...]:
    """Return the classes of a bundle that neither labels nor labelled sets show."""
    tree = bundle.taxonomy
    shown = {leaf for name in labels for leaf in tree.leaves_under(name)}
    shown.update(*(check.classes for check in checks))
    return tuple(leaf for leaf in bundle.manifest.trained_leaves if leaf not in shown)


def _check(
    bundle: Bundle, correction: "ClassCorrection", path: Path, progress: Progress
) -> LabelledCheck:
    """Return the balanced accuracy on a labelled set without a correction and with it."""
    from bloodfilm.export.adaptation import (
        balanced_accuracy,
        bundle_view,
        labelled_crops,
        told_classes,
    )
    from bloodfilm.export.class_graph import Describer
    from bloodfilm.export.recovered import vocabulary_of

    view, describer = bundle_view(bundle), Describer(bundle)
    cells = labelled_crops(path, vocabulary_of(bundle), view, progress)
    crops = np.stack([view.plain(image) for image in cells.images])
    found = describer.describe(crops).description
    known = known_log(bundle, describer, found, bundle.manifest.leaves)
    corrected = correction.log_probabilities(known, found.astype(np.float64))
    before, after = (balanced_accuracy(scores, cells.allowed) for scores in (known, corrected))
    told = told_classes(cells.allowed, bundle.manifest.leaves)
    return LabelledCheck(path.name, before, after, told)


# ---- methods that change the network -------------------------------------------------------------


def judge_method(
    bundle: Bundle,
    target: tuple["TargetCells", Bools],
    recipe: "AdaptationSettings",
    marked: MarkedFields | None,
    work: Path,
    progress: Progress,
) -> Candidate:
    """Adapt the network by a method, and judge it.

    Args:
        bundle: the original.
        target: unlabelled cells, and which of them are judged by and not learnt from.
        recipe: how.
        marked: marked fields, if there are some.
        work: folder for checkpoints.
        progress: follows the work.
    """
    from bloodfilm.export.adaptation import adapt_classifier

    done = adapt_classifier(bundle, *target, recipe, work, progress)
    reasons = reasons_to_refuse(done.before, done.after, done.checks)
    figures = None
    if marked is not None and done.marked is not None:
        figures = marked_figures(marked.cells.labels, marked.allowed, *done.marked)
        reasons = reasons_by_marked(figures) + reasons

    def write(out: Path, record: Mapping[str, Any]) -> None:
        from bloodfilm.export.adapted import write_adapted

        nets = done.original, done.model
        write_adapted(bundle, *nets, done.probes, out, record, eight_bit=done.eight_bit)

    pair = done.before, done.after
    unjudged = _unjudged(bundle, () if marked is None else marked.cells.labels, done.checks)
    return Candidate(recipe.method, tuple(reasons), pair, figures, done.checks, unjudged, write)
