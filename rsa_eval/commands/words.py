"""Paths and settings among a command's words."""

import re
from collections.abc import Sequence
from pathlib import Path

from rsa_pretrain.user_paths import user_path

# A word of this form is a setting, any other a path; a path that looks like a setting can be
# written with a leading `./`.
_OVERRIDE = re.compile(r"[A-Za-z_][\w.-]*=")


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the paths, and the ``section.key=value`` words, each in the order given."""
    paths = [user_path(word) for word in words if not _OVERRIDE.match(word)]
    return paths, [word for word in words if _OVERRIDE.match(word)]
