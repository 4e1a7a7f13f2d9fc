"""State the paper's numbers, and match ours to its rows."""
