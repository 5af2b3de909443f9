"""Drawn data sets in LLD's layout with known faults injected."""
