"""Score classes and attributes, given pairs of true cells and classifications.

Labels at different depths of the tree are compared as follows. A prediction under the true label
is right ("band neutrophil" where the truth says "neutrophil"). A classifier may also stop at
an ancestor of the true label: that is an abstention, neither right nor wrong. So three figures
belong together: the accuracy of the best guess over all cells (`accuracy`), the share of cells
without abstention (`coverage`), and the accuracy over those (`accepted_accuracy`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bloodfilm.core.arrays import Bools, Floats, Ints
from bloodfilm.core.attributes import Attribute
from bloodfilm.core.field import Cell
from bloodfilm.core.results import CellResult
from bloodfilm.core.taxonomy import Taxonomy


@dataclass(frozen=True)
class ClassOutcomes:
    """Predictions of the class or of one attribute for n cells.

    Attributes:
        labels: every label that is true or was predicted.
        truth, predicted: (n,) indices into `labels`; `predicted` is the best guess.
        confidence: (n,) the probability of the best guess.
        accepted: (n,) whether the classifier did not abstain.
        accepted_right: (n,) whether the accepted prediction is right.
        squared_error: (n,) sum of squared errors of the probabilities (Brier), or not-a-number.
        cells: (n,) index of the cell of each row.
    """

    labels: tuple[str, ...]
    truth: Ints
    predicted: Ints
    confidence: Floats
    accepted: Bools
    accepted_right: Bools
    squared_error: Floats
    cells: Ints

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def correct(self) -> Bools:
        """Whether the best guess is right, shape (n,)."""
        return np.asarray(self.truth == self.predicted)

    def guessing(self, predicted: Ints) -> "ClassOutcomes":
        """Return the same cells with other predictions, none abstained (for baselines)."""
        yes = np.ones(len(self), dtype=bool)
        nothing = np.full(len(self), np.nan)
        return replace(
            self,
            predicted=predicted,
            confidence=nothing,
            accepted=yes,
            accepted_right=self.truth == predicted,
            squared_error=nothing,
        )


@dataclass(frozen=True)
class LabelScores:
    """One label's precision, recall, F1 and number of true cells."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Scores:
    """Figures over all cells of a question.

    Attributes:
        n: number of cells.
        accuracy: of the best guess, over all cells.
        macro_f1, balanced_accuracy: mean F1 and mean recall over the labels in the truth.
        coverage: share of cells without abstention.
        accepted_accuracy: accuracy over those; not-a-number if there are none.
    """

    n: int
    accuracy: float
    macro_f1: float
    balanced_accuracy: float
    coverage: float
    accepted_accuracy: float


def confusion(outcomes: ClassOutcomes, weights: ArrayLike | None = None) -> Floats:
    """Count true label (row) against best guess (column), each cell by its weight."""
    k = len(outcomes.labels)
    counts = np.bincount(
        outcomes.truth * k + outcomes.predicted,
        weights=None if weights is None else np.asarray(weights, dtype=np.float64),
        minlength=k * k,
    )
    return counts.reshape(k, k).astype(np.float64)


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _f1(matrix: Floats) -> Floats:
    """Return the F1 of every label of a confusion matrix, 0 for one that does not occur."""
    return _ratio(2 * np.diag(matrix), matrix.sum(axis=1) + matrix.sum(axis=0))


def macro_f1(truth: ArrayLike, predicted: ArrayLike, *, include_predicted: bool = False) -> float:
    """Return the mean F1 over the labels that occur in the truth.

    Args:
        truth, predicted: (n,) one label per item, integers; at least one item.
        include_predicted: average also over labels that occur only among the predictions, whose
            F1 is 0; this is the default of scikit-learn.

    >>> macro_f1([0, 0, 1, 1], [0, 0, 1, 2])
    0.8333333333333333
    >>> round(macro_f1([0, 0, 1, 1], [0, 0, 1, 2], include_predicted=True), 3)
    0.556
    """
    labels, codes = np.unique([truth, predicted], return_inverse=True)
    rows, columns = codes.reshape(2, -1)
    k = len(labels)
    matrix = np.bincount(rows * k + columns, minlength=k * k).reshape(k, k).astype(np.float64)
    f1 = _f1(matrix)
    return float((f1 if include_predicted else f1[matrix.sum(axis=1) > 0]).mean())


