"""What is wrong with a data set: checks, mending, splits that do not leak, statistics."""

from bloodfilm.audit.finding import KINDS, Finding
from bloodfilm.audit.run_checks import Options, audit, open_source

__all__ = ["KINDS", "Finding", "Options", "audit", "open_source"]
