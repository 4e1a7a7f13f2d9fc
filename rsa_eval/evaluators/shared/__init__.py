"""Serve several evaluators."""
