"""Define the settings of the images that a run or an evaluation reads."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from rsa_pretrain.data import sets
from rsa_pretrain.data.read_settings import ReadRules
from rsa_pretrain.data.shards.settings import SampleRules
from rsa_pretrain.plumbing.config.files import Section
from rsa_pretrain.plumbing.user_paths import expand_user

RGB = tuple[float, float, float]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what scikit-learn takes
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
UserPathText = Annotated[str, AfterValidator(expand_user)]
Interpolation = Literal["bilinear", "bicubic"]


class _DataSet(Section):
    """The settings that every data set has; a base class, so that `--help` lists them first."""

    name: Annotated[
        str,
        AfterValidator(lambda name: sets.data_set(name).name),
        Field(description=f"Data set: {', '.join(entry.name for entry in sets.DATA_SETS)}."),
    ]
    root: Path | None = None
    """Folder that contains the data set (not used by digits; webdataset may name `shards`)."""
    image_size: Annotated[int, Field(ge=8, le=1024)]
    """Side of the square network input, in pixels."""
    eval_resize: Annotated[int, Field(ge=8, le=2048)] | None = None
    """Evaluation resizes the short side to this and crops the centre; null: to the square."""
    eval_interpolation: Interpolation = "bilinear"
    """Interpolation of evaluation's resize and of the random crops of probes and fine-tuning."""
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
    train_dir: UserPathText = "train"
    """imagefolder, imagenet, imagenet100: training images are root/train_dir/CLASS/… (`.` is
    the root itself); webdataset: training shards are root/train_dir/*.tar (or .tar.gz, .tgz, …)."""
    test_dir: UserPathText = "val"
    """The same for the test images."""
    on_broken: Literal["error", "skip", "unchecked"] = "error"
    """imagefolder: decode every file at the start and refuse, or skip, unreadable images;
    unchecked trusts the files and stops at the first that cannot be decoded."""
    class_list: Path | None = None
    """imagenet100: text file of the classes to use, one WordNet id a line; null: the usual 100."""
    stl10_fold: Annotated[int, Field(ge=0, le=9)] | None = None
    """stl10: use the 1,000 images of this predefined fold as the training images of an
    evaluation or of supervised training; null: all 5,000."""
    shards: str | tuple[str, ...] | None = None
    """webdataset: training shards, as patterns like part-{000000..000146}.tar: local paths (below
    `root`, where that is set), URLs, or `pipe:` and a shell command that writes the tar."""
    test_shards: str | tuple[str, ...] | None = None
    """webdataset: the same for the test images."""
    shard_sizes: Path | None = None
    """webdataset: JSON file, shard name → number of images; null: sizes.json beside local shards,
    which are counted where there is none."""
    shuffle_buffer: Annotated[int, Field(ge=1)] = 1000
    """webdataset: number of images from which each loader process draws the next one."""
    num_workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes (0 loads in the main process); only a webdataset's order depends on it."""


class DataConfig(SampleRules, ReadRules, _DataSet):
    """The images: which ones, where they are stored and how they enter the network."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_files()
        if (self.mean is None) != (self.std is None):
            raise ValueError("set both data.mean and data.std, or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"data.std must be positive, found {self.std}")
        if self.eval_resize is not None and self.eval_resize < self.image_size:
            raise ValueError(
                f"data.eval_resize {self.eval_resize} must not be below data.image_size "
                f"{self.image_size}"
            )
        return self

    def _check_files(self) -> None:
        own = sets.data_set(self.name)
        if not own.location and self.root is not None:
            raise ValueError(f"data set '{self.name}' is embedded and takes no data.root")
        if own.location and all(getattr(self, field) is None for field in own.location):
            needed = " or ".join(f"data.{field}" for field in own.location)
            raise ValueError(f"data set '{self.name}' needs {needed}, where its files are")
        for other in sets.DATA_SETS:
            for field in other.settings:
                default = type(self).model_fields[field].default
                if field not in own.settings and getattr(self, field) != default:
                    raise ValueError(f"data.{field} belongs to '{other.name}', not to '{own.name}'")
