"""Choose the members with a sample's image and its class, by their suffixes alone.

A suffix is the part after the key in a member's name, in lower case: ``jpg``, or ``input.jpg``.
"""

from collections.abc import Iterable
from typing import NamedTuple

from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.plumbing.errors import UserError

# If a sample has none of the first, one of the second is its image.
_IMAGE_TYPES = (
    frozenset({"jpg", "jpeg", "png", "webp"}),
    frozenset({"avif", "bmp", "gif", "jfif", "pbm", "pgm", "ppm", "tif", "tiff"}),
)
_ANY_IMAGE_TYPE = frozenset.union(*_IMAGE_TYPES)


class MemberChoice(NamedTuple):
    """The members with a sample's image, its class if it has one, and further images."""

    image: int
    label: int | None
    further_images: list[int]


def choose(sample: str, suffixes: tuple[str, ...], rules: SampleRules) -> MemberChoice:
    """Choose among the members of a sample.

    Args:
        sample: Name of the sample, in errors.
        suffixes: Suffixes of its members.
        rules: The user's choices.

    Raises:
        UserError: If there is not one image and at most one class, or an image that would be
            passed over has its own class.
    """
    twice = [suffix for suffix in suffixes if suffixes.count(suffix) > 1]
    if twice:
        raise UserError(f"{sample} has .{twice[0]} twice; write the shard again without one")
    image = _choose_image(sample, suffixes, rules)
    label = _choose_label(sample, suffixes, rules)
    further = [suffix for suffix in suffixes if is_image_suffix(suffix) and suffix != image]
    if rules.image_suffix is None:
        labelled = {stem(suffix) for suffix in suffixes if is_label_suffix(suffix, rules)}
        hidden = [other for other in further if stem(other) in labelled - {stem(image)}]
        if hidden:
            raise UserError(
                f"{sample} has an image .{image} and another, .{hidden[0]}, with its own "
                f"class; {_how_to_choose(image)}"
            )
    return MemberChoice(
        suffixes.index(image),
        None if label is None else suffixes.index(label),
        [suffixes.index(suffix) for suffix in further],
    )


def is_image_suffix(suffix: str) -> bool:
    """Return whether a suffix is that of an image file."""
    return suffix.rpartition(".")[2] in _ANY_IMAGE_TYPE


def label_suffix(rules: SampleRules) -> str:
    """Return the suffix of the member with a sample's class."""
    return rules.label_suffix or ("cls" if rules.label_key is None else "json")


def is_label_suffix(suffix: str, rules: SampleRules) -> bool:
    """Return whether a suffix is that of the member with a sample's class."""
    return ends(suffix, label_suffix(rules))


def ends(suffix: str, wanted: str) -> bool:
    """Return whether a suffix ends in the wanted parts."""
    return suffix == wanted or suffix.endswith("." + wanted)


def stem(suffix: str) -> str:
    """Return a suffix without its last part."""
    return suffix.rpartition(".")[0]


def _choose_image(sample: str, suffixes: Iterable[str], rules: SampleRules) -> str:
    if rules.image_suffix is not None:
        found = _ending(suffixes, rules.image_suffix)
        expected = f"one image named KEY.{rules.image_suffix} (data.image_suffix)"
    else:
        found = _images(suffixes)
        expected = "one image (KEY.jpg, .jpeg, .png, .webp, …)"
    if len(found) == 1:
        return found[0]
    advice = (
        _how_to_choose(found[0])
        if found
        else "the members of a sample must be adjacent in a shard, its image among them"
    )
    raise UserError(
        f"{sample} should have {expected}, found {_listed(found or suffixes)}; {advice}"
    )


def _choose_label(sample: str, suffixes: Iterable[str], rules: SampleRules) -> str | None:
    found = _ending(suffixes, label_suffix(rules))
    if len(found) > 1:
        raise UserError(
            f"{sample} has several classes: {_listed(found)}; choose one with "
            f"data.label_suffix={found[0]}"
        )
    return found[0] if found else None


def _ending(suffixes: Iterable[str], wanted: str) -> list[str]:
    """Return the suffix that equals the wanted one, or else all that end in it."""
    ending = [suffix for suffix in suffixes if ends(suffix, wanted)]
    return [wanted] if wanted in ending else ending


def _images(suffixes: Iterable[str]) -> list[str]:
    """Return the suffixes of images: preferably of the usual types, preferably plain ones."""
    for types in _IMAGE_TYPES:
        found = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in types]
        if found:
            return [suffix for suffix in found if "." not in suffix] or found
    return []


def _how_to_choose(image: str) -> str:
    return (
        f"choose one with data.image_suffix={image}, or, if each is a separate sample, "
        "set data.dotted_keys=true"
    )


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(f".{suffix}" for suffix in suffixes)
