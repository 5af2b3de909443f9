"""Sampling weights that balance data sets and classes."""

import numpy as np
from numpy.typing import NDArray

from bloodfilm.core.arrays import Floats
from bloodfilm.training.config import SamplingSection
from bloodfilm.training.data.cell_crops import CellCrops


def draw_weights(crops: CellCrops, sampling: SamplingSection) -> Floats:
    """Return the sampling probability of each cell, (n,), in sum 1.

    A data set of n cells weighs n ** sets (times its `repeat`), a label of m cells within it
    m ** labels; labels of different patients are different ones.
    """
    names = np.column_stack([crops.sources, crops.patients, crops.allowed])
    label = np.unique(names, axis=0, return_inverse=True)[1].ravel()
    weights = np.bincount(label).astype(float)[label] ** (sampling.labels - 1)
    for source in np.unique(crops.sources):
        of_set = crops.sources == source
        share = of_set.sum() ** sampling.sets * crops.weights[of_set].mean()
        weights[of_set] *= share / weights[of_set].sum()
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def lone_labels(crops: CellCrops) -> NDArray[np.bool_]:
    """Return which cells (n,) are of a class that no other data set has.

    A label that stands for more than half of the leaves is not a class.
    """
    named = crops.allowed & (crops.allowed.sum(1) * 2 <= crops.allowed.shape[1])[:, None]
    sets = np.unique(crops.sources)
    leaves = np.stack([named[crops.sources == s].any(0) for s in sets])
    lone = np.zeros(len(crops.sources), dtype=bool)
    for source in sets:
        others = leaves[sets != source].any(0)
        of_set = crops.sources == source
        lone[of_set] = named[of_set].any(1) & ~(named[of_set] & others).any(1)
    return lone
