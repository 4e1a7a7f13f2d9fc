"""A trained detector as one file that other runtimes run."""
