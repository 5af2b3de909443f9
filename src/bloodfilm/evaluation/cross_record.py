"""A cross-domain evaluation as a record: JSON for machines, tables for people."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from bloodfilm.core.text import printable
from bloodfilm.evaluation.cross_domain import FIGURES, Figure
from bloodfilm.evaluation.cross_matrix import CrossMatrix, Means
from bloodfilm.evaluation.intervals import Interval
from bloodfilm.evaluation.record import plain, plain_table, with_interval

FORMAT, VERSION = "bloodfilm-cross-evaluation", 1


@dataclass(frozen=True)
class CrossEvaluation:
    """Results and settings of a cross-domain evaluation.

    Attributes:
        program: that made it, with its version.
        settings: options of the user.
        matrix: the figures.
        notes: messages, one line each.
        failures: fields that failed, by method, and why.
    """

    program: str
    settings: Mapping[str, Any]
    matrix: CrossMatrix
    notes: Sequence[str] = ()
    failures: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the record as plain data; a figure that does not exist is `None`."""
        m = self.matrix
        record = {
            "format": FORMAT,
            "version": VERSION,
            "program": self.program,
            "settings": dict(self.settings),
            "bootstrap": asdict(m.resampling),
            "figures": [asdict(figure) for figure in FIGURES],
            "methods": [
                {
                    "name": x.name,
                    **x.subject,
                    "trained_on": {k: list(v) for k, v in x.trained_on.items()},
                }
                for x in m.methods
            ],
            "domains": [
                {
                    "name": d.name,
                    "dataset": d.dataset[0],
                    "resampled": {"unit": d.unit, "groups": len(set(d.groups))},
                }
                for d in m.domains
            ],
            "baseline": None if m.baseline is None else m.methods[m.baseline].name,
            "cells": [self._cell(*pair) for pair in sorted(m.cells)],
            "means": [
                {"method": m.methods[i].name, "figures": {k: _means(v) for k, v in of.items()}}
                for i, of in m.means.items()
            ],
            "notes": list(self.notes),
            "failures": {name: dict(files) for name, files in self.failures.items()},
        }
        return {key: plain(value) for key, value in record.items()}

    def _cell(self, method: int, domain: int) -> dict[str, Any]:
        m, pair = self.matrix, (method, domain)
        fields, cells, classed = m.counts[pair]
        return {
            "method": m.methods[method].name,
            "domain": m.domains[domain].name,
            "new_to": dict(m.new[pair]),
            "fields": fields,
            "labelled_cells": cells,
            "cells_with_class": classed,
            "attributes": list(m.attributes[pair]),
            "figures": {key: asdict(interval) for key, interval in m.cells[pair].items()},
        }


def _means(means: Means) -> dict[str, Any]:
    return {
        name: None if interval is None else asdict(interval)
        for name, interval in (
            ("in_domain", means.in_domain),
            ("out_of_domain", means.out_of_domain),
            ("gain", means.gain),
            ("gain_everywhere", means.gain_everywhere),
        )
    }


def show_cross(evaluation: CrossEvaluation) -> RenderableType:
    """Return the matrix as one table per figure, with explanations."""
    m = evaluation.matrix
    parts: list[RenderableType] = [
        Text(
            f"{len(m.methods)} methods on {len(m.domains)} domains; * the model was trained on "
            "data of this domain",
            style="bold",
        )
    ]
    parts.extend(_table_of(m, figure) for figure in FIGURES if m.has(figure))
    parts.extend(_explanations(evaluation))
    return Group(*parts)


def _table_of(m: CrossMatrix, figure: Figure) -> RenderableType:
    means = [m.means[i][figure.key] for i in range(len(m.methods))]
    columns = [
        (name, [getattr(x, key) for x in means])
        for name, key in (("in-domain", "in_domain"), ("out-of-domain", "out_of_domain"))
    ]
    gains = [x.gain or x.gain_everywhere for x in means]
    columns = [(name, values) for name, values in columns if any(values)]
    heads = ["domain", *(printable(x.name) for x in m.methods)]
    shown = plain_table(figure.title, *heads)
    for d, domain in enumerate(m.domains):
        shown.add_row(
            printable(domain.name), *(_entry(m, (i, d), figure) for i in range(len(m.methods)))
        )
    for name, values in columns:
        shown.add_row(
            f"mean {name}", *("–" if v is None else with_interval(v) for v in values), style="bold"
        )
    if any(gains) and m.baseline is not None:
        shown.add_row(
            printable(f"gain over {m.methods[m.baseline].name}"),
            *map(_percent, gains),
            style="bold",
        )
    return shown


def _entry(m: CrossMatrix, pair: tuple[int, int], figure: Figure) -> str:
    if pair not in m.cells:
        return ""
    text = with_interval(m.cells[pair][figure.key])
    return text if text == "–" or m.new[pair][figure.part] else f"{text}*"


def _percent(interval: Interval | None) -> str:
    if interval is None or not math.isfinite(interval.value):
        return "–"
    text = f"{interval.value:+.1%}"
    if math.isfinite(interval.low):
        text += f" [{interval.low:+.1%}, {interval.high:+.1%}]"
    return text


def _explanations(evaluation: CrossEvaluation) -> Iterator[RenderableType]:
    m = evaluation.matrix
    for domain in m.domains:
        counts = next((m.counts[p] for p in m.counts if m.domains[p[1]] is domain), None)
        if counts is not None:
            fields, cells, classed = counts
            yield Text(
                f"{domain.name}: {fields} fields, {cells} labelled cells, {classed} with a class; "
                f"resampled by {domain.unit}: {len(set(domain.groups))} groups"
            )
    if m.baseline is not None:
        yield Text(
            "gain: relative to the baseline, in the mean over the domains new to both methods "
            "(over all domains if there is none)"
        )
    r = m.resampling
    if r.n:
        yield Text(f"[low, high]: {r.level:.0%} bootstrap interval, {r.n} resamples, seed {r.seed}")
    yield from (Text(f"note: {line}") for line in evaluation.notes)
    for name, files in evaluation.failures.items():
        yield Text(f"{name}: {len(files)} fields failed; their cells count as missed")
