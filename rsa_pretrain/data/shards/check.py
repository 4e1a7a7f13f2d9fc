"""Decode the tar shards of a split, and compare them with their stated sizes and each other."""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.data.sets import AnySplit
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards import locate
from rsa_pretrain.data.shards.labels import Label, label_indices
from rsa_pretrain.data.shards.settings import SampleRules, sample_rules
from rsa_pretrain.data.shards.stream import read_shard
from rsa_pretrain.data.split_findings import DecodedImage, SplitFindings, decode_image
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.threads import map_in_threads


class _DecodedShard(NamedTuple):
    """The contents of a shard, and why it cannot be read to its end, if so."""

    images: list[DecodedImage]
    left_out: dict[str, list[str]]
    error: str | None


def _decode_shard(url: str, rules: ReadRules, samples: SampleRules) -> _DecodedShard:
    seen = _DecodedShard([], {}, None)
    try:
        for image in read_shard(url, rules, samples, seen.left_out):
            encoded = image.encoded
            seen.images.append(decode_image(image.label, encoded.where, encoded.read))
    except UserError as error:
        return seen._replace(error=str(error))
    return seen


def check_shards(config: DataConfig, split: AnySplit, findings: SplitFindings) -> None:
    """Decode every image of a split's shards; add what is found to its findings.

    Raises:
        UserError: If there are no shards.
    """
    urls = locate.list_shards(config, split)
    names = locate.shard_names(urls)
    stated = locate.stated_sizes(config, urls)
    decode = partial(_decode_shard, rules=config, samples=sample_rules(config))
    labels: dict[str, set[Label]] = {}
    left_out: defaultdict[str, list[str]] = defaultdict(list)
    whole: list[str] = []
    results = map_in_threads(decode, urls, f"{split} shards", "shard")
    for url, name, (seen, others, error) in zip(urls, names, results, strict=True):
        labels[url] = {image.label for image in seen}
        classes = {label: str(label) for label in labels[url] - {UNLABELLED}}
        for label in sorted(classes.values()):
            findings.class_sizes.setdefault(label, 0)
        findings.count(seen, classes)
        for kind, members in others.items():
            left_out[kind] += members
        if error is not None:
            findings.problems.append(error)
            continue
        whole.append(url)
        findings.shard_sizes[name] = len(seen)
        if stated is not None:
            size = locate.stated_size(stated[1], name, url)
            if size != len(seen):
                says = "nothing" if size is None else size
                findings.problems.append(
                    f"shard '{name}' contains {len(seen)} images, '{stated[0]}' says {says}"
                )
    findings.notes += [
        f"left out: {len(members):,} {kind}, such as '{members[0]}'"
        for kind, members in left_out.items()
    ]
    findings.problems += _problems_of_classes(config, split, findings, labels)
    # Pretraining streams the training shards; only evaluations read the test shards.
    refusals = findings.problems if split == "test" else findings.notes
    refusals += locate.refused_by_evaluation(config, whole, labels)


def _problems_of_classes(
    config: DataConfig, split: AnySplit, findings: SplitFindings, labels: dict[str, set[Label]]
) -> Iterator[str]:
    """Yield problems of the classes; sort them, including those without images."""
    if not findings.num_images:
        yield f"no image in the {len(labels)} shards of the {split} split"
        return
    try:
        names = locate.classes_of(config, split, labels)
        if names:
            label_indices(names, chain.from_iterable(labels.values()))
    except UserError as error:
        yield str(error)
    else:
        findings.class_sizes = {name: findings.class_sizes.get(name, 0) for name in names}
