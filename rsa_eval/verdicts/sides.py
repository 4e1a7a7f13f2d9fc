"""Read the two sides of a comparison and find the evaluations that both have."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rsa_eval.records.detection_recipe import recipe_of, recipe_settings, settings_of
from rsa_eval.records.find import read_records_below
from rsa_eval.records.groups import Group, group_records
from rsa_eval.records.identity import network_key, shared_settings
from rsa_eval.records.image_sets import SPLITS, describe_images_of, name_image_sets
from rsa_eval.records.record import Record
from rsa_pretrain.data.sets import Split
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.text_table import one_line
from rsa_pretrain.plumbing.user_paths import real_path

# Settings of the network of random weights, which are the model and not the evaluation.
_OF_THE_MODEL = "backbone."


@dataclass(frozen=True)
class Contender:
    """One model: its trials in each evaluation."""

    name: str
    """As its records' paths name it."""
    groups: tuple[Group, ...]
    """The trials of each evaluation."""


@dataclass(frozen=True)
class SharedEvaluation:
    """An evaluation that both sides have."""

    first: Group
    second: Group
    differing_settings: tuple[str, ...]
    """Settings and images in which the two differ, as ``key VALUE | VALUE``."""

    @property
    def title(self) -> str:
        """The evaluation as tables name it, of detectors with their recipe."""
        record = self.first.first
        recipe = recipe_of(record)
        by = "" if recipe is None else f" by {recipe.text}"
        return f"{record.kind} on {self.first.image_set}{by}"

    @property
    def protocol(self) -> str:
        """Its protocol."""
        return self.first.first.protocol


def read_side(paths: Sequence[Path]) -> Contender:
    """Read the records of one model, of one or several seeds.

    Args:
        paths: Record files, run folders, or folders of either.

    Raises:
        UserError: If there is no record, one cannot be read, or an evaluation is of several models.
    """
    groups = [one_trial_per_network(group) for group in group_records(read_records_below(paths))]
    names: dict[str, Group] = {}
    for group in groups:
        known = names.setdefault(_evaluation_key(group), group)
        if known is not group:
            raise UserError(
                f"one side of a comparison should be one model, with one or several seeds; found "
                f"two in {group.first.kind} on {group.image_set}: '{known.paths[0]}' and "
                f"'{group.paths[0]}'; give each model as a side (A… --against B…)"
            )
    return Contender(one_line(_name(paths)), tuple(groups))


def one_trial_per_network(group: Group) -> Group:
    """Keep the first record of each network: other seeds of its evaluation are no other trials."""
    kept: dict[str, int] = {}
    for place, record in enumerate(group.records):
        kept.setdefault(network_key(record), place)
    places = list(kept.values())
    return replace(
        group,
        records=tuple(group.records[place] for place in places),
        paths=tuple(group.paths[place] for place in places),
    )


def shared_evaluations(
    first: Contender, second: Contender
) -> tuple[list[SharedEvaluation], list[str]]:
    """Pair the evaluations of two sides.

    They are paired by evaluator, protocol and data set, detectors by their recipes too, and by
    settings where a side has several such evaluations.

    Returns:
        The pairs, and a line for each evaluation that only one side has.

    Raises:
        UserError: If there is no pair, or a record is on both sides.
    """
    ours, theirs = (
        {real_path(path) for group in side.groups for path in group.paths}
        for side in (first, second)
    )
    if ours & theirs:
        raise UserError(
            f"'{min(ours & theirs)}' is a record of both models; give each its own records"
        )
    pairs = list(_pairs(first, second))
    used = {id(group) for pair in pairs for group in (pair.first, pair.second)}
    alone = [
        f"only {side.name} has {group.first.kind} on {group.image_set} "
        f"({_protocol(group.first)}): '{group.paths[0]}'"
        + (_other_recipe(group, second) if side is first else "")
        for side in (first, second)
        for group in side.groups
        if id(group) not in used
    ]
    if not pairs:
        raise UserError(
            f"'{first.name}' and '{second.name}' share no evaluation: {first_of(alone)}; evaluate "
            "both by the same protocol on the same images"
        )
    return pairs, alone


