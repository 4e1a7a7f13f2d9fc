"""Extract, keep and scale a frozen backbone's features."""
