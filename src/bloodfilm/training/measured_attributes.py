"""Fit how attributes follow a cell's measures and its class, and how sure that makes of them.

Every value of an attribute counts the same in the regression on measures, and within a value every
patient as the root of the number of their cells. A class's table holds the plain shares of its
training cells, drawn towards even shares by `PRIOR_CELLS` cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bloodfilm.core.arrays import Bools, Floats
from bloodfilm.core.attributes import Schema
from bloodfilm.core.errors import ConfigError
from bloodfilm.evaluation.calibration import fit_temperature
from bloodfilm.inference.classifier import softmax
from bloodfilm.inference.manifest import MeasuredAttribute
from bloodfilm.inference.measured_attributes import LEAST_ANSWER, log_odds, standardised
from bloodfilm.training.corrections import fit_correction, value_balance

LEAST_CELLS = 10
"""Measured cells that a value needs."""
LEAST_GROUPS = 3
"""Patients that are needed to leave one out: the others then hold more than one."""
PENALTY = 0.01
PRIOR_CELLS = 2.0
LEAST_SPREAD = 1e-6
LEAST_TEMPERATURE = 1.0
NETWORK_WEIGHTS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0)
LEAST_GAIN = 3.0
"""Of the logarithm of a likelihood: a gain by chance, of one number chosen, is smaller."""
TINY = 1e-300
DIGITS = 5

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class MeasuredCells:
    """Measured cells whose attributes are known, at least in part.

    Attributes:
        measures: (n, m) as `measures_of` gives them, NaN where not measured.
        codes: (n, attributes) value index, -1 where unknown.
        allowed: (n, leaves) the leaves each label stands for.
        groups: (n,) number of the patient each is from; cells of unknown patients are one group of
            their data set.
        probabilities: (n, leaves) of their classes according to a classifier.
        answers: (n, schema.width) its probabilities of the values, attribute after attribute.
    """

    measures: Floats
    codes: Ints
    allowed: Bools
    groups: Ints
    probabilities: Floats
    answers: Floats

    def __len__(self) -> int:
        return len(self.measures)

    def take(self, chosen: Bools | Ints) -> "MeasuredCells":
        """Return some of the cells."""
        return MeasuredCells(
            self.measures[chosen],
            self.codes[chosen],
            self.allowed[chosen],
            self.groups[chosen],
            self.probabilities[chosen],
            self.answers[chosen],
        )


def fit_measured(
    cells: MeasuredCells, schema: Schema, name: str, leaves: Sequence[str]
) -> MeasuredAttribute:
    """Return how an attribute follows measures and class; its temperature is 1.

    Args:
        cells: to fit on; those whose value is unknown are left out.
        schema: of their codes.
        name: of the attribute.
        leaves: the classes.

    Raises:
        ConfigError: if fewer than two values have `LEAST_CELLS` cells.
    """
    column, attribute = schema.names.index(name), schema[name]
    codes = cells.codes[:, column]
    count = np.bincount(codes[codes >= 0], minlength=len(attribute.values))
    taught = np.flatnonzero(count >= LEAST_CELLS)
    if len(taught) < 2:
        raise ConfigError(
            f"{attribute.name!r} is known of too few measured cells; two values need "
            f"{LEAST_CELLS} each"
        )
    known = cells.take(np.isin(codes, taught))
    values = np.searchsorted(taught, known.codes[:, column])
    seen = np.isfinite(known.measures)
    total = np.maximum(seen.sum(0), 1)
    centre = np.where(seen, known.measures, 0.0).sum(0) / total
    off = np.where(seen, known.measures - centre, 0.0)
    spread = np.maximum(np.sqrt((off**2).sum(0) / total), LEAST_SPREAD)
    x = torch.from_numpy(standardised(known.measures, centre, spread))
    weight, bias = fit_correction(
        x,
        torch.zeros(len(x), len(taught), dtype=torch.float64),
        torch.from_numpy(np.eye(len(taught), dtype=bool)[values]),
        torch.from_numpy(value_balance(values, known.groups)),
        PENALTY,
    )
    return MeasuredAttribute(
        values=tuple(attribute.values[i] for i in taught),
        centre=_rounded(centre),
        spread=tuple(max(v, LEAST_SPREAD) for v in _rounded(spread)),
        weights=tuple(_rounded(row) for row in weight.numpy()),
        bias=_rounded(bias.numpy()),
        classes=_class_shares(known.allowed, values, len(taught), leaves),
        temperature=1.0,
        cells=len(known),
    )


def _class_shares(
    allowed: Bools, values: Ints, count: int, leaves: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """Return the share of each value by class; a label above the leaves counts for each in part."""
    part = allowed / np.maximum(allowed.sum(1, keepdims=True), 1)
    cells = part.T @ np.eye(count)[values]
    shares = (cells + PRIOR_CELLS / count) / (cells.sum(1, keepdims=True) + PRIOR_CELLS)
    return {
        leaf: _rounded(row)
        for leaf, row, known in zip(leaves, shares, cells.sum(1) > 0, strict=True)
        if known
    }


def _rounded(values: Floats) -> tuple[float, ...]:
    return tuple(round(float(v), DIGITS) for v in values)


def left_out_logits(
    cells: MeasuredCells, schema: Schema, name: str, leaves: Sequence[str]
) -> Floats:
    """Return logits (n, values of the attribute) of every cell by a fit without its patient.

    Minus infinity for values that the other patients do not have enough cells of; NaN in all of a
    row where the others know fewer than two values.
    """
    logits = np.full((len(cells), len(schema[name].values)), np.nan)
    for group in np.unique(cells.groups):
        own = cells.groups == group
        try:
            model = fit_measured(cells.take(~own), schema, name, leaves)
        except ConfigError:
            continue
        logits[own] = answers_of(model, cells.take(own), schema, name, leaves)
    return logits


def answers_of(
    model: MeasuredAttribute,
    cells: MeasuredCells,
    schema: Schema,
    name: str,
    leaves: Sequence[str],
) -> Floats:
    """Return logits (n, values of the attribute); minus infinity for values that are not known."""
    attribute, own = schema[name], cells.answers[:, schema.slices[name]]
    logits = np.full((len(cells), len(attribute.values)), -np.inf)
    which = [attribute.index(value) for value in model.values]
    logits[:, which] = log_odds(model, cells.measures, cells.probabilities, leaves, own[:, which])
    return logits


def beside_network(
    model: MeasuredAttribute,
    held: MeasuredCells,
    schema: Schema,
    name: str,
    leaves: Sequence[str],
) -> MeasuredAttribute | None:
    """Return a model with the weight of the network's own answer that held-out cells choose.

    Of `NETWORK_WEIGHTS` the one whose answers, at their best temperature, give the true values the
    highest likelihood. `None` where that is not higher than the network's alone by a factor of
    exp(`LEAST_GAIN`) over all cells, and where fewer than two values have `LEAST_CELLS` held-out
    cells.

    Args:
        model: fitted to cells of training; so is the network.
        held: cells that neither has seen.
        schema, name, leaves: as in `fit_measured`.
    """
    column, attribute = schema.names.index(name), schema[name]
    known = [attribute.index(value) for value in model.values]
    rows = np.isin(held.codes[:, column], known)
    cells = held.take(rows)
    codes = cells.codes[:, column]
    if (np.bincount(codes, minlength=1) >= LEAST_CELLS).sum() < 2:
        return None
    own = np.log(np.maximum(cells.answers[:, schema.slices[name]], LEAST_ANSWER))
    alone = np.full_like(own, -np.inf)
    alone[:, known] = own[:, known]
    best = _judged(alone, codes)[0] + LEAST_GAIN / len(codes)
    chosen = None
    for weight in NETWORK_WEIGHTS:
        tried = model.model_copy(update={"network": weight})
        likelihood, temperature = _judged(answers_of(tried, cells, schema, name, leaves), codes)
        if likelihood > best:
            best = likelihood
            chosen = tried.model_copy(update={"temperature": round(temperature, 4)})
    return chosen


def _judged(logits: Floats, codes: Ints) -> tuple[float, float]:
    """Return the mean log likelihood at the best temperature, and that temperature."""
    temperature = fit_temperature(logits, codes)
    p = softmax(logits, temperature)[np.arange(len(codes)), codes]
    return float(np.log(np.maximum(p, TINY)).mean()), temperature


def temperature_of(logits: Floats, codes: Ints) -> float:
    """Return the temperature of an attribute's logits on left-out cells, 1 or above.

    Cells count whose value the fit without their patient knew; where no cell can judge, it is 1.
    Answers are never made surer than the fit is: a few patients cannot show that.
    """
    known = (codes >= 0) & ~np.isnan(logits).any(1)
    rows = np.flatnonzero(known)
    rows = rows[np.isfinite(logits[rows, codes[rows]])]
    if len(np.unique(codes[rows])) < 2:
        return 1.0
    return max(round(fit_temperature(logits[rows], codes[rows]), 4), LEAST_TEMPERATURE)
