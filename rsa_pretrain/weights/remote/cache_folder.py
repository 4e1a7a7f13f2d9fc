"""Say where downloaded weights are kept."""

import os
from pathlib import Path

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import user_path

VARIABLE = "RSA_TOOLKIT_CACHE"


def cache_folder() -> Path:
    """Return ``$RSA_TOOLKIT_CACHE``, or ``rsa-toolkit`` in the user's folder of caches.

    Raises:
        UserError: If there is neither the variable nor a home folder.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return user_path(given)
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(caches) if caches else Path.home() / ".cache") / "rsa-toolkit"
    except RuntimeError:
        raise UserError(
            f"there is no home folder to keep downloaded weights in; set {VARIABLE} to a folder"
        ) from None
