"""Describe one training of a detector, and keep its weights and measurements."""
