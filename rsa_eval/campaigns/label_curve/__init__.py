"""Measure accuracy against the number of labels, and the labels that pretraining saves."""
