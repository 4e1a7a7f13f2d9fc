"""Compare the images that the records name: by fingerprint, by count, and one by one."""

from collections.abc import Sequence
from typing import Literal

from rsa_eval.audit.entries import NamedRecord, describe_sides, list_names, sides_of
from rsa_eval.audit.finding import Finding, Side
from rsa_eval.records.image_sets import image_facts
from rsa_eval.records.predictions import read_predictions
from rsa_pretrain.plumbing.errors import UserError

_HASH_DIGITS = 8


def check_image_sets(entries: Sequence[NamedRecord]) -> list[Finding]:
    """List differences of the test and training images, and what prevents a comparison by image."""
    keys = {entry.name: _keys(entry) for entry in entries}
    found = [_test_images(entries, keys), _training_images(entries), *_predictions(entries, keys)]
    return [finding for finding in found if finding is not None]


def _keys(entry: NamedRecord) -> tuple[str, ...] | str | None:
    """Return the names of the test images, why they are unreadable, or None without any."""
    if entry.record.predictions is None:
        return None
    try:
        return read_predictions(entry.path, entry.record).keys
    except UserError as error:
        return str(error)


def _describe_images(entry: NamedRecord, split: Literal["train", "test"]) -> str | None:
    facts = image_facts(entry.record, split)
    if facts is None:
        return None
    return f"{facts['count']:,} images (SHA-256 {str(facts['sha256'])[:_HASH_DIGITS]}…)"


def _test_images(
    entries: Sequence[NamedRecord], keys: dict[str, tuple[str, ...] | str | None]
) -> Finding | None:
    identified = [entry for entry in entries if image_facts(entry.record, "test") is not None]
    unidentified = [entry for entry in entries if image_facts(entry.record, "test") is None]
    sides = sides_of(entries, lambda entry: _describe_images(entry, "test") or _count(entry))
    counts = {entry.record.num_samples for entry in entries}
    if (
        len(sides_of(identified, lambda entry: _describe_images(entry, "test"))) > 1
        or len(counts) > 1
    ):
        return Finding(
            "unfair",
            "test images",
            f"the test images differ: {describe_sides(sides, entries)}{_in_common(sides, keys)}",
            "evaluate all on the same images (data.num_test_images, data.subset_seed, data.root)",
            sides,
        )
    if identified and unidentified:
        return Finding(
            "note",
            "test images",
            f"{list_names(unidentified, entries)} do not identify their test images; their number "
            "is the same",
            "evaluate again with this version, which records a fingerprint",
        )
    return None


def _count(entry: NamedRecord) -> str:
    return f"{entry.record.num_samples:,} images"


def _in_common(sides: Sequence[Side], keys: dict[str, tuple[str, ...] | str | None]) -> str:
    """Count the test images of the same name, where every side keeps the names."""
    named = [found for side in sides if isinstance(found := keys[side.records[0]], tuple)]
    if len(named) < len(sides):
        return ""
    common = set.intersection(*map(set, named))
    return f"; {len(common):,} images have the same name in all of them"


def _training_images(entries: Sequence[NamedRecord]) -> Finding | None:
    sides = sides_of(entries, lambda entry: _describe_images(entry, "train"))
    if len(sides) < 2:
        return None
    return Finding(
        "unfair",
        "training images",
        f"the classifiers learned from different images: {describe_sides(sides, entries)}",
        "evaluate all with the same training images (data.num_train_images, data.subset_seed)",
        sides,
    )


def _predictions(
    entries: Sequence[NamedRecord], keys: dict[str, tuple[str, ...] | str | None]
) -> list[Finding]:
    """Name the records that cannot be compared image by image."""
    found = []
    without = [entry for entry in entries if keys[entry.name] is None]
    if without and len(entries) > 1:
        found.append(
            Finding(
                "note",
                "predictions",
                f"no answers by image are kept for {list_names(without, entries)}: a paired "
                "comparison is impossible",
                "evaluate again with this version, which keeps them",
            )
        )
    found += [
        Finding("caution", "predictions", reason, "see to it before comparing by image")
        for reason in keys.values()
        if isinstance(reason, str)
    ]
    return found
