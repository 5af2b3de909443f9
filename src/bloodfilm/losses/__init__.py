"""Losses as plain functions of outputs and targets; each returns named, unweighted terms."""
