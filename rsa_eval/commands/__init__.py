"""The commands of ``rsa-eval``: one module each, with ``add(commands)``."""
