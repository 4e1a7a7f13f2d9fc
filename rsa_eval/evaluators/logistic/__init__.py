"""Fit logistic regression on frozen features."""
