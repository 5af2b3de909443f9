"""Rendered data sets in LLD's layout with known injected faults."""