def _pairs(first: Contender, second: Contender) -> Iterator[SharedEvaluation]:
    places = _places([*first.groups, *second.groups])
    for group in first.groups:
        ours = [each for each in first.groups if places[each.paths] == places[group.paths]]
        theirs = [each for each in second.groups if places[each.paths] == places[group.paths]]
        equal = [each for each in theirs if not _differing(group, each)]
        if not equal and len(ours) == len(theirs) == 1:
            equal = theirs
        if equal:
            yield SharedEvaluation(group, equal[0], tuple(_differing(group, equal[0])))


def _places(groups: Sequence[Group]) -> dict[tuple[Path, ...], tuple[str, str, str, str]]:
    """Return evaluator, protocol, recipe and images of each group, by its files."""
    image_sets = name_image_sets([group.first for group in groups])
    return {
        group.paths: (group.first.kind, *_protocol_and_recipe(group.first), images)
        for group, images in zip(groups, image_sets, strict=True)
    }


def _protocol_and_recipe(record: Record) -> tuple[str, str]:
    recipe = recipe_of(record)
    return (record.protocol, "") if recipe is None else (recipe.name, recipe.key)


def _protocol(record: Record) -> str:
    recipe = recipe_of(record)
    return record.protocol if recipe is None else recipe.text


def _other_recipe(group: Group, other: Contender) -> str:
    """Say in what a detector's recipe differs from that of the other side's on the same images.

    Of several recipes it is one of the same name; nothing is said if one is the same.
    """
    recipe = recipe_of(group.first)
    found = [
        (theirs, its)
        for its in other.groups
        if (theirs := recipe_of(its.first)) is not None and its.image_set == group.image_set
    ]
    if recipe is None or not found or recipe in [theirs for theirs, _ in found]:
        return ""
    theirs, its = min(found, key=lambda each: each[0].name != recipe.name)
    settings = [recipe_settings(settings_of(each.first)) for each in (group, its)]
    unequal = first_of(_unequal(*settings)) or "as they are named or recorded"
    return f" (the recipe of {other.name}, {theirs.text}, differs: {unequal})"


def _evaluation_key(group: Group) -> str:
    record = group.first
    settings = sorted((key, str(value)) for key, value in _settings(record).items())
    hashes = sorted(group.hashes.items())
    return json.dumps([record.kind, record.protocol, group.image_set, hashes, settings])


def _settings(record: Record) -> dict[str, object]:
    settings = shared_settings(record)
    return {key: value for key, value in settings.items() if not key.startswith(_OF_THE_MODEL)}


def _differing(first: Group, second: Group) -> list[str]:
    pair = first, second
    images = [
        " | ".join(_describe_images(group, split) for group in pair)
        for split in SPLITS
        if len({group.hashes[split] for group in pair if split in group.hashes}) > 1
    ]
    return [*_unequal(*(_settings(group.first) for group in pair)), *images]


def _describe_images(group: Group, split: Split) -> str:
    """Describe a split by a record that has its hash, which an older one has not."""
    known = (describe_images_of(record, split) for record in group.records)
    return next(filter(None, known), f"other {SPLITS[split]}")


def _unequal(ours: Mapping[str, object], theirs: Mapping[str, object]) -> list[str]:
    return [
        f"{key} {ours.get(key)} | {theirs.get(key)}"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _name(paths: Sequence[Path]) -> str:
    """Name a side by its path, several by the folder that contains them all."""
    if len(paths) == 1:
        return str(paths[0])
    common = os.path.commonpath([path.absolute() for path in paths])
    shared = Path(os.path.relpath(common))
    return f"{paths[0]}, …" if shared in (Path(), Path("..")) else str(shared)
