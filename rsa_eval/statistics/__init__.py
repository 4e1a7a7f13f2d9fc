"""Compute intervals, paired tests, bootstrap replicates and power from plain arrays."""
