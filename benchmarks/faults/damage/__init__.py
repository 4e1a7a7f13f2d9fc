"""Damaged files, which must be refused in one line or read right."""
