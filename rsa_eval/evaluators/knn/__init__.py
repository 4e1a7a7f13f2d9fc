"""Classify by a weighted vote of nearest neighbours."""
