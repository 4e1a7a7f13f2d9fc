"""Check whether records may be compared: their settings, their baselines and their images."""
