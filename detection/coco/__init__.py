"""Read, check, repair and evaluate COCO-format annotations."""
