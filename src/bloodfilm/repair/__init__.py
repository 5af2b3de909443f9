"""Corrected copies of label files, every change logged."""

from bloodfilm.repair.apply import RULES, RepairResult, check_request, repair_labels
from bloodfilm.repair.changes import Change

__all__ = ["RULES", "Change", "RepairResult", "check_request", "repair_labels"]
