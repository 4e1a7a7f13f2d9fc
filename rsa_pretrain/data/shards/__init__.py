"""Read images from WebDataset tar shards."""
