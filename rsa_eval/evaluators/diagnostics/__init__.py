"""Describe the geometry of features and draw it."""
