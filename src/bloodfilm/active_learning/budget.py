"""A budget for marking, as a share of the area or as a person's time, dealt out to fields."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bloodfilm.active_learning.costs import Rates
from bloodfilm.active_learning.planning import Planner, RegionScores, plan_regions
from bloodfilm.core import Region
from bloodfilm.core.errors import ConfigError

LEAST_SHARE = 0.02
"""Rather than smaller regions on all fields, some fields are left out."""
TRIES = 12
"""How often the regions are shrunk to fit a time; the last try stands."""
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|min|h)\s*")


@dataclass(frozen=True)
class Budget:
    """Either a share of the area, or minutes.

    Attributes:
        share: in (0, 1], or `None`; minutes: above 0, or `None`.
    """

    share: float | None = None
    minutes: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read `10%`, `30min` or `1.5h`; `ConfigError` for anything else."""
        match = _TEXT.fullmatch(text)
        if match:
            number, unit = float(match[1]), match[2]
            if unit == "%" and 0 < number <= 100:
                return cls(share=number / 100)
            if unit != "%" and number > 0:
                return cls(minutes=number * (60 if unit == "h" else 1))
        raise ConfigError(f"--budget {text!r}: give a share or a time, such as 10%, 30min or 2h")

    def shares(
        self, evidence: Sequence[RegionScores], rates: Rates, richness: float = 1.0
    ) -> list[float]:
        """Return the share of each field to mark.

        A share is the same on every field. A time becomes the share whose expected boxes fit it;
        where even `LEAST_SHARE` of every field is too much, fields are left out evenly.

        Args:
            evidence: of each field; rates: of a person.
            richness: how many times as many cells a chosen region holds as one placed anywhere.
        """
        if self.share is not None:
            return [self.share] * len(evidence)
        if not evidence:
            return []
        seconds = 60 * (self.minutes or 0.0)
        cells = max(float(sum(item.cells.sum() for item in evidence)), 1.0)
        boxes = cells * rates.box_seconds * richness
        count = len(evidence)
        share = (seconds - count * rates.field_seconds) / boxes
        if share >= LEAST_SHARE:
            return [min(share, 1.0)] * count
        each = rates.field_seconds + LEAST_SHARE * boxes / count
        kept = int(np.clip(seconds // each, 1, count))
        chosen = set(np.linspace(0, count - 1, kept).round().astype(int).tolist())
        return [LEAST_SHARE if i in chosen else 0.0 for i in range(count)]


def plan_within(
    evidence: Sequence[RegionScores], budget: Budget, rates: Rates, by: Planner, seed: int = 0
) -> tuple[list[float], list[Region]]:
    """Return each field's share and its region, so that a budget of time is kept.

    A planner that looks for cells finds more of them than a share of the area promises, so with a
    budget of time the regions shrink until the boxes expected in them fit it.
    """
    richness = 1.0
    for _ in range(TRIES):
        shares = budget.shares(evidence, rates, richness)
        regions = plan_regions(evidence, shares, by, seed)
        spent = rates.minutes(expected(evidence, regions), sum(s > 0 for s in shares))
        if budget.minutes is None or spent <= budget.minutes:
            break
        richness *= max(1.1, spent / budget.minutes)
    return shares, regions


def expected(evidence: Sequence[RegionScores], regions: Sequence[Region]) -> float:
    """Return how many cells are expected in regions."""
    return sum(
        float(region.contains(item.points) @ item.cells)
        for item, region in zip(evidence, regions, strict=True)
    )
