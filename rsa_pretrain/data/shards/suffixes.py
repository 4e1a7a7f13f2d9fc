"""Which member of a sample is its image and which holds its class, by their suffixes alone.

A suffix is what follows the key in a member's name, in lower case: ``jpg``, or ``input.jpg``.
"""

from collections.abc import Iterable
from typing import NamedTuple

from rsa_pretrain.data.shards.rules import SampleRules
from rsa_pretrain.plumbing.errors import UserError

# Where a sample has none of the first, one of the second is its image.
_IMAGE_TYPES = (
    frozenset({"jpg", "jpeg", "png", "webp"}),
    frozenset({"avif", "bmp", "gif", "jfif", "pbm", "pgm", "ppm", "tif", "tiff"}),
)
_ANY_IMAGE_TYPE = frozenset.union(*_IMAGE_TYPES)


class Choice(NamedTuple):
    """Which of a sample's members are its image, its class if it has one, and further images."""

    image: int
    label: int | None
    further_images: list[int]


def choose(sample: str, suffixes: tuple[str, ...], rules: SampleRules) -> Choice:
    """Choose among the members of a sample.

    Args:
        sample: Which sample it is, in errors.
        suffixes: Of its members.
        rules: What the user has chosen.

    Raises:
        UserError: If there is not one image and at most one class, or an image that would be
            passed over has a class of its own.
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
                f"{sample} has an image .{image} and another, .{hidden[0]}, with a class of its "
                f"own; {_how_to_choose(image)}"
            )
    return Choice(
        suffixes.index(image),
        None if label is None else suffixes.index(label),
        [suffixes.index(suffix) for suffix in further],
    )


def is_image_suffix(suffix: str) -> bool:
    """Return whether a suffix is that of an image file."""
    return suffix.rpartition(".")[2] in _ANY_IMAGE_TYPE


def label_suffix(rules: SampleRules) -> str:
    """Return how the name of the member ends that holds a sample's class."""
    return rules.label_suffix or ("cls" if rules.label_key is None else "json")


def is_label_suffix(suffix: str, rules: SampleRules) -> bool:
    """Return whether a suffix is that of the member that holds a sample's class."""
    return ends(suffix, label_suffix(rules))


def ends(suffix: str, wanted: str) -> bool:
    """Return whether the last parts of a suffix are the wanted ones."""
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
        else "the members of a sample stand together in a shard, its image among them"
    )
    raise UserError(
        f"{sample} should have {expected}, found {_listed(found or suffixes)}; {advice}"
    )


def _choose_label(sample: str, suffixes: Iterable[str], rules: SampleRules) -> str | None:
    found = _ending(suffixes, label_suffix(rules))
    if len(found) > 1:
        raise UserError(
            f"{sample} has several classes: {_listed(found)}; name the one to read by "
            f"data.label_suffix={found[0]}"
        )
    return found[0] if found else None


def _ending(suffixes: Iterable[str], wanted: str) -> list[str]:
    """Return the suffix that is the wanted one, or else all that end so."""
    ending = [suffix for suffix in suffixes if ends(suffix, wanted)]
    return [wanted] if wanted in ending else ending


def _images(suffixes: Iterable[str]) -> list[str]:
    """Return which suffixes are images: of the usual types if there are, plain if there are."""
    for types in _IMAGE_TYPES:
        found = [suffix for suffix in suffixes if suffix.rpartition(".")[2] in types]
        if found:
            return [suffix for suffix in found if "." not in suffix] or found
    return []


def _how_to_choose(image: str) -> str:
    return (
        f"name the one to read by data.image_suffix={image}, or, if each is a sample of its own, "
        "set data.dotted_keys=true"
    )


def _listed(suffixes: Iterable[str]) -> str:
    return ", ".join(f".{suffix}" for suffix in suffixes)
