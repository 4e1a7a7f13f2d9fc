"""Find the test images that are also training images, for all images that records name."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ImageOps

from rsa_eval.audit.detail import DETAIL_SIDE, detail_correlation
from rsa_eval.audit.duplicates import CompareDetail, Duplicate, find_duplicates
from rsa_eval.audit.entries import NamedRecord
from rsa_eval.audit.feature_candidates import Features
from rsa_eval.audit.fingerprints import Fingerprints, fingerprint_images
from rsa_eval.audit.near_hashes import RowNumbers
from rsa_eval.audit.open_sets import ROLE_NAMES, TRAINING_ROLES, ImageRole, OpenedSet, OpenSets
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Leak:
    """The duplicates between test images and training images, or among test images."""

    test: ImageSet
    bank: ImageSet
    """The training images; the test images themselves for duplicates among them."""
    roles: tuple[ImageRole, ...]
    """The bank's roles in the records."""
    entries: tuple[NamedRecord, ...]
    """Records with these test images, and this bank in one of the roles."""
    duplicates: list[Duplicate]

    @property
    def is_within(self) -> bool:
        """True for duplicates among the test images."""
        return self.roles == ("test",)

    @property
    def bank_name(self) -> str:
        """Name of the bank in a sentence."""
        return " and ".join(ROLE_NAMES[role] for role in self.roles)


@dataclass
class LeakSearch:
    """All that was found, and all that could not be checked."""

    leaks: list[Leak] = field(default_factory=list)
    unchecked: dict[str, list[NamedRecord]] = field(default_factory=dict)
    """Reason → records."""
    limits: list[str] = field(default_factory=list)
    """Sentences about checks that were made in part only."""

    def skip(self, reason: str, entry: NamedRecord) -> None:
        """Note that images of a record are not checked."""
        self.unchecked.setdefault(reason, []).append(entry)


@dataclass
class _Bank:
    images: ImageSet
    entries: dict[Path, NamedRecord] = field(default_factory=dict)
    roles: dict[ImageRole, None] = field(default_factory=dict)


@dataclass
class _TestSet:
    images: ImageSet
    entries: list[NamedRecord] = field(default_factory=list)
    banks: dict[str, _Bank] = field(default_factory=dict)
    """By fingerprint."""


def search_leaks(
    entries: Sequence[NamedRecord], data_root: Path | None, *, with_features: bool
) -> LeakSearch:
    """Compare each distinct set of test images with each set of training images.

    Args:
        entries: Records.
        data_root: ``data.root`` of images that are not at theirs; None if there is none.
        with_features: Whether to use the features of a checkpoint, too.
    """
    search = LeakSearch()
    sets = OpenSets(data_root)
    tests = _open_all(entries, sets, search)
    prints: dict[str, Fingerprints | UserError] = {}
    for fingerprint, test in tests.items():
        own = _prints_of(test.images, fingerprint, "test images", prints)
        if isinstance(own, UserError):
            for entry in test.entries:
                search.skip(f"the test images: {own}", entry)
            continue
        _search_one(test, own, prints, search, with_features)
    return search


def _open_all(
    entries: Sequence[NamedRecord], sets: OpenSets, search: LeakSearch
) -> dict[str, _TestSet]:
    tests: dict[str, _TestSet] = {}
    for entry in entries:
        opened = _open(entry, "test", sets, search)
        if opened is None:
            continue
        test = tests.setdefault(opened.fingerprint, _TestSet(opened.images))
        test.entries.append(entry)
        for role in TRAINING_ROLES:
            opened = _open(entry, role, sets, search)
            if opened is not None:
                bank = test.banks.setdefault(opened.fingerprint, _Bank(opened.images))
                bank.entries[entry.path] = entry
                bank.roles[role] = None
    return tests


def _open(
    entry: NamedRecord, role: ImageRole, sets: OpenSets, search: LeakSearch
) -> OpenedSet | None:
    try:
        return sets.open(entry, role)
    except UserError as error:
        search.skip(f"the {ROLE_NAMES[role]}: {error}", entry)
        return None


def _prints_of(
    images: ImageSet, key: str, label: str, prints: dict[str, Fingerprints | UserError]
) -> Fingerprints | UserError:
    if key not in prints:
        try:
            prints[key] = fingerprint_images(images, label)
        except UserError as error:
            prints[key] = error
    return prints[key]


def _search_one(
    test: _TestSet,
    own: Fingerprints,
    prints: dict[str, Fingerprints | UserError],
    search: LeakSearch,
    with_features: bool,
) -> None:
    entries = tuple(test.entries)
    num_poor = int((~own.is_rich).sum())
    if num_poor:
        search.limits.append(
            f"{num_poor:,} of {len(own):,} test images of {test.images.name} have too little "
            "contrast or detail to find edited copies; only exact ones were looked for"
        )
    within = find_duplicates(own, None, None, _comparison(test.images, test.images))
    search.leaks.append(Leak(test.images, test.images, ("test",), entries, within))
    features = _features(entries, search) if with_features else None
    for key, bank in test.banks.items():
        role = ROLE_NAMES[next(iter(bank.roles))]
        others = _prints_of(bank.images, key, role, prints)
        if isinstance(others, UserError):
            for entry in bank.entries.values():
                search.skip(f"the {role}: {others}", entry)
            continue
        candidates = None
        if features is not None and own.is_rich.any():
            candidates = _neighbours(features, test.images, bank.images, search)
        found = find_duplicates(own, others, candidates, _comparison(test.images, bank.images))
        search.leaks.append(
            Leak(test.images, bank.images, tuple(bank.roles), tuple(bank.entries.values()), found)
        )


def _features(entries: Sequence[NamedRecord], search: LeakSearch) -> Features | None:
    try:
        return Features(entries)
    except UserError as error:
        search.limits.append(f"duplicates were looked for without features: {error}")
        return None


def _neighbours(
    features: Features, test: ImageSet, bank: ImageSet, search: LeakSearch
) -> RowNumbers | None:
    try:
        return features.neighbours(test, bank)
    except UserError as error:
        search.limits.append(f"the features of '{features.name}' were not used: {error}")
        return None


def _comparison(images: ImageSet, bank: ImageSet) -> CompareDetail:
    """Return a function that compares the detail of a pair, where both images are large enough."""

    def compare(duplicate: Duplicate) -> float | None:
        first, second = images[duplicate.row], bank[duplicate.other]
        if min(*first.size, *second.size) < DETAIL_SIDE:
            return None
        return detail_correlation(
            ImageOps.mirror(first) if duplicate.is_mirrored else first, second
        )

    return compare
