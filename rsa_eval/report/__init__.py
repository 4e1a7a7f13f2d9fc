"""Records and run logs to one page, and to its tables as text."""
