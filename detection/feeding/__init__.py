"""Turn annotated images into batches for training."""
