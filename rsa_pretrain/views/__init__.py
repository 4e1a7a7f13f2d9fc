"""Make weak and aggressive views of images."""
