"""Turn records and run logs into one page and its tables."""
