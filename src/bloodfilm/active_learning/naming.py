"""Name annotated cells whose class nobody wrote down, where a model is sure of it.

Sets that box white cells without naming them come from microscopes that no named set is from. A
classifier that names a part of their cells rightly can learn the stain and optics of all from that
part (self-training; Lee, "Pseudo-Label", ICML workshop 2013). What is annotated never changes: a
cell gets a class only below the node that it is labelled with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bloodfilm.core.field import Cell
from bloodfilm.core.taxonomy import Taxonomy
from bloodfilm.evaluation.class_granularity import PRESETS

MATURE = PRESETS["five"]
"""Classes that cells are named by unless others are given."""
LEAST_PROBABILITY = 0.9
"""Probability from which a cell gets a class: a name that is wrong is learnt, one that is missing
is not."""


@dataclass(frozen=True)
class NamingRules:
    """When a cell gets a class.

    Attributes:
        classes: nodes of the taxonomy that cells are named by.
        least: lowest probability, summed over the classes below such a node.
    """

    classes: Sequence[str] = MATURE
    least: float = LEAST_PROBABILITY


def candidates(cell: Cell, taxonomy: Taxonomy, rules: NamingRules) -> tuple[str, ...]:
    """Return the classes that a cell may get: those below its label; none for an ignored one."""
    if cell.ignore or cell.label is None or cell.label not in taxonomy:
        return ()
    label = str(cell.label)
    return tuple(c for c in rules.classes if c != label and taxonomy.is_under(c, label))


def named(
    cell: Cell, probabilities: Mapping[str, float], taxonomy: Taxonomy, rules: NamingRules
) -> Cell | None:
    """Return the cell with the class that a model is sure of; `None` if it is sure of none.

    Args:
        cell: annotated.
        probabilities: of the model's classes, its leaves.
        taxonomy: that the label and the classes are nodes of.
        rules: when a cell gets a class.
    """
    for node in candidates(cell, taxonomy, rules):
        if taxonomy.sum_under(probabilities, node) >= rules.least:
            return replace(cell, label=node)
    return None
