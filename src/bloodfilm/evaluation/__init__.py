"""Measures: detection, classes, attributes, calibration, with intervals; no torch."""
