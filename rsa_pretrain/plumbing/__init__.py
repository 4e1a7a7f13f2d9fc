"""Code that knows nothing of machine learning: errors, settings, files, processes and terminals."""
