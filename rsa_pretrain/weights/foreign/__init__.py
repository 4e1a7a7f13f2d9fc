"""Import other projects' checkpoints: no file is trusted, no key is guessed."""
