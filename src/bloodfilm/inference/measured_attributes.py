"""Attributes that follow a cell's measured shape and colour, and its class.

What is measured on the outlines of a cell and its nucleus goes through a logistic regression; what
the cell's class alone tells is a table of the shares of each value among training cells of that
class. Both are taken for independent evidence, so that their probabilities multiply:
log p(value) = log softmax(weights measures + bias) + log sum over classes p(class) share(value).
The answer of the classifier's network may be a third, with a weight of its own: it has learnt from
the same cells, and is no evidence apart.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from bloodfilm.core.arrays import Floats
from bloodfilm.core.results import CellShape
from bloodfilm.inference.manifest import MeasuredAttribute, MeasuredAttributesSpec

MEASURES = (
    "log_diameter",
    "nucleus_ratio",
    "circularity",
    "nucleus_circularity",
    "lobes",
    "nucleus_red",
    "nucleus_green",
    "nucleus_blue",
    "cytoplasm_red",
    "cytoplasm_green",
    "cytoplasm_blue",
)
"""What is measured of a cell, in the order of `measures_of`."""
MOST_LOBES = 4
MOST_SPREADS = 4.0
"""A measure this many standard deviations from the mean counts as no farther."""
LEAST_ANSWER = 1e-6
"""The least probability of a value that a network's answer counts as."""
LEAST_SHARE = 1e-3
"""Added to what a class tells: a value that no training cell of it had remains possible."""


def measures_of(shape: CellShape) -> Floats:
    """Return the measures (11,) of an outlined cell; NaN for what was not seen.

    Diameter as the logarithm of micrometres, colours from 0 to 1, at most `MOST_LOBES` lobes.
    """
    circularity = shape.nucleus_circularity
    colours = [
        value
        for colour in (shape.nucleus_rgb, shape.cytoplasm_rgb)
        for value in ([np.nan] * 3 if colour is None else [channel / 255 for channel in colour])
    ]
    return np.array(
        [
            np.log(shape.diameter_um) if shape.diameter_um > 0 else np.nan,
            shape.nucleus_ratio,
            shape.circularity,
            np.nan if circularity is None else circularity,
            min(shape.lobes, MOST_LOBES),
            *colours,
        ],
        dtype=np.float64,
    )


def standardised(measures: Floats, centre: Floats, spread: Floats) -> Floats:
    """Return measures (n, m) in standard deviations from the mean; 0 where not measured.

    >>> standardised(np.array([[3.0, np.nan, 99.0]]), np.ones(3), np.full(3, 2.0)).tolist()
    [[1.0, 0.0, 4.0]]
    """
    x = (measures - centre) / spread
    return np.asarray(np.clip(np.where(np.isfinite(x), x, 0.0), -MOST_SPREADS, MOST_SPREADS))


def class_shares(model: MeasuredAttribute, leaves: Sequence[str]) -> Floats:
    """Return the share of each value (leaves, values) by class; even where no cell was known."""
    even = (1.0 / len(model.values),) * len(model.values)
    return np.array([model.classes.get(leaf, even) for leaf in leaves], dtype=np.float64)


def log_odds(
    model: MeasuredAttribute,
    measures: Floats,
    probabilities: Floats,
    leaves: Sequence[str],
    answers: Floats,
) -> Floats:
    """Return logits (n, values) of an attribute, before its temperature.

    Args:
        model: of the attribute.
        measures: (n, m) as `measures_of` gives them.
        probabilities: (n, leaves) of the classes.
        leaves: the classes.
        answers: (n, values) probabilities according to the network.
    """
    centre, spread, weights, bias = (
        np.array(part, dtype=np.float64)
        for part in (model.centre, model.spread, model.weights, model.bias)
    )
    z = standardised(measures, centre, spread) @ weights.T + bias
    z -= z.max(axis=1, keepdims=True)
    measured = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    told = probabilities @ class_shares(model, leaves)
    network = model.network * np.log(np.maximum(answers, LEAST_ANSWER))
    return np.asarray(measured + np.log(told + LEAST_SHARE) + network)


def measured_probabilities(
    spec: MeasuredAttributesSpec,
    shape: CellShape,
    probabilities: Mapping[str, float],
    answers: Mapping[str, Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """Return the probability of every value of each attribute that is measured, by attribute.

    Args:
        spec: the models.
        shape: of the cell.
        probabilities: of its classes.
        answers: of the network, by attribute the probability of each value; attributes without any
            get none here.
    """
    leaves = tuple(probabilities)
    p = np.array([[probabilities[leaf] for leaf in leaves]], dtype=np.float64)
    measures = measures_of(shape)[None]
    found = {}
    for name, model in spec.attributes.items():
        said = answers.get(name)
        if not said:
            continue
        own = np.array([[said.get(value, 0.0) for value in model.values]], dtype=np.float64)
        z = log_odds(model, measures, p, leaves, own)[0] / model.temperature
        e = np.exp(z - z.max())
        found[name] = dict(zip(model.values, (e / e.sum()).tolist(), strict=True))
    return found
