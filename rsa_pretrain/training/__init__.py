"""Run the training loop, and feed, save, resume and profile it."""
