"""Settings of a detection run."""
