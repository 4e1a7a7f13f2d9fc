"""Fit classifiers to a few labels of frozen features."""
