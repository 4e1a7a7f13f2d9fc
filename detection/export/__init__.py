"""Export a trained detector as one file for other runtimes."""
