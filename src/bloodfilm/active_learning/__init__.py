"""Selection of the regions to annotate, and estimates of the annotation cost."""

from bloodfilm.active_learning.planning import RegionScores, keep_marked, plan_regions

__all__ = ["RegionScores", "keep_marked", "plan_regions"]
