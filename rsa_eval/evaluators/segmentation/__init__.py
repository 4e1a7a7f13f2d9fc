"""Classify each pixel by one linear layer on a frozen network's last map."""
