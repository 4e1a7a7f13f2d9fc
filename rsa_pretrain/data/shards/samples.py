"""Group the members of a tar into samples: an image, and the member with its class.

The stream of pretraining, the index of an evaluation and the data check share this reader.

Adjacent members whose names agree up to the first dot of the file name, the key, are a sample, as
in the webdataset library: ``KEY.jpg``, or ``KEY.input.jpg`` if there is no plain image, and if it
has a class ``KEY.cls`` or ``KEY.target.cls``. Further dots in a name make no difference while a key
has one image; if images and classes come in pairs of one name (``photo.1.jpg``, ``photo.1.cls``,
``photo.2.jpg``, …), each pair is a sample. Anything else that is ambiguous is an error that names
the setting to choose by. Suffixes are compared in lower case.
"""

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.shards.labels import Label, parse_json_label, parse_label
from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.data.shards.suffixes import (
    MemberChoice,
    choose,
    ends,
    is_image_suffix,
    label_suffix,
    stem,
)
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.system_files import is_system

_MOST_LABEL_BYTES = 2**24

# Members of this form describe the shard; the webdataset library skips them.
_META = re.compile(r"__.*__")
# GNU tar adds a number to the folder of headers that it could not interpret.
_PAX_HEADERS = re.compile(r"PaxHeaders?\.\d+", re.IGNORECASE)

SYSTEM_MEMBERS = "system and hidden files"
NO_SUFFIX = "files without a suffix"
FURTHER_IMAGES = "further images of samples"


class Member(NamedTuple):
    """A file in a tar.

    Attributes:
        key: Its name up to the first dot of the file name (the last one with ``dotted_keys``).
        suffix: The rest of the name, in lower case.
        info: Its header.
        content: Its bytes, if requested.
    """

    key: str
    suffix: str
    info: tarfile.TarInfo
    content: bytes


class Sample(NamedTuple):
    """An image and its class.

    Attributes:
        key: The image's name without its last suffix.
        image: The image.
        label: The class, as stated.
    """

    key: str
    image: Member
    label: Label


class SampleReader:
    """The samples of one tar, in order.

    Args:
        shard: Name of the tar, in errors.
        tar: The tar, opened.
        rules: What makes a sample.
        with_images: Whether to read the images as well.

    Attributes:
        left_out: Members that were passed over, by kind.
    """

    def __init__(
        self, shard: str, tar: tarfile.TarFile, rules: SampleRules, *, with_images: bool
    ) -> None:
        self.shard = shard
        self.tar = tar
        self.rules = rules
        self.with_images = with_images
        self.label_suffix = label_suffix(rules)
        self.left_out: defaultdict[str, list[str]] = defaultdict(list)
        # The samples of a shard mostly have the same members.
        self._choices: dict[tuple[str, ...], MemberChoice] = {}

    def __iter__(self) -> Iterator[Sample]:
        """Yield the samples.

        Raises:
            UserError: If one is not as described above.
        """
        for key, run in groupby(self.members(), key=attrgetter("key")):
            for members in self._part(run):
                suffixes = tuple([member.suffix for member in members])
                choice = self._choices.get(suffixes)
                if choice is None:
                    sample = f"sample '{key}' of shard '{self.shard}'"
                    choice = self._choices[suffixes] = choose(sample, suffixes, self.rules)
                image = self._whole(members[choice.image])
                for further in choice.further_images:
                    self.left_out[FURTHER_IMAGES].append(members[further].info.name)
                label: Label = UNLABELLED
                if choice.label is not None:
                    label = self._label(self._whole(members[choice.label]))
                yield Sample(_join(key, stem(image.suffix)), image, label)

    def members(self) -> Iterator[Member]:
        """Yield the members that may belong to samples."""
        dotted_keys = self.rules.dotted_keys
        for info in iter(self.tar.next, None):
            self.tar.members.clear()  # type: ignore[attr-defined]  # frees the headers
            if not (info.isreg() or info.issym() or info.islnk()):
                continue
            name = info.name
            folder, _, file = name.rpartition("/")
            start, _, suffix = file.rpartition(".") if dotted_keys else file.partition(".")
            if _is_system_folder(folder) or is_system(file):
                self.left_out[SYSTEM_MEMBERS].append(name)
            elif not start or not suffix:
                self.left_out[NO_SUFFIX].append(name)
            else:
                key, suffix = name[: -len(suffix) - 1], suffix.lower()
                yield Member(key, suffix, info, self._content(info, suffix))

    def _content(self, info: tarfile.TarInfo, suffix: str) -> bytes:
        is_label = ends(suffix, self.label_suffix)
        if not is_label and not (self.with_images and self._may_be_image(suffix)):
            return b""
        if not _is_whole(info):
            return b""  # an error if the sample needs it
        if is_label and info.size > _MOST_LABEL_BYTES:
            raise UserError(
                f"'{info.name}' of shard '{self.shard}' should contain a class, found {info.size} "
                "bytes; see data.label_suffix"
            )
        return read_member(self.tar, info)

    def _may_be_image(self, suffix: str) -> bool:
        chosen = self.rules.image_suffix
        return is_image_suffix(suffix) if chosen is None else ends(suffix, chosen)

    def _part(self, run: Iterable[Member]) -> Iterator[list[Member]]:
        """Split the members of a key if each pair of neighbouring names is a complete sample."""
        if self.rules.image_suffix is not None:
            yield list(run)
            return
        sample: list[Member] = []
        for _, named in groupby(run, key=_stem_of_member):
            members = list(named)
            if sample and self._is_pair(members) and self._is_pair(sample):
                yield sample
                sample = []
            sample += members
        yield sample

    def _is_pair(self, members: list[Member]) -> bool:
        images = sum(is_image_suffix(member.suffix) for member in members)
        labels = sum(ends(member.suffix, self.label_suffix) for member in members)
        return images == labels == 1 == len(set(map(_stem_of_member, members)))

    def _label(self, member: Member) -> Label:
        where = f"'{member.info.name}' of shard '{self.shard}'"
        if self.rules.label_key is not None:
            return parse_json_label(where, member.content, self.rules.label_key)
        return parse_label(where, member.content)

    def _whole(self, member: Member) -> Member:
        """Return a member that is a complete file.

        Raises:
            UserError: If it is a link or has holes.
        """
        info = member.info
        if not _is_whole(info):
            what = "a sparse file" if info.isreg() else f"a link to '{info.linkname}'"
            raise UserError(
                f"'{info.name}' of shard '{self.shard}' is {what}; write the shard with complete "
                "files (tar --dereference --hard-dereference, without --sparse)"
            )
        return member


def read_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """Read a member without the overhead of ``extractfile``.

    Raises:
        ReadError: If the tar ends too early.
    """
    assert tar.fileobj is not None
    tar.fileobj.seek(info.offset_data)
    content = tar.fileobj.read(info.size)
    if len(content) < info.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _is_whole(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


@lru_cache(4096)
def _is_system_folder(folder: str) -> bool:
    parts = folder.split("/")
    return _META.fullmatch(parts[0]) is not None or any(
        (part not in ("", ".", "..") and is_system(part)) or _PAX_HEADERS.fullmatch(part)
        for part in parts
    )


def _stem_of_member(member: Member) -> str:
    return stem(member.suffix)


def _join(key: str, rest: str) -> str:
    return f"{key}.{rest}" if rest else key
