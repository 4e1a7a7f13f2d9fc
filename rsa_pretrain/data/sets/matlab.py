"""Read the MATLAB files of published data sets."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsa_pretrain.data.sets.published_tree import TreeFault, read_published_bytes

if TYPE_CHECKING:
    import numpy.typing as npt


def read_matlab(path: Path, *names: str) -> list[npt.NDArray[Any]]:
    """Read arrays of a MATLAB file, without dimensions of size one; nothing is unpickled.

    Args:
        path: File of MATLAB 7.2 or earlier.
        names: Names of the arrays.

    Returns:
        Arrays of one dimension or more, of any type.

    Raises:
        TreeFault: If the file or an array is missing, or the file is damaged.
    """
    import numpy as np
    from scipy.io import loadmat

    file = io.BytesIO(read_published_bytes(path))
    try:
        content = loadmat(file, squeeze_me=True, variable_names=names)
    except MemoryError:
        raise
    except Exception as error:  # scipy's reader raises all kinds: an IndexError for most cut files
        raise TreeFault(f"'{path}' is not a readable MATLAB file ({error})") from None
    missing = [name for name in names if name not in content]
    if missing:
        raise TreeFault(f"'{path}' has no array '{missing[0]}'")
    return [np.atleast_1d(content[name]) for name in names]
