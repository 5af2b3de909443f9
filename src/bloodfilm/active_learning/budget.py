"""Annotation budgets, as a share of the area or as annotation time, distributed over fields."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bloodfilm.active_learning.costs import Rates
from bloodfilm.active_learning.planning import Planner, RegionScores, plan_regions
from bloodfilm.core import Region
from bloodfilm.core.errors import ConfigError

MIN_SHARE = 0.02
"""Minimum share per field: below it, some fields are left out instead."""
TRIES = 12
"""Maximum number of times the regions are shrunk to fit a time."""
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(%|min|h)\s*")


@dataclass(frozen=True)
class Budget:
    """A share of the area or a time.

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
        self, scores: Sequence[RegionScores], rates: Rates, richness: float = 1.0
    ) -> list[float]:
        """Return the share of each field to annotate.

        A share applies to every field. A time is converted to the share whose expected boxes fit
        it; where even `MIN_SHARE` of every field is too much, fields are left out evenly.

        Args:
            scores: of each field; rates: of an annotator.
            richness: ratio of the cells in a chosen region to those in a region placed at random.
        """
        if self.share is not None:
            return [self.share] * len(scores)
        if not scores:
            return []
        seconds = 60 * (self.minutes or 0.0)
        cells = max(float(sum(item.cells.sum() for item in scores)), 1.0)
        boxes = cells * rates.box_seconds * richness
        count = len(scores)
        share = (seconds - count * rates.field_seconds) / boxes
        if share >= MIN_SHARE:
            return [min(share, 1.0)] * count
        each = rates.field_seconds + MIN_SHARE * boxes / count
        kept = int(np.clip(seconds // each, 1, count))
        chosen = set(np.linspace(0, count - 1, kept).round().astype(int).tolist())
        return [MIN_SHARE if i in chosen else 0.0 for i in range(count)]


def plan_within(
    scores: Sequence[RegionScores], budget: Budget, rates: Rates, by: Planner, seed: int = 0
) -> tuple[list[float], list[Region]]:
    """Return each field's share and region within a budget.

    A planner that selects cells covers more of them than its share of the area, so with a time
    budget the regions shrink until the expected boxes fit.
    """
    richness = 1.0
    for _ in range(TRIES):
        shares = budget.shares(scores, rates, richness)
        regions = plan_regions(scores, shares, by, seed)
        spent = rates.minutes(expected(scores, regions), sum(s > 0 for s in shares))
        if budget.minutes is None or spent <= budget.minutes:
            break
        richness *= max(1.1, spent / budget.minutes)
    return shares, regions


def expected(scores: Sequence[RegionScores], regions: Sequence[Region]) -> float:
    """Return the expected number of cells in regions."""
    return sum(
        float(region.contains(item.points) @ item.cells)
        for item, region in zip(scores, regions, strict=True)
    )
