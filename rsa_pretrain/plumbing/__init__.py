"""Serve any program: errors, settings, files, processes and terminals."""