def score(outcomes: ClassOutcomes, weights: NDArray[np.intp] | None = None) -> Scores:
    """Compute the figures; `weights` (n,) counts each cell in a resample."""
    matrix = confusion(outcomes, weights)
    hits, true = np.diag(matrix), matrix.sum(axis=1)
    n = float(matrix.sum())
    if n == 0:
        nan = float("nan")
        return Scores(0, nan, nan, nan, nan, nan)
    occurs = true > 0
    f1 = _f1(matrix)
    w = np.ones(len(outcomes)) if weights is None else weights.astype(np.float64)
    accepted = float((w * outcomes.accepted).sum())
    right = float((w * (outcomes.accepted & outcomes.accepted_right)).sum())
    return Scores(
        n=round(n),
        accuracy=float(hits.sum() / n),
        macro_f1=float(f1[occurs].mean()),
        balanced_accuracy=float(_ratio(hits, true)[occurs].mean()),
        coverage=accepted / n,
        accepted_accuracy=right / accepted if accepted else float("nan"),
    )


def label_scores(outcomes: ClassOutcomes) -> dict[str, LabelScores]:
    """Return precision, recall and F1 of every label in the truth."""
    matrix = confusion(outcomes)
    hits, true, given = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    precision, recall = _ratio(hits, given), _ratio(hits, true)
    f1 = _f1(matrix)
    return {
        name: LabelScores(float(precision[i]), float(recall[i]), float(f1[i]), int(true[i]))
        for i, name in enumerate(outcomes.labels)
        if true[i] > 0
    }


def class_outcomes(
    truths: Sequence[str],
    results: Sequence[CellResult],
    taxonomy: Taxonomy,
    closed: bool = False,
    vocabulary: Sequence[str] | None = None,
) -> ClassOutcomes:
    """Compare true labels (any nodes) with classifications.

    The best guess is the class with most probability: of the data set's own deepest classes, whose
    leaves are summed, and every other leaf of the classifier; `closed` leaves those others out, as
    if the classifier were given the classes of the set. Where a result has no probabilities its
    label is the guess. `vocabulary` names the classes of the set; those that occur if left out.
    """
    vocabulary = tuple(dict.fromkeys([*(vocabulary or ()), *truths]))
    atoms = _atoms(vocabulary, taxonomy, closed)
    held = _held(results, atoms, taxonomy)
    labels: dict[str, int] = {name: i for i, name in enumerate(_in_tree_order(truths, taxonomy))}
    n = len(truths)
    predicted = np.zeros(n, dtype=np.intp)
    confidence, squared = np.full(n, np.nan), np.full(n, np.nan)
    accepted, right = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    under = {t: np.asarray([taxonomy.is_under(a, t) for a in atoms]) for t in vocabulary}
    for i, (truth, result) in enumerate(zip(truths, results, strict=True)):
        guess, confidence[i] = result.label, result.label_confidence
        if result.probabilities:
            guess, confidence[i] = atoms[int(np.argmax(held[i]))], float(held[i].max())
            own = held[i][under[truth]].sum()
            squared[i] = (1 - own) ** 2 + (held[i][~under[truth]] ** 2).sum()
        name = _counts_as(guess, truth, vocabulary, taxonomy)
        predicted[i] = labels.setdefault(name, len(labels))
        right[i] = taxonomy.is_under(result.label, truth)
        accepted[i] = right[i] or not taxonomy.is_under(truth, result.label)
    codes = np.asarray([labels[t] for t in truths], dtype=np.intp)
    cells = np.arange(n)
    return ClassOutcomes(
        tuple(labels), codes, predicted, confidence, accepted, right, squared, cells
    )


def _in_tree_order(names: Iterable[str], taxonomy: Taxonomy) -> list[str]:
    present = set(names)
    return [name for name in taxonomy.names if name in present]


def _atoms(vocabulary: Sequence[str], taxonomy: Taxonomy, closed: bool) -> tuple[str, ...]:
    """Return classes that share no leaf: the deepest of the vocabulary, and other leaves."""
    deepest = [
        v for v in vocabulary if not any(v != o and taxonomy.is_under(o, v) for o in vocabulary)
    ]
    covered = {leaf for name in deepest for leaf in taxonomy.leaves_under(name)}
    others = [leaf for leaf in taxonomy.leaves if leaf not in covered]
    if closed:
        others = [o for o in others if any(taxonomy.is_under(o, v) for v in vocabulary)]
    return tuple(_in_tree_order([*deepest, *others], taxonomy))


