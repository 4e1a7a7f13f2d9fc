"""WebDataset tar shards: found, counted and opened, as a stream or image by image."""

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

from rsa_pretrain.data_config import DataConfig
from rsa_pretrain.data_sets import AnySplit
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_set import UNLABELLED, ImageSet
from rsa_pretrain.parallel import map_in_threads
from rsa_pretrain.shards import ShardSet, shard_library
from rsa_pretrain.tar_images import TarImages, index_shard
from rsa_pretrain.user_paths import expand_user

SIZES_FILE = "sizes.json"

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_TAR_NAME = re.compile(r"[^/\s'\"?&=]+\.tar\b")


def open_stream(config: DataConfig) -> ShardSet:
    """Open the training shards for pretraining, local or remote.

    Raises:
        UserError: If there are none, or their sizes are not to be had.
    """
    urls = list_shards(config, "train")
    names = shard_names(urls)
    sizes = _sizes(config, urls, names)
    return ShardSet(urls, names, sizes, config.shuffle_buffer, config)


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open local shards for reading in any order.

    Classes are numbered as the shards' ``.cls`` members number them, and have no other names.
    """
    urls = list_shards(config, split)
    remote = [url for url in urls if _SCHEME.match(url)]
    if remote:
        raise UserError(
            f"'{remote[0]}' can only be streamed, and an evaluation reads images in any order; "
            "copy the shards to a local folder, or evaluate with data.name=imagefolder"
        )
    shards = [Path(url) for url in urls]
    indices = list(map_in_threads(index_shard, shards, "indexing shards", "shard"))
    labels = [image.label for index in indices for image in index]
    if not labels:
        raise UserError(f"no image in the {len(shards)} shards of the {split} split")
    if max(labels) == UNLABELLED:
        return ImageSet("webdataset", TarImages(shards, indices, config), None, [])
    class_names = [str(number) for number in range(max(labels) + 1)]
    return ImageSet("webdataset", TarImages(shards, indices, config), labels, class_names)


def list_shards(config: DataConfig, split: AnySplit) -> list[str]:
    """Return the shards of a split, local ones as paths of files that are there.

    Raises:
        UserError: If there are none, or one is missing or named twice.
    """
    is_test = split == "test"
    patterns = config.test_shards if is_test else config.shards
    if patterns is None:
        return _tars_below(config, config.test_dir if is_test else config.train_dir, is_test)
    urls = []
    for pattern in (patterns,) if isinstance(patterns, str) else patterns:
        for url in _expand(pattern):
            local = not _SCHEME.match(url)
            urls.append(os.path.join(config.root, url) if local and config.root else url)
    missing = [url for url in urls if not _SCHEME.match(url) and not Path(url).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(urls)} shards are not there, the first is '{missing[0]}'; "
            f"check data.{'test_shards' if is_test else 'shards'} and data.root"
        )
    url, count = Counter(urls).most_common(1)[0]
    if count > 1:
        raise UserError(f"shard '{url}' is named {count} times")
    return urls


def shard_names(urls: list[str]) -> list[str]:
    """Return the file names of shards, or, where two agree, their whole paths or URLs."""
    found = [_TAR_NAME.findall(url) for url in urls]
    names = [tars[-1] if tars else url for tars, url in zip(found, urls, strict=True)]
    return names if len(set(names)) == len(names) else urls


def stated_sizes(config: DataConfig, urls: list[str]) -> tuple[Path, dict[str, int]] | None:
    """Read the file of sizes: ``data.shard_sizes``, or the one beside local shards if there is one.

    Raises:
        UserError: If it cannot be read or is malformed.
    """
    path = config.shard_sizes
    if path is None:
        path = Path(urls[0]).parent / SIZES_FILE
        if _SCHEME.match(urls[0]) or not path.is_file():
            return None
    try:
        sizes: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read data.shard_sizes '{path}': {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from None
    entries = sizes.values() if isinstance(sizes, dict) else [None]
    if not all(type(size) is int and size >= 0 for size in entries):
        raise UserError(f"'{path}' should be like {{\"train-000000.tar\": 1000, …}}")
    return path, sizes


def _tars_below(config: DataConfig, directory: str, is_test: bool) -> list[str]:
    setting = "test_shards" if is_test else "shards"
    if config.root is None:
        raise UserError(f"set data.{setting}, or data.root with *.tar files in {directory}/")
    folder = config.root / directory
    tars = sorted(path for path in folder.glob("*.tar") if not path.name.startswith("."))
    if not tars:
        raise UserError(
            f"no *.tar in '{folder}'; expected shards {folder}/NAME.tar with KEY.jpg and KEY.cls "
            f"members, or set data.{setting} to their names"
        )
    return [str(path) for path in tars]


def _expand(pattern: str) -> list[str]:
    braces = shard_library("braceexpand")
    try:
        return [expand_user(url) for url in braces.braceexpand(pattern)]
    except ValueError as error:
        raise UserError(f"cannot expand the braces of '{pattern}': {error}") from None


def _sizes(config: DataConfig, urls: list[str], names: list[str]) -> list[int]:
    stated = stated_sizes(config, urls)
    if stated is not None:
        path, sizes = stated
        unknown = [name for name in names if name not in sizes]
        if unknown:
            raise UserError(
                f"'{path}' lacks the sizes of {len(unknown)} shards, the first is '{unknown[0]}'"
            )
        return [sizes[name] for name in names]
    remote = [url for url in urls if _SCHEME.match(url)]
    if remote:
        raise UserError(
            f"the number of images in '{remote[0]}' is not known; set data.shard_sizes to a JSON "
            f'file like {{"{names[0]}": 1000, …}}, which `rsa-pretrain data-check CONFIG '
            "--write-sizes FILE.json` makes by reading all shards once"
        )
    return [
        len(index)
        for index in map_in_threads(
            index_shard, [Path(url) for url in urls], "counting images", "shard"
        )
    ]
