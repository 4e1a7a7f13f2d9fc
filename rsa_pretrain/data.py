"""Data sets as indexable RGB images, and the order in which training reads them."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from rsa_pretrain.config import RGB, DataConfig
from rsa_pretrain.errors import UserError
from rsa_pretrain.image_folder import find_images, read_image
from rsa_pretrain.image_set import ImageSet
from rsa_pretrain.stop_signal import leave_signals_to_main_process

Split = Literal["train", "test"]
Views = list[Tensor]

# Mean and standard deviation of the training pixels, as published with each data set; those of
# digits are measured on its training split at 32 px.
NORMALISATION: dict[str, tuple[RGB, RGB]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "digits": ((0.3094, 0.3094, 0.3094), (0.3488, 0.3488, 0.3488)),
    "imagefolder": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

_CIFAR = {
    "cifar10": (
        torchvision.datasets.CIFAR10,
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ),
    "cifar100": (
        torchvision.datasets.CIFAR100,
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    ),
}


def open_images(config: DataConfig, split: Split) -> ImageSet:
    """Open one split of a data set.

    Args:
        config: Which data set, where, and how much of it.
        split: ``train``, or ``test`` (the validation folder of an imagefolder).

    Raises:
        UserError: If the files are not there or not usable; says what is expected.
    """
    opener = {"digits": _digits, "imagefolder": _image_folder}.get(config.name, _cifar)
    images = opener(config, split)
    count = config.num_train_images if split == "train" else config.num_test_images
    return images if count is None else images.balanced_subset(count, config.subset_seed)


def normalisation(config: DataConfig) -> tuple[RGB, RGB]:
    """Return mean and standard deviation for pixels in [0, 1]: the config's or the data set's."""
    if config.mean is not None and config.std is not None:
        return config.mean, config.std
    return NORMALISATION[config.name]


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The batches of all remaining steps, as (epoch, image) pairs.

    Step ``s`` reads batch ``s mod steps_per_epoch`` of the permutation that ``seed`` and the
    epoch decide, so a run can start at any step and see what an uninterrupted run sees.

    Args:
        num_images: Size of the data set.
        batch_size: Images per step; an epoch's incomplete last batch is left out.
        seed: Seed of the permutations.
        steps: First step and the one after the last.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, steps: range) -> None:
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.steps = steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        steps_per_epoch = self.num_images // self.batch_size
        order: list[int] = []
        current_epoch = None
        for step in self.steps:
            epoch, batch = divmod(step, steps_per_epoch)
            if epoch != current_epoch:
                generator = np.random.default_rng([self.seed, epoch])
                order = generator.permutation(self.num_images).tolist()
                current_epoch = epoch
            start = batch * self.batch_size
            yield [(epoch, image) for image in order[start : start + self.batch_size]]


class AugmentedImages(Dataset[Any]):
    """Images under a random transform whose draws depend on (seed, epoch, image) alone.

    Args:
        images: Source.
        transform: PIL image to whatever a batch collates; draws from torch's generator.
        seed: Seed of the draws.
    """

    def __init__(
        self, images: ImageSet, transform: Callable[[Image.Image], Any], seed: int
    ) -> None:
        self.images = images
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: tuple[int, int]) -> Any:
        epoch, index = key
        sequence = np.random.SeedSequence([self.seed, epoch, index])
        # The CPU generator alone: torch.manual_seed also visits every accelerator.
        generator = torch.default_generator
        before = generator.get_state()
        generator.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        try:
            return self.transform(self.images[index])
        finally:
            generator.set_state(before)


def make_loader(
    dataset: Dataset[Any],
    batches: Iterable[list[Any]],
    num_workers: int,
    device: torch.device,
) -> DataLoader[Any]:
    """Build a loader over given batches of keys."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=device.type == "cuda",
        worker_init_fn=leave_signals_to_main_process,
        # Iterators draw a seed for their workers, which nothing here uses; drawn from the global
        # generator it would make a resumed run's random state differ.
        generator=torch.Generator(),
    )


def iterate(loader: DataLoader[Any]) -> Iterator[Any]:
    """Iterate over a loader; a user error in a worker arrives as it was raised there.

    Raises:
        UserError: Without the worker's traceback, which torch puts into the message.
    """
    try:
        yield from loader
    except UserError as error:
        marker = f"{UserError.__name__}: "
        raise UserError(str(error).rpartition(marker)[2].strip()) from None


def _digits(config: DataConfig, split: Split) -> ImageSet:
    """Open scikit-learn's 1,797 digits: a fixed stratified 80 % / 20 % split."""
    bunch = load_digits()
    train, test = train_test_split(
        np.arange(len(bunch.target)), test_size=0.2, random_state=0, stratify=bunch.target
    )
    rows = np.sort(train if split == "train" else test)
    pixels = np.round(bunch.images[rows] * (255 / 16)).astype(np.uint8)
    side = (config.image_size, config.image_size)
    images = [
        Image.fromarray(image).resize(side, Image.Resampling.BICUBIC).convert("RGB")
        for image in pixels
    ]
    names = [str(digit) for digit in range(10)]
    array = np.stack([np.asarray(image) for image in images])
    return ImageSet.from_array("digits", array, bunch.target[rows].tolist(), names)


def _cifar(config: DataConfig, split: Split) -> ImageSet:
    data_set, url = _CIFAR[config.name]
    folder = f"{config.root}/{data_set.base_folder}"
    try:
        # torchvision checks the files' published MD5 sums before it unpickles them.
        source = data_set(str(config.root), train=split == "train", download=False)
    except RuntimeError:
        raise UserError(
            f"no whole {config.name} in '{folder}'; download {url} and unpack it in "
            f"'{config.root}' (data.root), so that this folder holds the published batch files"
        ) from None
    return ImageSet.from_array(config.name, source.data, source.targets, source.classes)


def _image_folder(config: DataConfig, split: Split) -> ImageSet:
    assert config.root is not None
    train_folder = config.root / config.train_dir
    train = partial(find_images, train_folder, "data.train_dir", config.on_broken)
    if split == "train":
        files, classes = train()
        class_names = None if None in classes else sorted({str(name) for name in classes})
    else:
        files, classes = find_images(
            config.root / config.test_dir, "data.test_dir", config.on_broken
        )
        class_names = _class_folders(train_folder)
        unknown = sorted({str(name) for name in classes} - set(class_names))
        if unknown:
            raise UserError(
                f"'{config.root / config.test_dir}' holds class folders that '{train_folder}' "
                f"lacks: {', '.join(unknown[:5])}"
            )
    labels = None
    if class_names is not None:
        number = {name: index for index, name in enumerate(class_names)}
        labels = [number[str(name)] for name in classes]
    return ImageSet("imagefolder", files, read_image, labels, class_names or [])


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise UserError(f"'{folder}' (data.train_dir) is not a folder")
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )
