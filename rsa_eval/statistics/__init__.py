"""Compute intervals, tests and power from arrays."""
