"""Kill and starve the toolkit's commands, and check that nothing is lost."""
