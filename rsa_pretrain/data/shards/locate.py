"""Find, count and open WebDataset tar shards, as a stream or image by image."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.data.sets.base import AnySplit
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.labels import Label, label_indices, number_classes
from rsa_pretrain.data.shards.members import ShardIndex, TarImages, index_shard
from rsa_pretrain.data.shards.settings import SampleRules, sample_rules
from rsa_pretrain.data.shards.stream import ShardSet, read_shard
from rsa_pretrain.data.shards.tar_files import compression_of
from rsa_pretrain.data.shards.unlabelled import why_unlabelled
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.regular_files import is_there
from rsa_pretrain.plumbing.text_files import read_text
from rsa_pretrain.plumbing.threads import map_in_threads
from rsa_pretrain.plumbing.user_paths import expand_user

SIZES_FILE = "sizes.json"

_log = logging.getLogger(__name__)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_TAR_NAME = re.compile(r"[^/\s'\"?&=]+\.tar\b")
_TAR_SUFFIX = re.compile(r"\.(tar|tar\.(gz|bz2|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)


def open_stream(config: DataConfig) -> ShardSet:
    """Open the training shards for pretraining, local or remote.

    Raises:
        UserError: If there are none, or their sizes are unknown.
    """
    urls = list_shards(config, "train")
    names = shard_names(urls)
    sizes = _sizes(config, urls, names)
    return ShardSet(urls, names, sizes, config.shuffle_buffer, config, sample_rules(config))


def open_split(config: DataConfig, split: AnySplit) -> ImageSet:
    """Open local shards for random access.

    Raises:
        UserError: If they do not allow random access, contain no image, or a test image has a
            class that training lacks.
    """
    urls = list_shards(config, split)
    remote = [url for url in urls if is_remote(url)]
    if remote:
        raise UserError(
            f"'{remote[0]}' can only be streamed, and an evaluation reads images in any order; "
            "copy the shards to a local folder, or evaluate with data.name=imagefolder"
        )
    indices = _indices(config, urls)
    labels = list(chain.from_iterable(index.labels for index in indices))
    if not labels:
        raise UserError(f"no image in the {len(urls)} shards of the {split} split")
    sources = TarImages([Path(url) for url in urls], indices, config)
    class_names = classes_of(config, split, _stated(urls, indices))
    why = ""
    if UNLABELLED in labels:
        first = labels.index(UNLABELLED)
        why = why_unlabelled(str(sources.shard(first)), sample_rules(config))
    numbers = label_indices(class_names, labels) if class_names else None
    return ImageSet("webdataset", sources, numbers, class_names, why_unlabelled=why)


def classes_of(
    config: DataConfig, split: AnySplit, stated: Mapping[str, Iterable[Label]]
) -> list[str]:
    """Return the class names in order of their numbers, the training shards' for both splits.

    Numbers are as the shards state them; class names are numbered in their order. If training
    has no classes, or its shards cannot be indexed here, the test shards' classes are numbered
    separately: no evaluation can compare them with others.

    Args:
        config: The data set.
        split: Which split.
        stated: Its classes by shard.

    Returns:
        The names; empty if no image has a class.

    Raises:
        UserError: If a split states some classes as numbers and some by name.
    """
    own = number_classes(split, stated)
    if split != "test" or not own:
        return own
    try:
        urls = list_shards(config, "train")
    except UserError:
        return own  # opening the training split reports this
    if any(map(is_remote, urls)):
        return own
    return number_classes("train", _stated(urls, _indices(config, urls))) or own


def is_remote(url: str) -> bool:
    """Return whether a shard can only be streamed: a URL, or ``pipe:`` and a command."""
    return _SCHEME.match(url) is not None


def refused_by_evaluation(
    config: DataConfig, urls: list[str], stated: Mapping[str, Collection[Label]]
) -> list[str]:
    """Say why an evaluation refuses shards that pretraining reads, one sentence per cause.

    Args:
        config: The data set.
        urls: Undamaged shards of a split.
        stated: Its classes by shard.
    """
    causes: dict[str, list[str]] = {}
    for url in urls:
        if is_remote(url):
            causes.setdefault("can only be streamed; copy it to a local folder", []).append(url)
        elif (compression := compression_of(Path(url))) is not None:
            cause = f"is compressed with {compression.name}; unpack it with {compression.command}"
            causes.setdefault(cause, []).append(url)
    refused = [
        f"{len(some)} of {len(urls)} shards in any order: '{some[0]}' {cause}"
        for cause, some in causes.items()
    ]
    unlabelled = [url for url in urls if UNLABELLED in stated[url]]
    if unlabelled:
        why = why_unlabelled(unlabelled[0], sample_rules(config))
        refused.append(
            f"{len(unlabelled)} of {len(urls)} shards with images without a class: {why}"
        )
    return [f"an evaluation cannot read {what}" for what in refused]


def list_shards(config: DataConfig, split: AnySplit) -> list[str]:
    """Return the shards of a split, local ones as paths of existing files.

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
            local = not is_remote(url)
            urls.append(os.path.join(config.root, url) if local and config.root else url)
    missing = [url for url in urls if not is_remote(url) and not Path(url).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(urls)} shards are missing, the first is '{missing[0]}'; "
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
        if is_remote(urls[0]) or not is_there(path):
            return None
    text = read_text(path, what="data.shard_sizes")
    try:
        sizes: Any = parse_json(text)
    except ValueError as error:
        raise UserError(f"'{path}' is not valid JSON: {error}") from None
    entries = sizes.values() if isinstance(sizes, dict) else [None]
    if not all(type(size) is int and size >= 0 for size in entries):
        raise UserError(f"'{path}' should be like {{\"train-000000.tar\": 1000, …}}")
    return path, sizes


