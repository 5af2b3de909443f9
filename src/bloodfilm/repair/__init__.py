"""Corrected copies of label files, every change logged."""
