"""Read weight files of any kind without running anything they contain."""
