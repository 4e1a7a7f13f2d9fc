"""Decide between representations: paired differences of records, their tests and sentences."""
