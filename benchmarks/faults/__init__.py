"""Kill, starve and damage: what the toolkit must survive or refuse."""
