"""Which part of each field a person should mark, and what marking parts only saves."""

from bloodfilm.active_learning.planning import Evidence, keep_marked, plan_regions

__all__ = ["Evidence", "keep_marked", "plan_regions"]
