"""Get weights by name from where they are published, and publish one's own."""
