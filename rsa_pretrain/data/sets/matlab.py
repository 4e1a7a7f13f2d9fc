"""Read the MATLAB files of published data sets."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

from rsa_pretrain.data.sets.published_tree import TreeFault


def read_matlab(path: Path, *names: str) -> list[Any]:
    """Read arrays of a MATLAB file, without dimensions of size one; nothing is unpickled.

    Args:
        path: File of MATLAB 7.2 or earlier.
        names: Names of the arrays.

    Raises:
        TreeFault: If the file or an array is missing, or the file is damaged.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        content = loadmat(path, squeeze_me=True, variable_names=names, appendmat=False)
    except FileNotFoundError:
        raise TreeFault(f"no '{path}'") from None
    except (MatReadError, NotImplementedError, OSError, TypeError, ValueError, zlib.error) as error:
        raise TreeFault(f"'{path}' is not a readable MATLAB file ({error})") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise TreeFault(f"'{path}' has no array '{missing[0]}'")
    return [content[name] for name in names]
