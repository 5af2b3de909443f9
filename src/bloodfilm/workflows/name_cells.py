"""Name the cells of a data set whose class is not annotated, by a model that is sure of it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bloodfilm.active_learning.naming import (
    LEAST_PROBABILITY,
    MATURE,
    NamingRules,
    candidates,
    named,
)
from bloodfilm.core.arrays import Pixels
from bloodfilm.core.dataset import Dataset
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.field import Field
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.core.results import FieldFailure
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.core.text import plural
from bloodfilm.evaluation.crop_evaluation import cut_cells
from bloodfilm.formats import save_dataset
from bloodfilm.imaging.scale import ScalePrior
from bloodfilm.inference.bundle import default_bundle, load_bundle
from bloodfilm.inference.classifier import CellClassifier
from bloodfilm.inference.graph_run import batches
from bloodfilm.inference.manifest import Manifest
from bloodfilm.workflows.analyze import failed
from bloodfilm.workflows.outputs import check_can_hold, dataset_target, hold_folder
from bloodfilm.workflows.selection import SelectionJob

TURNS = range(4)
"""By how many right angles each cell is turned; the mean of all looks decides."""
BATCH = 16
"""Cells that are classified at a time."""


@dataclass(frozen=True, kw_only=True)
class NamingJob(SelectionJob):
    """A data set whose cells are to be named: what is chosen of it, see `SelectionJob`, and how.

    Attributes:
        classes: that cells are named by: nodes of the bundle's taxonomy.
        least: lowest probability of a class.
    """

    classes: tuple[str, ...] = MATURE
    least: float = LEAST_PROBABILITY


@dataclass(frozen=True)
class NamingResult:
    """What was named.

    Attributes:
        fields: how many fields the named set has: those in which a cell was named.
        cells: how many cells could have been named.
        named: cells by the class they got.
        failures: files that could not be opened.
    """

    fields: int
    cells: int
    named: dict[str, int]
    failures: tuple[FieldFailure, ...]


def name_cells(job: NamingJob, progress: Progress | None = None) -> NamingResult:
    """Classify the cells whose class is open and write the fields with those that got one.

    Cells that are not named are ignored in the set that is written, so that nothing is learnt of
    their class; cells that had a class keep it.
    """
    progress = progress or NoProgress()
    if not 0.5 < job.least <= 1:
        raise ConfigError("annotate names: the probability must lie above 0.5 and at most at 1")
    target = dataset_target(job.out, overwrite=job.overwrite)
    dataset = job.open()
    fields = dataset.fields
    check_can_hold(job.out)
    bundle = load_bundle(job.bundle) if job.bundle else default_bundle()
    rules, tree = NamingRules(job.classes, job.least), _common_taxonomy(dataset, bundle.manifest)
    _check_known(job.classes, tree, bundle.manifest)
    waiting = [[c for c in f.cells if candidates(c, tree, rules)] for f in fields]
    count = sum(map(len, waiting))
    if not count:
        raise DataError(
            f"{job.dataset}: no cell to name; a cell is, whose label is a group of classes, such "
            f"as '{bundle.manifest.roles.classified}'"
        )
    classifier, session = CellClassifier(bundle.manifest), bundle.classifier()
    reasons: dict[str, str] = {}
    cut = cut_cells(fields, waiting, classifier, lambda f: ScalePrior.of_domain(f.domain), reasons)
    done: list[Field] = []
    counts: Counter[str] = Counter()
    for part in track(cut, progress, "fields", sum(map(bool, waiting))):
        answers = _mean_probabilities(classifier, session, part.crops)
        new = {
            id(cell): named(cell, p, tree, rules) or replace(cell, ignore=True)
            for (cell, _), p in zip(part.cells, answers, strict=True)
        }
        got = [str(c.label) for c in new.values() if not c.ignore]
        counts.update(got)
        if got:
            cells = tuple(new.get(id(c), c) for c in fields[part.field].cells)
            done.append(replace(fields[part.field], cells=cells))
    failures = tuple(FieldFailure.from_error(p, DataError(r)) for p, r in reasons.items())
    for failure in failures:
        progress.report(failed(failure))
    if not done:
        raise DataError(f"{job.dataset}: of {plural(count, 'cell')}, the model is sure of none")
    with hold_folder(job.out, "named data set"):
        whole = replace(dataset, name=f"{dataset.name}, named", fields=tuple(done), taxonomy=tree)
        save_dataset(whole, target, "bloodfilm", overwrite=job.overwrite)
    return NamingResult(len(done), count, dict(counts.most_common()), failures)


def _common_taxonomy(dataset: Dataset, manifest: Manifest) -> Taxonomy:
    """Return the bundle's taxonomy, in which every label of the set must be known."""
    tree = manifest.taxonomy
    labels = {c.label for f in dataset.fields for c in f.cells if c.label is not None}
    foreign = sorted(label for label in labels if label not in tree)
    if foreign:
        raise DataError(
            f"{dataset.name}: label '{foreign[0]}' is not known to the bundle; map it to a class "
            "of its taxonomy first"
        )
    return tree


def _check_known(classes: Sequence[str], tree: Taxonomy, manifest: Manifest) -> None:
    """Raise `ConfigError` for a class that the bundle does not know or has never learnt."""
    if not classes:
        raise ConfigError("annotate names: no class to name cells by")
    for node in classes:
        leaves = tree.leaves_under(node) if node in tree else ()
        if not set(leaves) & set(manifest.trained_leaves):
            raise ConfigError(
                f"annotate names: the bundle has not learnt '{node}'; it knows "
                f"{', '.join(sorted(manifest.trained_leaves))}"
            )


def _mean_probabilities(
    classifier: CellClassifier, session: Any, crops: Pixels
) -> list[Mapping[str, float]]:
    """Return the probability of each class for crops (n, S, S, 3), the mean over `TURNS`."""
    looks = []
    for turn in TURNS:
        turned = np.ascontiguousarray(np.rot90(crops, turn, axes=(1, 2)))
        looks.append(
            [
                reading.probabilities
                for part in batches(turned, BATCH)
                for reading in classifier.classify(session, part)
            ]
        )
    return [
        {leaf: float(np.mean([look[leaf] for look in of_cell])) for leaf in of_cell[0]}
        for of_cell in zip(*looks, strict=True)
    ]
