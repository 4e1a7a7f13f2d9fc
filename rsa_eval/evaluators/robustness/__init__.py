"""Classify corrupted and otherwise shifted test images."""
