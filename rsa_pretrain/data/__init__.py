"""Find, open, decode and load images."""
