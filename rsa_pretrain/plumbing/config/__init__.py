"""Read, layer, check and print YAML settings."""
