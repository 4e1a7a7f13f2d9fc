"""The commands of ``rsa-pretrain``: one module each, with ``add(commands)``."""
