"""Annotations of other tools: one module per format, each read into the same few types."""
