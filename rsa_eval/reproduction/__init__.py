"""Reproduction of the paper's tables, row by row."""
