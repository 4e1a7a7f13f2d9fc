"""The commands of ``rsa-eval``: one module each, with ``add(commands)``.

``campaigns``, ``outputs`` and ``subjects`` hold what several commands share.
"""
