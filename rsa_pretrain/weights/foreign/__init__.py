"""Import and export other projects' checkpoints: no file is trusted, no key is guessed."""
