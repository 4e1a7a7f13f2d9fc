"""Explain why images of a shard have no class, and which setting would give them one."""

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from tarfile import TarFile

from rsa_pretrain.data.shards.labels import json_object
from rsa_pretrain.data.shards.samples import Member, SampleReader, read_member
from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.data.shards.stream import opened_shard
from rsa_pretrain.data.shards.suffixes import is_image_suffix, is_label_suffix, label_suffix
from rsa_pretrain.plumbing.name_lists import first_of


def why_unlabelled(url: str, rules: SampleRules) -> str:
    """Describe the members beside the first image without a class in a shard.

    Raises:
        UserError: If the shard cannot be read.
    """
    with opened_shard(url) as tar:
        reader = SampleReader(url, tar, rules, with_images=False)
        for key, members in groupby(reader.members(), key=attrgetter("key")):
            beside = _beside(tar, members)
            if not any(is_label_suffix(suffix, rules) for suffix in beside):
                return _describe(f"'{key}' of shard '{url}'", beside, rules)
    raise AssertionError("every image has a class")


def _beside(tar: TarFile, members: Iterable[Member]) -> dict[str, list[str]]:
    """Return the suffixes of members that are not images, with the keys of JSON objects."""
    beside: dict[str, list[str]] = {}
    for member in members:
        suffix = member.suffix
        if not is_image_suffix(suffix):
            is_json = suffix.endswith("json")
            tree = json_object(read_member(tar, member.info)) if is_json else None
            beside[suffix] = list(tree or ())
    return beside


def _describe(sample: str, beside: dict[str, list[str]], rules: SampleRules) -> str:
    expected = f"{sample} has no .{label_suffix(rules)} member"
    if not beside:
        return expected
    found = [
        f".{suffix} (with the keys {first_of(keys)})" if keys else f".{suffix}"
        for suffix, keys in beside.items()
    ]
    settings = [
        "data.label_key=KEY" if keys else f"data.label_suffix={suffix}"
        for suffix, keys in beside.items()
    ]
    return (
        f"{expected}, it has {', '.join(found)}; name the member with the class by "
        f"{' or '.join(dict.fromkeys(settings))}"
    )
