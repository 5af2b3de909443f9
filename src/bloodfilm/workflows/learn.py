"""Add classes to a bundle from a user's own cells, or say why it had better not have them.

The classifier keeps its network. Each new class becomes a row of weights on its description of a
cell, fitted on the user's cells and on the exemplars that the bundle carries. What the bundle is
worth before and after is measured on cells that the rows were not fitted on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bloodfilm import __version__
from bloodfilm.core.arrays import Floats
from bloodfilm.core.errors import ConfigError, DataError
from bloodfilm.core.files import write_json
from bloodfilm.core.issues import Issue
from bloodfilm.core.progress import NoProgress, Progress
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.class_figures import (
    ClassFigures,
    class_figures,
    label_recalls,
    reasons_against,
)
from bloodfilm.inference.bundle import Bundle, default_bundle, load_bundle
from bloodfilm.workflows.described import (
    OwnCells,
    join_described,
    known_log,
    varied_descriptions,
)
from bloodfilm.workflows.learn_cells import CellSource, TrainingCells, read_cells, with_new_classes
from bloodfilm.workflows.outputs import (
    check_new_folder,
    hold_folder,
    refuse_bundle_itself,
    require_extra,
)

if TYPE_CHECKING:
    from bloodfilm.export.class_graph import Describer
    from bloodfilm.export.exemplars import Exemplars
    from bloodfilm.training.class_rows import DescribedCells, FittedRows, Whitening

REPORT_FORMAT, REPORT_VERSION = "bloodfilm-learning", 1
MIN_CELLS = 5
"""Cells of a new class without which it is not learnt."""
FEW_CELLS = 20
MAX_LOSS = 0.01
KEPT_PER_LABEL = 120
PROBES = 32
DOUBTED = 0.5


@dataclass(frozen=True, kw_only=True)
class LearnJob:
    """Which classes to add to which bundle.

    Attributes:
        bundle: folder or name of the bundle; `None` for the shipped one.
        cells: the user's cells, of new classes and, better, of known ones from the same films.
        out: folder of the new bundle.
        new: by class that the bundle's tree does not have, the group of classes it belongs to.
        blasts: those of them that count as blasts.
        checks: labelled sets that must not become worse.
        check_um_per_px: micrometres per pixel of their pictures, where nothing in them tells.
        priors: by new class, the factor on its odds: how much rarer than other classes it is.
        max_loss: the most that balanced accuracy on what was known may lose.
        name: of the new bundle; `None`: the parent's, and what was added.
        licence: of the new weights; `None` for that of the parent.
        seed: of all chance.
    """

    bundle: Path | None
    cells: CellSource
    out: Path
    new: Mapping[str, str] = field(default_factory=dict)
    blasts: Sequence[str] = ()
    checks: Sequence[Path] = ()
    check_um_per_px: float | None = None
    priors: Mapping[str, float] = field(default_factory=dict)
    max_loss: float = MAX_LOSS
    name: str | None = None
    licence: str | None = None
    seed: int = 0


@dataclass(frozen=True)
class LearnResult:
    """What came of it.

    Attributes:
        out: folder of the new bundle; nothing is there where it was refused.
        accepted: whether the bundle was written.
        reasons: why not.
        report: all figures, as plain data.
    """

    out: Path
    accepted: bool
    reasons: tuple[str, ...]
    report: Mapping[str, Any]


def learn(job: LearnJob, progress: Progress | None = None) -> LearnResult:
    """Add classes to a bundle's classifier; write nothing where that would harm.

    The rule is `evaluation.class_figures.reasons_against`, on cells that were not fitted on.

    Raises:
        BloodfilmError: if it cannot be done as asked.
    """
    require_extra("onnx")
    require_extra("torch")
    followed = progress or NoProgress()
    bundle = default_bundle() if job.bundle is None else load_bundle(job.bundle)
    tree = with_new_classes(bundle.manifest, job.new, job.blasts)
    _check_out(job, bundle)
    training_set = _TrainingSet.of(job, bundle, tree, followed)
    judged = training_set.judge(job, followed)
    reasons = reasons_against(judged.classes, judged.known, judged.checks, job.max_loss)
    report = training_set.report(job, judged, reasons)
    if not reasons:
        with hold_folder(job.out, "learning"):
            training_set.write(job, judged, report)
    return LearnResult(job.out, not reasons, tuple(reasons), report)


def _check_out(job: LearnJob, bundle: Bundle) -> None:
    refuse_bundle_itself(job.out, bundle.path)
    check_new_folder(job.out)
    if not 0 <= job.max_loss < 1:
        raise ConfigError(f"max_loss {job.max_loss:g}: give a share from 0 to below 1")


@dataclass(frozen=True)
class _Judged:
    """Figures before and after.

    Attributes:
        classes: by new class.
        known: recall by label of the exemplars, before and after.
        checks: by labelled set, the same.
        held_out: (n, leaves) class probabilities of the user's cells, each as if not learnt from.
    """

    classes: Mapping[str, ClassFigures]
    known: Mapping[str, tuple[float, float]]
    checks: Mapping[str, Mapping[str, tuple[float, float]]]
    held_out: Floats


@dataclass(frozen=True)
class _TrainingSet:
    """A bundle, the user's cells, and the rows that were fitted."""

    bundle: Bundle
    tree: Taxonomy
    leaves: tuple[str, ...]
    added: tuple[str, ...]
    cells: TrainingCells
    exemplars: "Exemplars"
    described: "DescribedCells"
    own: NDArray[np.float32]
    novelty: NDArray[np.float32]
    doubted: int
    whitening: "Whitening"
    rows: "FittedRows"
    describer: "Describer"

    @classmethod
    def of(
        cls, job: LearnJob, bundle: Bundle, tree: Taxonomy, progress: Progress
    ) -> "_TrainingSet":
        """Read cells, describe them, fit and calibrate."""
        from bloodfilm.export.adaptation import is_balanced
        from bloodfilm.export.added_classes import new_leaves
        from bloodfilm.export.class_graph import Describer
        from bloodfilm.export.exemplars import read_exemplars
        from bloodfilm.training.class_rows import Whitening, fit_added_rows

        manifest = bundle.manifest
        exemplars = read_exemplars(bundle)
        cells = read_cells(job.cells, bundle, tree, progress, balanced=is_balanced(bundle))
        for found in cells.issues:
            progress.report(found)
        leaves = new_leaves(manifest, tree)
        added = _with_classes(job, cells, tree, leaves, manifest.trained_leaves)
        describer = Describer(bundle)
        said = describer.describe(cells.crops)
        views, of_cell = varied_descriptions(bundle, cells, describer, job.seed, progress)
        own = OwnCells(cells.labels, cells.groups, said.description, views, of_cell)
        described = join_described((bundle, describer, exemplars), own, tree, leaves)
        whitening = Whitening.of(described.take(described.old))
        progress.update("fitting", 0, 1)
        places = [(leaves.index(name), True) for name in added]
        odds = {leaves.index(name): factor for name, factor in job.priors.items()}
        rows = fit_added_rows(described, whitening, places, job.seed, odds)
        progress.update("fitting", 1, 1)
        doubted = 0
        if "nucleated" in said.outputs:
            of_type = [tree.is_under(name, manifest.roles.classified) for name in cells.labels]
            doubted = int((said.outputs["nucleated"] < 0)[np.array(of_type)].sum())
        return cls(
            bundle,
            tree,
            leaves,
            added,
            cells,
            exemplars,
            described,
            said.description,
            said.outputs["novelty"],
            doubted,
            whitening,
            rows,
            describer,
        )

    # ---- figures -----------------------------------------------------------------------------

    def judge(self, job: LearnJob, progress: Progress) -> _Judged:
        """Compare before and after."""
        plain = self.described.take(self.rows.plain)
        before, after = np.exp(plain.known), np.exp(self.rows.held_out)
        old = plain.old
        names = np.array([*self._exemplar_labels(), *self.cells.labels])
        allowed = plain.allowed
        known = label_recalls(names[old], allowed[old], before[old], after[old])
        figures = {
            name: class_figures(
                self.leaves.index(name),
                names == name,
                names,
                after,
                self.bundle.manifest.classifier.class_confidence,
            )
            for name in self.added
        }
        checks = {str(path): self._check(path, job, progress) for path in job.checks}
        return _Judged(figures, known, checks, after[~old])

    def _exemplar_labels(self) -> list[str]:
        return self.exemplars.names

    def probabilities(self, description: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Return class probabilities (n, leaves) of descriptions, before and after."""
        from bloodfilm.training.class_rows import log_probabilities

        known = known_log(self.bundle, self.describer, description, self.leaves)
        scores = self.rows.rows.scores(self.whitening(description.astype(np.float64)))
        return np.exp(known), np.exp(log_probabilities(known, scores, self.rows.rows))

    def _check(
        self, path: Path, job: LearnJob, progress: Progress
    ) -> Mapping[str, tuple[float, float]]:
        """Return recall by label of a labelled set; cells that were learnt from are left out."""
        source = CellSource(path=path, um_per_px=job.check_um_per_px)
        learnt = frozenset(self.cells.pictures)
        cells = read_cells(source, self.bundle, self.tree, progress, without=learnt)
        for why, count in cells.left_out.items():
            if count:
                progress.report(Issue("left-out", "info", f"{path}: {count} cells {why}"))
        masks = np.array([self.tree.leaf_mask(name, self.leaves) for name in cells.labels])
        before, after = self.probabilities(self.describer.describe(cells.crops).description)
        return label_recalls(np.array(cells.labels), masks, before, after)

    def warnings(self) -> list[str]:
        """Return what is to be known of the new classes, in sentences."""
        said = []
        known = [name for name in self.cells.labels if name not in self.added]
        if not known:
            said.append(
                "all cells are of new classes: from one microscope and stain alone, a class cannot "
                "be told from how its films look; add ordinary cells of the same films, in folders "
                "named after their classes"
            )
        if not self.rows.by_group:
            said.append(
                "fewer than three patients of some new class are known, so cells of one film are "
                "on both sides of the cross-validation: expect less of other patients (give a "
                "folder for each patient, or a data set that names them)"
            )
        counts = self.cells.counts()
        few = [f"{name} ({counts[name]})" for name in self.added if counts[name] < FEW_CELLS]
        if few:
            said.append(f"few cells, so that its name is rarely sure: {', '.join(few)}")
        if self.doubted > DOUBTED * len(self.cells):
            said.append(
                f"the classifier sees no nucleated cell in {self.doubted} of {len(self.cells)} "
                "crops: is the cell in the middle, and the pixel size right?"
            )
        return said

    def report(self, job: LearnJob, judged: _Judged, reasons: Sequence[str]) -> dict[str, Any]:
        """Return all of it as plain data."""
        cells, manifest = self.cells, self.bundle.manifest
        plain = self.described.take(self.rows.plain)
        groups = {
            name: {
                g
                for g, label in zip(cells.groups, cells.labels, strict=True)
                if label == name and g
            }
            for name in self.added
        }
        limit = manifest.classifier.novelty_threshold
        counts = cells.counts()
        return {
            "format": REPORT_FORMAT,
            "version": REPORT_VERSION,
            "program": f"bloodfilm {__version__}",
            "accepted": not reasons,
            "reasons": list(reasons),
            "parent": {
                "name": manifest.name,
                "sha256": self.bundle.sha256,
                "licence": manifest.licence,
            },
            "settings": {"seed": job.seed, "max_loss": job.max_loss, "priors": dict(job.priors)},
            "cells": {
                "source": cells.name,
                "licence": cells.licence,
                "counts": counts,
                "pictures": len(set(cells.pictures)),
                "sha256": _digest(cells.pictures),
                "left_out": {why: count for why, count in cells.left_out.items() if count},
            },
            "by_group": self.rows.by_group,
            "classes": {
                name: {
                    "under": self.tree.parent(name),
                    "blast": self.tree.node(name).blast,
                    "cells": counts[name],
                    "groups": len(groups[name]),
                    **judged.classes[name].to_json(),
                    "unfamiliar_before": _share_above(
                        self.novelty[np.array(cells.labels) == name], limit
                    ),
                    "slope": round(slope, 4),
                }
                for name, slope in zip(self.added, self.rows.slopes, strict=True)
            },
            "known": {"cells": int(plain.old.sum()), **_both(judged.known, ())},
            "checks": {name: _both(found, self.added) for name, found in judged.checks.items()},
            "warnings": self.warnings(),
            "files": dict(cells.files),
        }

    # ---- the bundle --------------------------------------------------------------------------

    def write(self, job: LearnJob, judged: _Judged, report: Mapping[str, Any]) -> None:
        """Write the bundle and the report."""
        from bloodfilm.export.added_classes import REPORT, AddedClasses, Title, write_with_classes
        from bloodfilm.export.class_graph import ClassRows

        rows = self.rows.rows
        new = {
            name: self.whitening.undo(weights, float(bias))
            for name, weights, bias in zip(self.added, rows.weights, rows.bias, strict=True)
        }
        labels = np.array(self.cells.labels)
        means = {name: self.own[labels == name].mean(0).astype(np.float64) for name in self.added}
        added = AddedClasses(
            self.tree,
            self.leaves,
            ClassRows(new, {}),
            means,
            self._exemplars(),
            self._least(judged),
            dict(job.priors),
        )
        manifest = self.bundle.manifest
        title = Title(
            job.name or f"{manifest.name}, with {', '.join(self.added)}",
            job.licence or manifest.licence,
        )
        some = np.unique(
            np.linspace(0, len(self.cells) - 1, min(PROBES, len(self.cells))).astype(int)
        )
        expected = self.probabilities(self.own[some])[1]
        record = {k: v for k, v in report.items() if k not in ("format", "version", "files")}
        write_with_classes(
            self.bundle, added, title, job.out, record, self.cells.crops[some], expected
        )
        write_json(job.out / REPORT, report)

    def _exemplars(self) -> "Exemplars":
        """Return the exemplars of the new bundle: the old ones, and the cells learnt from."""
        from bloodfilm.export.exemplars import Exemplars

        names = tuple(dict.fromkeys(self.cells.labels))
        label = np.array([names.index(name) for name in self.cells.labels], dtype=np.int64)
        kept = np.zeros(len(label), dtype=bool)
        for number in range(len(names)):
            of_label = np.flatnonzero(label == number)
            some = np.linspace(0, len(of_label) - 1, min(KEPT_PER_LABEL, len(of_label)))
            kept[of_label[some.round().astype(int)]] = True
        domain = np.zeros(len(label), dtype=np.int64)
        own = Exemplars(self.own, label, domain, names, (f"learnt: {self.cells.name}",))
        return self.exemplars.join(own.take(kept))

    def _least(self, judged: _Judged) -> dict[str, float]:
        """Return the probability from which a cell may be of a new class (conformal quantile)."""
        conformal = self.bundle.manifest.classifier.conformal
        if conformal is None:
            return {}
        labels = np.array(self.cells.labels)
        found = {}
        for name in self.added:
            own = np.sort(judged.held_out[labels == name, self.leaves.index(name)])
            place = int(np.floor((1 - conformal.coverage) * (len(own) + 1))) - 1
            found[name] = float(own[place]) if place >= 0 else 0.0
        return found


# ---- parts ---------------------------------------------------------------------------------------


def _with_classes(
    job: LearnJob,
    cells: TrainingCells,
    tree: Taxonomy,
    leaves: Sequence[str],
    trained: Sequence[str],
) -> tuple[str, ...]:
    """Return the classes to learn: new ones, and those of the tree that were never learnt."""
    counts = cells.counts()
    wanted = [n for n in leaves if n in job.new or (n in counts and n not in trained)]
    where = job.cells.path
    if not wanted:
        listed = ", ".join(f"{name} ({count})" for name, count in counts.items())
        raise DataError(
            f"{where}: the bundle knows all classes there: {listed}; name a new one with --new, or "
            "train on more data to name known ones better"
        )
    for name in wanted:
        if counts.get(name, 0) < MIN_CELLS:
            raise DataError(
                f"{where}: {counts.get(name, 0)} cells of {name!r}; a class is learnt from "
                f"{MIN_CELLS} or more, and named with some certainty from about {FEW_CELLS}"
            )
    for name, factor in job.priors.items():
        if name not in wanted or not 0 < factor < float("inf"):
            raise ConfigError(
                f"--prior {name}={factor:g}: needs one of {', '.join(wanted)} and a factor above 0"
            )
    return tuple(wanted)


def _both(found: Mapping[str, tuple[float, float]], new: Sequence[str]) -> dict[str, Any]:
    """Return balanced accuracy on known classes before and after, and recalls by label."""
    known = [pair for name, pair in found.items() if name not in new]
    before, after = (float(np.mean([pair[i] for pair in known])) if known else None for i in (0, 1))
    return {
        "before": None if before is None else round(before, 6),
        "after": None if after is None else round(after, 6),
        "labels": {name: [round(b, 4), round(a, 4)] for name, (b, a) in found.items()},
    }


def _share_above(values: NDArray[np.float32], limit: float | None) -> float | None:
    return None if limit is None else round(float((values > limit).mean()), 4)


def _digest(shas: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(shas))).encode()).hexdigest()
