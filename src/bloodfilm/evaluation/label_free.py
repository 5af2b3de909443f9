"""What can be said of a classifier on cells that nobody labelled, and when to refuse a change.

Each cell is classified as it is and in several augmented views (stain, optics, orientation), which
show the same cell. The figures are proxies: none of them proves that names are right, and a
classifier that calls everything one class agrees with itself perfectly. Therefore several are held
against each other, see `reasons_to_refuse`.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats

MIN_CELLS = 20
"""Held-out cells below which nothing can be said."""
MIN_KEPT = 0.95
"""Share of the cells that the original model was sure of which must keep their name."""
MIN_INFORMATION = 0.9
"""Share of the information that must be left: less means that classes have merged."""
MAX_FALL = 0.02
"""How far any share may fall that should rise."""


@dataclass(frozen=True)
class LabelFreeFigures:
    """Figures of a classifier on unlabelled cells.

    Attributes:
        cells: their number.
        consistency: share of the augmented views that get the same class as the plain cell, mean
            over cells.
        overconfidence: mean confidence less consistency: a classifier that is surer than it agrees
            with itself is surer than it may be.
        information: mutual information in nats of cell and class, the views' mean probabilities
            taken (the criterion "InfoMax" of unsupervised model selection): high where single
            cells are certain and classes varied, 0 where all cells are named alike.
        named: share of the cells whose most probable class reaches the naming threshold.
        kept: share of the cells that the original was sure of and that keep their name; 1 for the
            original itself; not-a-number where it was sure of none.
    """

    cells: int
    consistency: float
    overconfidence: float
    information: float
    named: float
    kept: float

    def to_json(self) -> dict[str, float | int | None]:
        """Return the figures as plain data."""
        return {k: _rounded(v) if isinstance(v, float) else v for k, v in asdict(self).items()}


def _rounded(value: float) -> float | None:
    return round(value, 6) if np.isfinite(value) else None


def label_free_figures(
    plain: Floats, views: Floats, threshold: float, original: "Original"
) -> LabelFreeFigures:
    """Compute the figures.

    Args:
        plain: (n, k) class probabilities of the cells as they are.
        views: (n, v, k) of their augmented views.
        threshold: probability from which a class is named.
        original: what the unchanged classifier says of the same cells.

    >>> p = np.array([[0.9, 0.1], [0.2, 0.8]])
    >>> figures = label_free_figures(p, p[:, None], 0.85, Original.of(p, p[:, None], 0.85))
    >>> figures.consistency, figures.named, figures.kept, round(figures.information, 3)
    (1.0, 0.5, 1.0, 0.275)
    """
    best = plain.argmax(1)
    agree = views.argmax(2) == best[:, None]
    sure = original.sure
    kept = float((best[sure] == original.best[sure]).mean()) if sure.any() else float("nan")
    consistency = float(agree.mean())
    return LabelFreeFigures(
        cells=len(plain),
        consistency=consistency,
        overconfidence=float(plain.max(1).mean()) - consistency,
        information=mutual_information(views.mean(1)),
        named=float((plain.max(1) >= threshold).mean()),
        kept=kept,
    )


@dataclass(frozen=True)
class Original:
    """The answers of the unchanged classifier.

    Attributes:
        best: (n,) its class.
        sure: (n,) whether it named the cell, and nearly all views agree.
    """

    best: NDArray[np.intp]
    sure: NDArray[np.bool_]

    AGREEMENT = 0.75

    @classmethod
    def of(cls, plain: Floats, views: Floats, threshold: float) -> "Original":
        """Return the answers, see `label_free_figures` for the arguments."""
        best = plain.argmax(1)
        agreement = (views.argmax(2) == best[:, None]).mean(1)
        return cls(best, (plain.max(1) >= threshold) & (agreement >= cls.AGREEMENT))


def mutual_information(probabilities: Floats) -> float:
    """Return H(mean p) - mean H(p) in nats, of (n, k) class probabilities.

    Source: Bridle, Heading, MacKay, Unsupervised classifiers, mutual information and "phantom
    targets", NIPS 1991.

    >>> round(mutual_information(np.eye(2)), 4), mutual_information(np.array([[1.0, 0.0]]))
    (0.6931, 0.0)
    """
    return max(0.0, float(_entropy(probabilities.mean(0)) - _entropy(probabilities).mean()))


def _entropy(p: Floats) -> Floats:
    logs = np.log(np.where(p > 0, p, 1.0))
    return np.asarray(-(p * logs).sum(-1))


@dataclass(frozen=True)
class LabelledCheck:
    """Balanced accuracy on labelled cells of microscopes that must not suffer.

    Attributes:
        name: of the set.
        before, after: balanced accuracy.
        classes: that its labels tell from others.
    """

    name: str
    before: float
    after: float
    classes: frozenset[str] = frozenset()


def reasons_to_refuse(
    before: LabelFreeFigures, after: LabelFreeFigures, checks: tuple[LabelledCheck, ...] = ()
) -> list[str]:
    """Return why an adapted classifier must not replace the original; nothing if it may.

    It may if, on held-out cells, its names hold better under changes of stain and optics than
    before, nearly all cells that the original was sure of keep their names, classes have not
    merged, no fewer cells are named, and no labelled set that was given became worse.

    >>> figures = LabelFreeFigures(100, 0.8, 0.1, 0.9, 0.5, 1.0)
    >>> reasons_to_refuse(figures, figures)
    ['names hold no better under changes of stain and optics: 0.800 before, 0.800 after']
    """
    return list(_reasons(before, after, checks))


def _reasons(
    before: LabelFreeFigures, after: LabelFreeFigures, checks: tuple[LabelledCheck, ...]
) -> Iterator[str]:
    numbers = [getattr(after, f.name) for f in fields(after) if f.name != "kept"]
    if after.cells < MIN_CELLS:
        yield f"only {after.cells} held-out cells; {MIN_CELLS} are needed to judge"
    elif not np.isfinite(numbers).all():
        yield "a figure is no number"
    else:
        yield from _worse(before, after)
    yield from reasons_by_checks(checks)


def reasons_by_checks(checks: tuple[LabelledCheck, ...]) -> list[str]:
    """Return which labelled sets speak against a change: those that lose more than `MAX_FALL`.

    >>> reasons_by_checks((LabelledCheck("ours", 0.9, 0.85), LabelledCheck("theirs", 0.9, 0.89)))
    ['ours: balanced accuracy 0.900 before, 0.850 after']
    """
    return [
        f"{check.name}: balanced accuracy {check.before:.3f} before, {check.after:.3f} after"
        for check in checks
        if not check.after >= check.before - MAX_FALL
    ]


def _worse(before: LabelFreeFigures, after: LabelFreeFigures) -> Iterator[str]:
    if after.consistency <= before.consistency:
        yield (
            "names hold no better under changes of stain and optics: "
            f"{before.consistency:.3f} before, {after.consistency:.3f} after"
        )
    if after.kept < MIN_KEPT:
        yield (
            f"{1 - after.kept:.1%} of the cells that the original was sure of would get another "
            f"name; {1 - MIN_KEPT:.0%} is the most"
        )
    if after.information < MIN_INFORMATION * before.information:
        yield (
            f"classes merge: information {before.information:.3f} before, "
            f"{after.information:.3f} after"
        )
    if after.named < before.named - MAX_FALL:
        yield f"fewer cells are named: {before.named:.3f} before, {after.named:.3f} after"