def stated_size(sizes: Mapping[str, int], name: str, url: str) -> int | None:
    """Return the stated size of a shard, which may be listed under its full file name."""
    return sizes.get(name, sizes.get(url.rpartition("/")[2]))


def _tars_below(config: DataConfig, directory: str, is_test: bool) -> list[str]:
    setting = "test_shards" if is_test else "shards"
    if config.root is None:
        raise UserError(f"set data.{setting}, or data.root with *.tar files in {directory}/")
    folder = config.root / directory
    names = sorted(path.name for path in folder.glob("[!.]*"))
    tars: dict[str, list[str]] = {}
    for name in names:
        if _TAR_SUFFIX.search(name):
            tars.setdefault(_TAR_SUFFIX.sub("", name), []).append(name)
    if not tars:
        holds = f" (it contains {first_of(names)})" if names else ""
        raise UserError(
            f"no *.tar in '{folder}'{holds}; expected shards {folder}/NAME.tar with KEY.jpg and "
            f"KEY.cls members, or set data.{setting} to their names"
        )
    for same in tars.values():
        if len(same) > 1:
            _log.warning("'%s' contains %s, of which %s is read", folder, ", ".join(same), same[0])
    return [str(folder / same[0]) for same in tars.values()]


def _expand(pattern: str) -> list[str]:
    braces = import_extra("braceexpand", "data set 'webdataset'")
    try:
        return [expand_user(url) for url in braces.braceexpand(pattern)]
    except ValueError as error:
        raise UserError(f"cannot expand the braces of '{pattern}': {error}") from None


def _sizes(config: DataConfig, urls: list[str], names: list[str]) -> list[int]:
    stated = stated_sizes(config, urls)
    if stated is not None:
        path, sizes = stated
        known = [stated_size(sizes, name, url) for name, url in zip(names, urls, strict=True)]
        if None in known:
            raise UserError(
                f"'{path}' lacks the sizes of {known.count(None)} shards, the first is "
                f"'{names[known.index(None)]}'"
            )
        return [size for size in known if size is not None]
    remote = [url for url in urls if is_remote(url)]
    if remote:
        raise UserError(
            f"the number of images in '{remote[0]}' is unknown; set data.shard_sizes to a JSON "
            f'file like {{"{names[0]}": 1000, …}}, which `rsa-pretrain data-check CONFIG '
            "--write-sizes FILE.json` makes by reading all shards once"
        )
    count = partial(_count, rules=sample_rules(config))
    return list(map_in_threads(count, urls, "counting images", "shard"))


def _count(url: str, rules: SampleRules) -> int:
    if compression_of(Path(url)) is None:
        return len(index_shard(Path(url), rules).labels)
    return sum(1 for _ in read_shard(url, samples=rules))


def _indices(config: DataConfig, urls: list[str]) -> list[ShardIndex]:
    index = partial(index_shard, rules=sample_rules(config))
    return list(map_in_threads(index, [Path(url) for url in urls], "indexing shards", "shard"))


def _stated(urls: list[str], indices: list[ShardIndex]) -> dict[str, tuple[Label, ...]]:
    return {url: index.labels for url, index in zip(urls, indices, strict=True)}
