"""Check annotated images before training, and fit a recipe to them."""
