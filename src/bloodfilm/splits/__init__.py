"""Splits into training, validation and test that share no patient, slide or picture."""
