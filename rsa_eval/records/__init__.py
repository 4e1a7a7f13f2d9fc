"""Describe evaluations and the runs that they belong to, and group trials."""
