"""The commands of ``rsa-detect``: one module each, and the options that several share."""
