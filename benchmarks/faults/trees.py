"""Compare the files that two runs of a command leave, and find those that are not whole."""

import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX

# Values that differ between two runs of the same command on the same machine, or checkout.
_TIMES = re.compile(
    r"git_|created|seconds|minutes|duration|hours|per_second|_time|time_|memory|command|data_wait"
)
_TIMES_IN_TEXT = re.compile(r"\d{4}-\d\d-\d\d[T ]?[\d:+.Z]*|\d+(\.\d+)? ?(s|ms|min|h)\b")
_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}|^\.tmp|\.(tmp|part|progress)$")
_LOGS = re.compile(r"(^|/)(tensorboard/|events\.out\.|.*\.log$)")


def files_below(folder: Path) -> dict[str, Path]:
    """Return the files and links of a folder by relative name."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): path for path in found}


def differences(expected: Path, found: Path, ignored: Collection[str] = ()) -> list[str]:
    """Describe how the files of a folder differ from those expected.

    Times, rates and paths may differ, and so may logs of events; weights, states, numbers and
    texts must be equal.

    Args:
        expected: Folder.
        found: Folder.
        ignored: Files and folders in ``found`` to leave out.
    """
    left, right = (
        {name: path for name, path in files_below(folder).items() if not _LOGS.search(name)}
        for folder in (expected, found)
    )
    right = {
        name: path
        for name, path in right.items()
        if not any(name == each or name.startswith(f"{each}/") for each in ignored)
    }
    told = [f"{name} is missing" for name in left.keys() - right.keys()]
    told += [f"{name} is unexpected" for name in right.keys() - left.keys()]
    for name in left.keys() & right.keys():
        try:
            pair = _content(left[name], expected), _content(right[name], found)
        except Exception as error:  # whatever a reader makes of it
            told.append(f"{name} cannot be read: {type(error).__name__}: {error}")
            continue
        if not _equal(*pair):
            told.append(f"{name} differs")
    return sorted(told)


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files and folders below a folder."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if _TEMPORARY.search(path.name)
    )


def torn_files(folder: Path) -> list[str]:
    """Return the files below a folder that have their final name but cannot be read whole.

    The last line of a log may be cut short.
    """
    torn = []
    for name, path in files_below(folder).items():
        parts = Path(name).parts
        if any(_TEMPORARY.search(part) for part in parts) or _LOGS.search(name):
            continue
        try:
            if path.suffix == ".jsonl":
                for line in path.read_text().splitlines()[:-1]:
                    json.loads(line)
            elif not path.exists():
                raise FileNotFoundError("a link to nothing")
            else:
                _content(path, folder)
        except Exception as error:  # whatever a reader makes of it
            torn.append(f"{name}: {type(error).__name__}: {error}")
    return sorted(torn)


def _content(path: Path, root: Path) -> Any:
    """Read a file, or where a link leads, into values that can be compared."""
    if path.is_symlink():
        return path.readlink()
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = file.metadata() or {}
        return tensors, {key: _parsed(text, root) for key, text in header.items()}
    if path.suffix in (".pt", ".pth"):
        return _plain(torch.load(path, map_location="cpu", weights_only=True), root)
    if path.suffix == ".json":
        return _plain(json.loads(path.read_bytes()), root)
    if path.suffix == ".jsonl":
        return [_plain(json.loads(line), root) for line in path.read_text().splitlines()]
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return {name: arrays[name].tolist() for name in arrays.files}
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()
            return image.tobytes()
    text = path.read_text()
    if path.suffix == ".html" and not text.rstrip().endswith("</html>"):
        raise ValueError("it has no end")
    if path.suffix in (".yaml", ".md", ".tex", ".csv") and not text.endswith("\n"):
        raise ValueError("it has no end")
    return _TIMES_IN_TEXT.sub("", text.replace(str(root), ""))


def _parsed(text: str, root: Path) -> Any:
    try:
        return _plain(json.loads(text), root)
    except json.JSONDecodeError:
        return text


def _plain(value: Any, root: Path) -> Any:
    """Return a tree without times, with paths relative to the root."""
    if isinstance(value, dict):
        return {k: _plain(v, root) for k, v in value.items() if not _TIMES.search(str(k))}
    if isinstance(value, list | tuple):
        return [_plain(entry, root) for entry in value]
    if isinstance(value, str):
        return _TIMES_IN_TEXT.sub("", value.replace(str(root), ""))
    return value


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, torch.Tensor):
        return (
            isinstance(right, torch.Tensor)
            and (left.dtype, left.shape) == (right.dtype, right.shape)
            and left.numpy().tobytes() == right.numpy().tobytes()
        )
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(_equal(left[key], right[key]) for key in left)
        )
    if isinstance(left, list | tuple):
        return (
            isinstance(right, list | tuple)
            and len(left) == len(right)
            and all(map(_equal, left, right))
        )
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)
