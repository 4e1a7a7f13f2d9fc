"""Set up a small linear probe on real images for the probe benchmarks."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from benchmarks.images import CIFAR_BATCHES, unpack_cifar
from benchmarks.measure import BenchmarkSettings
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.linear.evaluator import evaluate_linear
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.records.record import Result
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError


class ProbeTaskSettings(BenchmarkSettings):
    """A ResNet-18 (standard stem, random weights) on a class-balanced part of CIFAR-10.

    The images come from the folder ``cifar10/`` below RSA_DATA.
    """

    num_train_images: Annotated[int, Field(ge=20)] = 400
    """Images the probe is trained on."""
    num_test_images: Annotated[int, Field(ge=1)] = 400
    """Images it is tested on."""


class ProbeTask:
    """One backbone and image set, evaluated by successive probes.

    Args:
        settings: Numbers of images.
        folder: Folder of the image files, train/CLASS/ and val/CLASS/.
    """

    def __init__(self, settings: ProbeTaskSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self._subject: Subject = load_subject(None, self.config({}))

    def config(self, probe: dict[str, Any], protocol: str = "moco_v2") -> LinearConfig:
        """Return the settings of an evaluation with changes to its protocol's probe."""
        tree = {
            "protocol": protocol,
            "data": {
                "name": "imagefolder",
                "root": str(self.folder),
                "image_size": 32,
                "on_broken": "unchecked",
                "num_workers": 0,
            },
            "backbone": {"arch": "resnet18", "stem": "standard"},
            "seed": self.settings.seed,
            "device": self.settings.device,
            "probe": probe,
        }
        return parse_tree(LinearConfig, tree, "benchmark")

    def evaluate(self, config: LinearConfig) -> Result:
        """Train and test a probe."""
        workspace = Workspace(self.folder / "record.json")
        return evaluate_linear(self._subject, config, workspace)


@contextmanager
def probe_task(settings: ProbeTaskSettings) -> Iterator[ProbeTask]:
    """Write the images to a folder for the duration of the block.

    Raises:
        UserError: If RSA_DATA has no CIFAR-10.
    """
    source = Path(os.environ.get("RSA_DATA", ""), "cifar10", CIFAR_BATCHES)
    if not source.is_dir():
        raise UserError(f"RSA_DATA should name a folder that holds cifar10/{CIFAR_BATCHES}/")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack_cifar(source, folder / "published" / CIFAR_BATCHES)
        _write_images(settings, folder)
        yield ProbeTask(settings, folder)


def _write_images(settings: ProbeTaskSettings, folder: Path) -> None:
    config = DataConfig(
        name="cifar10",
        root=folder / "published",
        image_size=32,
        num_train_images=settings.num_train_images,
        num_test_images=settings.num_test_images,
        subset_seed=settings.seed,
    )
    for images, split in (
        (open_images(config, "train"), "train"),
        (open_images(config, "test"), "val"),
    ):
        for index, label in enumerate(images.require_labels()):
            path = folder / split / images.class_names[label] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images[index].save(path)
