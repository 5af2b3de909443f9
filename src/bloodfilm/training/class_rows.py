"""Rows of weights for new classes on descriptions of cells that do not change.

A cell's class is decided by logits: those that the classifier had, and one for each class that is
added. Each added class is a row of weights on the description. The rows are fitted together, by
maximum likelihood with a penalty, on the cells that a user brings and on exemplars of what was
known; the old logits enter as they are. What has no row stays as it was.

Descriptions are whitened first by their covariance within the known classes, over all
acquisitions: what varies within a class from microscope to microscope counts little then. (The
shared covariance of linear discriminant analysis on frozen features, as in Hayes and Kanan 2020,
Goswami et al. 2023.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.errors import ConfigError

SHRINKAGE = 0.1
"""Share of a multiple of the identity in the covariance that descriptions are whitened by."""
PENALTY = 0.1
"""Of the squared weights. From 0.01 to 1 it hardly matters, as descriptions are whitened."""
FOLDS = 5
MIN_GROUPS = 3
"""Groups of each added class from which on whole groups are held out."""
STEPS = 200
_FOLD = 71
"""Random-stream id of the folds."""


@dataclass(frozen=True)
class DescribedCells:
    """Cells to fit rows on.

    Attributes:
        description: (n, size).
        known: (n, leaves) log probabilities of the classes as the classifier had them; minus
            infinity for one that it could not name.
        allowed: (n, leaves) which classes each label stands for.
        label: (n,) number of each cell's label.
        cell: (n,) number of the cell that each row is a view of.
        group: (n,) patient or film; cells of one number are never on both sides in
            cross-validation, where there are enough groups.
        old: (n,) whether a cell is an exemplar of what was known.
        share: (n,) 1, or the part of it that one of several views of a cell has.
        view: (n,) 0 for a cell as it is; above 0 for views that are varied, which are fitted on and
            never judged by.
    """

    description: Floats
    known: Floats
    allowed: Bools
    label: NDArray[np.int64]
    cell: NDArray[np.int64]
    group: NDArray[np.int64]
    old: Bools
    share: Floats
    view: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.description)

    def take(self, chosen: Bools | NDArray[np.int64]) -> "DescribedCells":
        """Return some of the cells."""
        return DescribedCells(*(getattr(self, name)[chosen] for name in vars(self)))

    def join(self, other: "DescribedCells") -> "DescribedCells":
        """Return the cells of both; labels and groups must be numbered together."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in vars(self)]
        return DescribedCells(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class Whitening:
    """A linear map under which cells of one known class vary alike in every direction.

    Attributes:
        mean: (size,) of the classes' means.
        matrix: (size, size).
    """

    mean: Floats
    matrix: Floats

    @classmethod
    def of(cls, cells: DescribedCells, shrinkage: float = SHRINKAGE) -> "Whitening":
        """Return the map of some cells, every label counting alike.

        Raises:
            ConfigError: if no label has two cells.
        """
        means, scatters = [], []
        for label in np.unique(cells.label):
            rows = cells.description[cells.label == label]
            means.append(rows.mean(0))
            if len(rows) > 1:
                centred = rows - rows.mean(0)
                scatters.append(centred.T @ centred / len(rows))
        if not scatters:
            raise ConfigError("exemplars: two cells of some class are needed to see how it varies")
        covariance = np.mean(scatters, axis=0)
        size = len(covariance)
        middle = np.trace(covariance) / size or 1.0
        covariance = (1 - shrinkage) * covariance + shrinkage * middle * np.eye(size)
        values, vectors = np.linalg.eigh(covariance)
        return cls(np.mean(means, axis=0), vectors / np.sqrt(np.maximum(values, 1e-12)))

    def __call__(self, description: Floats) -> Floats:
        """Return descriptions (n, size), whitened."""
        return np.asarray((description - self.mean) @ self.matrix)

    def undo(self, weights: Floats, bias: float) -> tuple[Floats, float]:
        """Return the row on descriptions that is equal to a row on whitened ones."""
        row = self.matrix @ weights
        return row, float(bias - self.mean @ row)


@dataclass(frozen=True)
class AddedRows:
    """Rows on whitened descriptions.

    Attributes:
        leaves: the class of each row, its place among the leaves.
        new: whether the row is a class that could not be named before.
        weights: (rows, size); bias: (rows,).
    """

    leaves: tuple[int, ...]
    new: tuple[bool, ...]
    weights: Floats
    bias: Floats

    def scores(self, whitened: Floats) -> Floats:
        """Return (n, rows) what each row gives."""
        return np.asarray(whitened @ self.weights.T + self.bias)

    def scaled(self, factors: Sequence[float], shifts: Sequence[float]) -> "AddedRows":
        """Return rows whose scores are multiplied by factors, then shifted."""
        factor = np.asarray(factors, dtype=np.float64)
        bias = self.bias * factor + np.asarray(shifts, dtype=np.float64)
        return replace(self, weights=self.weights * factor[:, None], bias=bias)


def log_probabilities(known: Floats, scores: Floats, rows: AddedRows) -> Floats:
    """Return the log probabilities (n, leaves) of cells with added classes.

    Args:
        known: (n, leaves) log probabilities as they were.
        scores: (n, rows) of the added classes.
        rows: which classes these are. The score of a new class is its log odds against all known
            ones together; that of a known class is added to its logit.

    >>> known = np.log([[0.8, 0.2, 1e-300]])
    >>> rows = AddedRows((2,), (True,), np.zeros((1, 1)), np.zeros(1))
    >>> np.exp(log_probabilities(known, np.log([[3.0]]), rows)).round(2).tolist()
    [[0.2, 0.05, 0.75]]
    """
    logits = known.copy()
    total = _log_sum(known)
    for place, (leaf, new) in enumerate(zip(rows.leaves, rows.new, strict=True)):
        base = total if new else logits[:, leaf]
        logits[:, leaf] = base + scores[:, place]
    return np.asarray(logits - _log_sum(logits)[:, None])


def _log_sum(logits: Floats) -> Floats:
    most = logits.max(1)
    return np.asarray(most + np.log(np.exp(logits - most[:, None]).sum(1)))


def label_weights(cells: DescribedCells) -> Floats:
    """Return weights (n,) in sum 1 under which every label counts alike."""
    _, place = np.unique(cells.label, return_inverse=True)
    sums = np.bincount(place.ravel(), cells.share)
    return np.asarray(cells.share / sums[place.ravel()] / len(sums))


def fit_rows(
    cells: DescribedCells,
    whitened: Floats,
    added: Sequence[tuple[int, bool]],
    penalty: float = PENALTY,
) -> AddedRows:
    """Fit rows by penalised maximum likelihood.

    Without labels at inner nodes the problem is convex, so there is one solution.

    Args:
        cells: to fit on.
        whitened: (n, size) their descriptions, whitened.
        added: by row, the leaf and whether it is new.
        penalty: half of it times the squared weights is added to the mean loss.
    """
    leaves = tuple(leaf for leaf, _ in added)
    new = torch.tensor([is_new for _, is_new in added])
    x = torch.tensor(whitened, dtype=torch.float64)
    known = torch.tensor(cells.known, dtype=torch.float64)
    total = torch.logsumexp(known, 1, keepdim=True)
    places = torch.tensor(leaves)
    base = torch.where(new, total, known[:, places])
    allowed = torch.tensor(cells.allowed)
    weight = torch.tensor(label_weights(cells), dtype=torch.float64)
    parameters = torch.zeros(len(leaves), x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [parameters], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-7
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        scores = x @ parameters[:, :-1].T + parameters[:, -1]
        logits = known.index_copy(1, places, base + scores)
        of_label = torch.logsumexp(logits.masked_fill(~allowed, -torch.inf), 1)
        value = (weight * (torch.logsumexp(logits, 1) - of_label)).sum()
        value = value + penalty / 2 * parameters[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    found = parameters.detach().numpy()
    return AddedRows(leaves, tuple(bool(n) for n in new), found[:, :-1].copy(), found[:, -1].copy())


# ---- cross-validation ----------------------------------------------------------------------------


@dataclass(frozen=True)
class FittedRows:
    """Rows for added classes, and what held-out cells say of them.

    Attributes:
        rows: on whitened descriptions, calibrated, fitted on all cells.
        plain: numbers of the cells that are judged by: those that are not varied views.
        held_out: (plain, leaves) log probabilities of each as if it had not been fitted on.
        slopes: by row, what calibration multiplied its scores by; 1 for a class that was known.
        by_group: whether whole groups were held out.
    """

    rows: AddedRows
    plain: NDArray[np.int64]
    held_out: Floats
    slopes: tuple[float, ...]
    by_group: bool


def fit_added_rows(
    cells: DescribedCells,
    whitening: Whitening,
    added: Sequence[tuple[int, bool]],
    seed: int = 0,
    odds: Mapping[int, float] | None = None,
) -> FittedRows:
    """Fit rows for added classes, and calibrate them by cross-validation.

    The score of a new class is scaled and shifted so that on held-out cells its probability is
    honest (Platt 1999, with his targets: of ten cells that are all found none is called surer than
    eleven in twelve). Cells of a group, and all views of a cell, are held out together.

    Args:
        cells: of the user, and exemplars of what was known.
        whitening: of the exemplars.
        added: by row, the leaf and whether it is new.
        seed: of the folds.
        odds: by leaf, what the odds of a new class are multiplied by at last.
    """
    whitened = whitening(cells.description)
    fold, by_group = assign_folds(cells, [leaf for leaf, _ in added], seed)
    plain = np.flatnonzero(cells.view == 0)
    scores = np.zeros((len(cells), len(added)))
    for number in np.unique(fold):
        kept = fold != number
        rows = fit_rows(cells.take(kept), whitened[kept], added)
        scores[~kept] = rows.scores(whitened[~kept])
    weights = label_weights(cells.take(plain))
    factors, shifts = [], []
    for place, (leaf, new) in enumerate(added):
        of_class = cells.allowed[plain, leaf] & ~cells.old[plain]
        slope, shift = fit_sigmoid(scores[plain, place], of_class, weights) if new else (1.0, 0.0)
        factors.append(slope)
        shifts.append(shift + float(np.log((odds or {}).get(leaf, 1.0))))
    rows = fit_rows(cells, whitened, added).scaled(factors, shifts)
    judged = scores[plain] * np.asarray(factors) + np.asarray(shifts)
    held_out = log_probabilities(cells.known[plain], judged, rows)
    return FittedRows(rows, plain, held_out, tuple(factors), by_group)


def assign_folds(
    cells: DescribedCells, leaves: Sequence[int], seed: int
) -> tuple[NDArray[np.int64], bool]:
    """Return the fold (n,) of each cell, and whether groups decide it.

    Where some added class has fewer than `MIN_GROUPS` groups, cells are spread one by one: holding
    out a whole group would leave too little to learn it from.
    """
    few = any(
        len(np.unique(cells.group[~cells.old & cells.allowed[:, leaf]])) < MIN_GROUPS
        for leaf in leaves
    )
    unit = cells.cell if few else cells.group
    rng = np.random.default_rng([seed, _FOLD])
    sizes = np.bincount(cells.label)
    filled = np.zeros((FOLDS, len(sizes)))
    fold = np.full(len(cells), -1, dtype=np.int64)
    for label in np.argsort(sizes, kind="stable"):
        of_label = (cells.label == label) & (fold < 0)
        for number in rng.permutation(np.unique(unit[of_label])):
            of_unit = (unit == number) & (fold < 0)
            fold[of_unit] = place = int(np.argmin(filled[:, label]))
            filled[place] += np.bincount(cells.label[of_unit], minlength=len(sizes))
    return fold, not few


def fit_sigmoid(scores: Floats, positive: Bools, weights: Floats) -> tuple[float, float]:
    """Return factor and shift under which scores are honest log odds (Platt 1999).

    With his targets, which allow for how few cells there are. The factor is never below 0: a score
    that is higher for other cells says nothing.

    Args:
        scores: (n,) of held-out cells.
        positive: (n,) whether each is of the class.
        weights: (n,) of the cells.

    >>> scores, positive = np.array([-4.0, -3, -2, 2, 3, 4]), np.array([0, 0, 0, 1, 1, 1], bool)
    >>> factor, shift = fit_sigmoid(scores, positive, np.ones(6))
    >>> round(float(1 / (1 + np.exp(-(factor * 3 + shift)))), 1)  # three of three: 4 / 5
    0.8
    """
    yes, no = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (yes + 1) / (yes + 2), 1 / (no + 2))
    spread = float(np.sqrt(np.mean(scores**2))) or 1.0
    x = np.stack([scores / spread, np.ones(len(scores))], axis=1)
    w = weights / weights.sum()
    at = np.zeros(2)

    def loss(place: Floats) -> float:
        logits = x @ place
        return float((w * (np.logaddexp(0, logits) - target * logits)).sum())

    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-(x @ at)))
        gradient = x.T @ (w * (p - target))
        if np.abs(gradient).max() < 1e-9:
            break
        curvature = x.T @ (x * (w * p * (1 - p))[:, None]) + 1e-9 * np.eye(2)
        step, size = np.linalg.solve(curvature, gradient), 1.0
        while size > 1e-6 and loss(at - size * step) > loss(at):
            size /= 2
        at = at - size * step
    if at[0] <= 0:
        rate = float((w * target).sum())
        return 0.0, float(np.log(rate / (1 - rate)))
    return float(at[0] / spread), float(at[1])
