"""Parse the classes that shards state, as numbers or by name, and number them consistently."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.name_lists import first_of

# A class as a sample states it: its number (``UNLABELLED`` for none), or its name.
Label: TypeAlias = int | str

# A damaged label must not allocate billions of classes; a caption is not a class.
_MOST_DIGITS = 6
_MOST_CHARACTERS = 100
_BYTE_ORDER_MARK = "\ufeff"
_NUMBER = re.compile(r"[-+]?[\d.]+(e[-+]?\d+)?", re.IGNORECASE)
_EXPECTED = (
    f"a class index from 0 to {10**_MOST_DIGITS - 1}, or the name of a class: one line with a "
    f"letter, at most {_MOST_CHARACTERS} characters"
)


def parse_label(where: str, content: bytes) -> Label:
    """Return the class in a text member.

    Args:
        where: Name of the member, in errors.
        content: UTF-8, possibly after a byte order mark, with surrounding whitespace.

    Raises:
        UserError: If it is neither a class index nor a name.
    """
    try:
        text = content.decode().removeprefix(_BYTE_ORDER_MARK).strip()
    except UnicodeDecodeError:
        raise UserError(f"{where} should contain {_EXPECTED}, found non-text bytes") from None
    return _from_text(where, text)


def parse_json_label(where: str, content: bytes, key: str) -> Label:
    """Return the class under a key of a JSON member.

    Raises:
        UserError: If there is none, or it is neither a class index nor a name.
    """
    tree = json_object(content)
    if tree is None:
        raise UserError(f"{where} should be a JSON object with the key '{key}' (data.label_key)")
    if key not in tree:
        keys = ", ".join(f"'{name}'" for name in tree) or "none"
        raise UserError(f"{where} has no key '{key}' (data.label_key); its keys are: {keys}")
    value = tree[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        shown = json.dumps(value)[:20]
        raise UserError(f"{where} should contain {_EXPECTED} under '{key}', found {shown}")
    return _from_text(where, str(value).strip())


def json_object(content: bytes) -> dict[str, Any] | None:
    """Parse a JSON object; None if it is something else."""
    try:
        tree = parse_json(content)
    except ValueError:
        return None
    return tree if isinstance(tree, dict) else None


def number_classes(split: str, labels: Mapping[str, Iterable[Label]]) -> list[str]:
    """Return the class names by number: numbers as stated, or names in sorted order.

    Args:
        split: Split of the shards, in errors.
        labels: The classes of each shard.

    Raises:
        UserError: If some are numbers and some are names.
    """
    shard_of: dict[Label, str] = {}
    for shard, stated in labels.items():
        for label in set(stated) - {UNLABELLED}:
            shard_of.setdefault(label, shard)
    names = sorted(label for label in shard_of if isinstance(label, str))
    numbers = [label for label in shard_of if isinstance(label, int)]
    if names and numbers:
        name, number = names[0], min(numbers)
        raise UserError(
            f"the {split} shards state some classes by name ('{name}' in '{shard_of[name]}') and "
            f"some by number ({number} in '{shard_of[number]}'); write all of them the same way"
        )
    return names or [str(number) for number in range(max(numbers, default=UNLABELLED) + 1)]


def label_indices(class_names: list[str], labels: Iterable[Label]) -> list[int]:
    """Return the number of each class, ``UNLABELLED`` where there is none.

    Args:
        class_names: Names of the training shards' classes, by number.
        labels: Classes as the shards of a split state them.

    Raises:
        UserError: If training has no such class, or does not state classes the same way.
    """
    by_number = class_names == [str(number) for number in range(len(class_names))]
    index: dict[Label, int] = {UNLABELLED: UNLABELLED}
    for number, name in enumerate(class_names):
        index[number if by_number else name] = number
    labels = list(labels)
    unknown = sorted({label for label in labels if label not in index}, key=str)
    if unknown:
        shown = first_of([f"'{label}'" for label in unknown])
        raise UserError(
            f"the test shards have classes that the training shards lack: {shown} (training "
            f"has '{class_names[0]}' to '{class_names[-1]}'); both must state classes the same way"
        )
    return [index[label] for label in labels]


def _from_text(where: str, text: str) -> Label:
    if text.isdecimal() and len(text) <= _MOST_DIGITS:
        return int(text)
    # Other numbers, and vectors of them, are not names.
    has_letters = any(map(str.isalpha, text)) and not _NUMBER.fullmatch(text)
    if not has_letters or len(text) > _MOST_CHARACTERS or not text.isprintable():
        raise UserError(f"{where} should contain {_EXPECTED}, found '{text[:20]}'")
    return text
