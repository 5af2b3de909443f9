"""Which part of each field a person should mark, and what marking parts only saves."""

from bloodfilm.active_learning.planning import RegionScores, keep_marked, plan_regions

__all__ = ["RegionScores", "keep_marked", "plan_regions"]
