"""CIFAR-10 and CIFAR-100: the published python batches."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsa_pretrain.data.sets.base import AnySplit, Counts, DataSet, download_command
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.fetch import Archive, fetch
from rsa_pretrain.plumbing.memory import RAISE_LIMIT, require_memory
from rsa_pretrain.plumbing.name_lists import first_of

if TYPE_CHECKING:
    from rsa_pretrain.data.image_set import ImageSet
    from rsa_pretrain.data.settings import DataConfig


_IMAGE_BYTES = 3 * 32 * 32


def _torchvision(num_classes: int) -> Any:
    """Return torchvision's class, which knows the address and the checksums."""
    from torchvision import datasets

    return getattr(datasets, f"CIFAR{num_classes}")


def _open(config: DataConfig, split: AnySplit, num_classes: int, folder: str) -> ImageSet:
    """Open a split from ``root/FOLDER/``."""
    from rsa_pretrain.data.image_set import ImageSet

    assert config.root is not None
    if (config.root / folder).is_dir():
        # torchvision holds the batches and their concatenation at the same time.
        count = 10_000 if split == "test" else 50_000
        require_memory(2 * count * _IMAGE_BYTES, f"the images of {config.name}", RAISE_LIMIT)
    try:
        # torchvision checks the files' published MD5 sums before it unpickles them.
        source = _torchvision(num_classes)(str(config.root), train=split != "test")
    except RuntimeError:
        raise UserError(
            f"no complete {config.name} in '{config.root / folder}'; "
            f"{_remedy(config.name, config.root, folder, _file_names(num_classes))}"
        ) from None
    return ImageSet.from_array(config.name, source.data, source.targets, source.classes)


def _download(root: Path, url: str | None, num_classes: int, folder: str) -> None:
    facts = _torchvision(num_classes)
    fetch(Archive(facts.url, facts.tgz_md5, folder), root, url)


def _file_names(num_classes: int) -> list[str]:
    facts = _torchvision(num_classes)
    return [name for name, _ in (*facts.train_list, *facts.test_list)] + [facts.meta["filename"]]


def _remedy(name: str, root: Path, folder: str, expected: list[str]) -> str:
    """Say what to do, judging by what is there instead of the batch files."""
    if root.resolve().name == folder:
        return f"data.root should be the folder that contains '{folder}': '{root.resolve().parent}'"
    below = sorted(root.glob(f"*/{folder}"))
    if below:
        return f"data.root should be the folder that contains '{folder}': '{below[0].parent}'"
    compressed = sorted((root / folder).glob("*.xz"))
    if compressed:
        return (
            f"its batch files are compressed ({compressed[0].name}, …): unpack them beside, with "
            f"unxz --keep {root / folder}/*.xz"
        )
    if not (root / folder).exists():
        return f"run {download_command(name, root)}"
    missing = [file for file in expected if not (root / folder / file).is_file()]
    lack = f"it lacks {first_of(missing)}: " if missing else ""
    return f"{lack}move that folder away and run {download_command(name, root)}"


def _cifar(num_classes: int, folder: str) -> DataSet:
    return DataSet(
        name=f"cifar{num_classes}",
        label=f"CIFAR-{num_classes}",
        normalisation=((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        open=partial(_open, num_classes=num_classes, folder=folder),
        download=partial(_download, num_classes=num_classes, folder=folder),
        counts={
            "train": Counts(50_000, num_classes, 50_000 // num_classes),
            "test": Counts(10_000, num_classes, 10_000 // num_classes),
        },
        folders=(folder,),
        is_pixels=True,
    )


CIFAR10 = _cifar(10, "cifar-10-batches-py")
CIFAR100 = _cifar(100, "cifar-100-python")
