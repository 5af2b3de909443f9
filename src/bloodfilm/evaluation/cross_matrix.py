"""A matrix of methods and domains: figures, means over domains, gains over a baseline.

Intervals resample patients (or slides; fields where neither is known) within every domain at once,
so that means over domains and gains of one method over another have intervals, too: all methods are
scored on the same resamples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.errors import DataError
from bloodfilm.core.field import Field
from bloodfilm.core.progress import NoProgress, Progress, track
from bloodfilm.evaluation.cross_domain import FIGURES, KEYS, Figure, Outcomes, Part
from bloodfilm.evaluation.evaluate import Resampling
from bloodfilm.evaluation.intervals import Interval, group_fields, resamples

RESAMPLING = Resampling()


@dataclass(frozen=True)
class Method:
    """A way to find and name cells.

    Attributes:
        name: of the method.
        subject: bundle or file, analysis mode: what it is, as plain data.
        trained_on: by network, the names of the data sets it was trained on.
    """

    name: str
    subject: Mapping[str, str | int | float]
    trained_on: Mapping[Part, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class TestDomain:
    """A part of the test data with one origin.

    Attributes:
        name: of the domain.
        dataset: name of its data set; other names by which training records may refer to it
            (microscopes) follow.
        groups: of each field, what is resampled together.
        unit: what a group is, in words.
    """

    __test__ = False  # for pytest: this is no test

    name: str
    dataset: tuple[str, ...]
    groups: tuple[str, ...]
    unit: str

    @classmethod
    def of_fields(cls, name: str, dataset: str, fields: Sequence[Field]) -> "TestDomain":
        """Return the domain that some fields of a data set make."""
        groups, unit = group_fields(fields)
        scopes = {f.domain.microscope for f in fields} - {None}
        return cls(name, (dataset, *sorted(map(str, scopes))), tuple(groups), unit)


@dataclass(frozen=True)
class Means:
    """A method's mean over domains.

    Attributes:
        in_domain, out_of_domain: over domains that the figure's network was, or was not, trained
            on; `None` without such a domain.
        gain: relative gain over the baseline, over the domains new to both (0.235 is 23.5 %).
        gain_everywhere: the same over all domains.
    """

    in_domain: Interval | None
    out_of_domain: Interval | None
    gain: Interval | None
    gain_everywhere: Interval | None


@dataclass(frozen=True)
class CrossMatrix:
    """The figures of every method on every domain.

    Attributes:
        methods, domains: in order.
        cells: (method, domain) indices -> figure key -> interval; a pair that was not evaluated is
            absent.
        new: (method, domain) -> network -> whether the domain is new to it.
        means: method index -> figure key -> means.
        baseline: index of the method that gains are relative to.
        counts: (method, domain) -> (fields, labelled cells, cells with a class).
        attributes: (method, domain) -> attributes that were scored.
        resampling: of the intervals.
    """

    methods: tuple[Method, ...]
    domains: tuple[TestDomain, ...]
    cells: Mapping[tuple[int, int], Mapping[str, Interval]]
    new: Mapping[tuple[int, int], Mapping[Part, bool]]
    means: Mapping[int, Mapping[str, Means]]
    baseline: int | None
    counts: Mapping[tuple[int, int], tuple[int, int, int]]
    attributes: Mapping[tuple[int, int], tuple[str, ...]]
    resampling: Resampling

    def has(self, figure: Figure) -> bool:
        """Whether any method has a figure on any domain."""
        return any(math.isfinite(of[figure.key].value) for of in self.cells.values())


def cross_matrix(
    methods: Sequence[Method],
    domains: Sequence[TestDomain],
    outcomes: Mapping[tuple[int, int], Outcomes],
    baseline: int | None = None,
    resampling: Resampling = RESAMPLING,
    progress: Progress | None = None,
) -> CrossMatrix:
    """Compute the matrix, its means and the gains over a baseline.

    Args:
        methods, domains: the two sides.
        outcomes: by (method, domain) index; pairs may be missing.
        baseline: index of the method that gains are relative to.
        resampling: of the intervals.
        progress: follows the resampling.

    Raises:
        DataError: if nothing was evaluated.
    """
    if not outcomes:
        raise DataError("cross evaluation: no method has a result of any domain")
    shape = (len(methods), len(domains))
    draws = _draws(shape, domains, outcomes, resampling, progress or NoProgress())
    new = {pair: _is_new(methods[pair[0]], domains[pair[1]]) for pair in np.ndindex(*shape)}
    level = resampling.level
    return CrossMatrix(
        tuple(methods),
        tuple(domains),
        {
            (m, d): {k: _interval(draws[:, m, d, i], level) for i, k in enumerate(KEYS)}
            for m, d in outcomes
        },
        new,
        {m: _means_of(m, draws, new, baseline, level) for m in range(len(methods))},
        baseline,
        {pair: (o.fields, o.cells, len(o.classes.truth)) for pair, o in outcomes.items()},
        {pair: tuple(o.attributes) for pair, o in outcomes.items()},
        resampling,
    )


def _draws(
    shape: tuple[int, int],
    domains: Sequence[TestDomain],
    outcomes: Mapping[tuple[int, int], Outcomes],
    resampling: Resampling,
    progress: Progress,
) -> Floats:
    """Return the figures (1 + resamples, methods, domains, figures); the first row is the sample.

    Domains are resampled independently of each other; within one, all methods see the same.
    """
    draws = np.full((1 + resampling.n, *shape, len(KEYS)), np.nan)
    for d, domain in track(enumerate(domains), progress, "resampling", len(domains)):
        own = [m for m in range(shape[0]) if (m, d) in outcomes]
        for m in own:
            draws[0, m, d] = outcomes[m, d].figures()
        if len(set(domain.groups)) < 2:
            draws[1:, :, d] = np.nan
            continue
        seed = resampling.seed + d
        for row, weights in enumerate(resamples(domain.groups, resampling.n, seed), 1):
            for m in own:
                draws[row, m, d] = outcomes[m, d].figures(weights)
    return draws


def _is_new(method: Method, domain: TestDomain) -> dict[Part, bool]:
    """Return for each network whether no training set bears a name of the domain."""
    names = {_plain(name) for name in domain.dataset} | {_plain(domain.name)}
    parts: tuple[Part, ...] = ("detector", "classifier")
    return {
        part: not names & {_plain(name) for name in method.trained_on.get(part, ())}
        for part in parts
    }


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").strip()


def _interval(column: Floats, level: float) -> Interval:
    """Return a figure (first) with the percentile interval of its resamples (the others)."""
    drawn = column[1:]
    defined = drawn[np.isfinite(drawn)]
    if not len(defined) or not np.isfinite(column[0]):
        return Interval(float(column[0]), float("nan"), float("nan"), 0)
    tail = 50 * (1 - level)
    low, high = np.percentile(defined, [tail, 100 - tail])
    return Interval(float(column[0]), float(low), float(high), len(drawn) - len(defined))


def _means_of(
    m: int,
    draws: Floats,
    new: Mapping[tuple[int, int], Mapping[Part, bool]],
    baseline: int | None,
    level: float,
) -> dict[str, Means]:
    found = {}
    for i, figure in enumerate(FIGURES):
        has = np.isfinite(draws[0, m, :, i])
        is_new = np.array([new[m, d][figure.part] for d in range(draws.shape[2])], dtype=bool)
        gain: list[Interval | None] = [None, None]
        if figure.rises and baseline is not None and baseline != m:
            both = has & np.isfinite(draws[0, baseline, :, i])
            to_both = is_new & [new[baseline, d][figure.part] for d in range(draws.shape[2])]
            gain = [
                _gain(draws[..., i], m, baseline, which, level) for which in (both & to_both, both)
            ]
        found[figure.key] = Means(
            _mean_over(draws[:, m, :, i], has & ~is_new, level),
            _mean_over(draws[:, m, :, i], has & is_new, level),
            *gain,
        )
    return found


def _mean_over(figures: Floats, which: Bools, level: float) -> Interval | None:
    """Return the mean over some domains of (1 + resamples, domains) figures."""
    return _interval(_row_means(figures, which), level) if which.any() else None


def _row_means(figures: Floats, which: Bools) -> Floats:
    """Return the mean of each row; a domain of one group keeps its figure in every resample."""
    chosen = figures[:, which].copy()
    fixed = ~np.isfinite(chosen[1:]).any(axis=0) if len(chosen) > 1 else np.zeros(0, dtype=bool)
    if len(chosen) > 1:
        chosen[1:, fixed] = chosen[0, fixed]
    return np.asarray(chosen.mean(axis=1))


def _gain(figures: Floats, m: int, baseline: int, which: Bools, level: float) -> Interval | None:
    """Return the relative gain of a method over the baseline in the mean over some domains."""
    if not which.any():
        return None
    own, base = (_row_means(figures[:, k], which) for k in (m, baseline))
    ratio = np.divide(own, base, out=np.full_like(own, np.nan), where=base > 0)
    return _interval(ratio - 1, level)
