"""Other projects' checkpoints, in and out: no file is trusted, no key is guessed."""
