"""Which images a run or an evaluation reads: every setting, its default and its meaning."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rsa_pretrain.config_files import Section

RGB = tuple[float, float, float]
Seed = Annotated[int, Field(ge=0)]


class DataConfig(Section):
    """Which images, where they lie and how they enter the network."""

    name: Literal["cifar10", "cifar100", "digits", "imagefolder"]
    """Data set; digits is embedded in scikit-learn, the others read files under `root`."""
    root: Path | None = None
    """Folder that holds the data set (not used by digits)."""
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """Side of the square network input, in pixels."""
    eval_resize: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Evaluation resizes the short side to this and crops the centre; null: to the square."""
    mean: RGB | None = None
    """Per-channel mean, for pixels in [0, 1]; null takes the data set's published value."""
    std: RGB | None = None
    """Per-channel standard deviation, for pixels in [0, 1]; null as for the mean."""
    num_train_images: Annotated[int, Field(ge=1)] | None = None
    """Use a class-balanced random subset of this many training images; null uses all."""
    num_test_images: Annotated[int, Field(ge=1)] | None = None
    """The same for the test images."""
    subset_seed: Seed = 0
    """Seed of both subsets."""
    train_dir: str = "train"
    """imagefolder: training images lie in root/train_dir/CLASS/… (`.` is the root itself)."""
    test_dir: str = "val"
    """imagefolder: test images lie in root/test_dir/CLASS/…"""
    on_broken: Literal["error", "skip", "unchecked"] = "error"
    """imagefolder: decode every file at the start and refuse, or leave out, what is no image;
    unchecked trusts the files and stops at the first that cannot be decoded."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes (0 loads in the main process); the images do not depend on it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.name != "digits" and self.root is None:
            raise ValueError(f"data set '{self.name}' needs data.root, the folder that holds it")
        if self.name == "digits" and self.root is not None:
            raise ValueError("data set 'digits' is embedded and takes no data.root")
        if (self.mean is None) != (self.std is None):
            raise ValueError("set both data.mean and data.std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"data.std must be positive, found {self.std}")
        if self.eval_resize is not None and self.eval_resize < self.image_size:
            raise ValueError(
                f"data.eval_resize {self.eval_resize} is below data.image_size {self.image_size}"
            )
        return self
