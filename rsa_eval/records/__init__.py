"""Describe an evaluation and the run that it belongs to."""
