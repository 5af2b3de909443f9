"""Carry annotations from one photograph of a field to another of the same cells."""
