"""The commands of ``rsa-detect``: one module each, with ``add(commands)``."""
