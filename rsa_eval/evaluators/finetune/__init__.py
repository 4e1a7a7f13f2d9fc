"""Train backbone and classifier with few or all labels."""