def _held(results: Sequence[CellResult], atoms: Sequence[str], taxonomy: Taxonomy) -> Floats:
    """Sum each result's leaf probabilities by atom, shape (n, atoms)."""
    home = {leaf: i for i, atom in enumerate(atoms) for leaf in taxonomy.leaves_under(atom)}
    held = np.zeros((len(results), len(atoms)))
    for row, result in zip(held, results, strict=True):
        for leaf, p in result.probabilities.items():
            if leaf in home:
                row[home[leaf]] += p
    return held


def _counts_as(guess: str, truth: str, vocabulary: Sequence[str], taxonomy: Taxonomy) -> str:
    """Return the label a guess counts as: the truth if under it, else the data set's class."""
    if taxonomy.is_under(guess, truth):
        return truth
    for name in reversed(taxonomy.path(guess)):
        if name in vocabulary:
            return name
    return guess


def attribute_outcomes(
    attribute: Attribute, truths: Sequence[str | None], results: Sequence[CellResult]
) -> ClassOutcomes:
    """Compare one attribute's true values (`None` is unknown: left out) with predictions.

    Cells without a prediction of this attribute are left out too.
    """
    rows = [
        (i, attribute.index(value), result.attributes[attribute.name])
        for i, (value, result) in enumerate(zip(truths, results, strict=True))
        if value is not None
        and attribute.name in result.attributes
        and (result.attributes[attribute.name].probabilities or _said(result, attribute))
    ]
    n, k = len(rows), len(attribute.values)
    held = np.zeros((n, k))
    given = np.full(n, -1, dtype=np.intp)
    for row, (_, _, answer) in enumerate(rows):
        for j, value in enumerate(attribute.values):
            held[row, j] = answer.probabilities.get(value, 0.0)
        if answer.value is not None:
            given[row] = attribute.index(answer.value)
            if not answer.probabilities:
                held[row, given[row]] = answer.probability
    truth = np.asarray([t for _, t, _ in rows], dtype=np.intp)
    exact = np.eye(k)[truth] if n else np.zeros((0, k))
    return ClassOutcomes(
        attribute.values,
        truth,
        held.argmax(axis=1).astype(np.intp),
        held.max(axis=1, initial=0.0),
        given >= 0,
        given == truth,
        np.asarray(((held - exact) ** 2).sum(axis=1)),
        np.asarray([i for i, _, _ in rows], dtype=np.intp),
    )


def _said(result: CellResult, attribute: Attribute) -> bool:
    return result.attributes[attribute.name].value is not None


@dataclass(frozen=True)
class MajorityBaseline:
    """Baseline predictions of one attribute that use no pixels.

    Attributes:
        overall: the commonest value.
        by_class: the commonest value of each class.
    """

    overall: str
    by_class: Mapping[str, str]


def majorities(
    attribute: Attribute, pairs: Iterable[tuple[str | None, str | None]]
) -> MajorityBaseline:
    """Learn the commonest values from (class, value) pairs; unknown values are left out.

    Of equally common values the one the schema names first is taken.
    """
    overall: Counter[str] = Counter()
    by_class: dict[str, Counter[str]] = {}
    for label, value in pairs:
        if value is not None:
            overall[value] += 1
            if label is not None:
                by_class.setdefault(label, Counter())[value] += 1

    def commonest(counts: Counter[str]) -> str:
        return max(attribute.values, key=lambda value: counts[value])

    return MajorityBaseline(
        commonest(overall), {label: commonest(counts) for label, counts in by_class.items()}
    )


def known_pairs(cells: Iterable[Cell], attribute: Attribute) -> list[tuple[str | None, str | None]]:
    """Return (class, value) of cells, for `majorities`."""
    return [(c.label, c.attributes.get(attribute.name)) for c in cells if not c.ignore]


def majority_baseline(outcomes: ClassOutcomes, learnt: MajorityBaseline) -> ClassOutcomes:
    """Predict the commonest value for every cell."""
    answer = outcomes.labels.index(learnt.overall)
    return outcomes.guessing(np.full(len(outcomes), answer, dtype=np.intp))


def class_only_baseline(
    outcomes: ClassOutcomes, classes: Sequence[str | None], learnt: MajorityBaseline
) -> ClassOutcomes:
    """Predict the commonest value of its true class for every cell; `classes` is by row."""
    answers = [learnt.by_class.get(c or "", learnt.overall) for c in classes]
    codes = np.asarray([outcomes.labels.index(a) for a in answers], dtype=np.intp)
    return outcomes.guessing(codes)
