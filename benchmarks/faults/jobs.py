"""List the commands that are killed and starved, each a small one of its kind."""

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from detection.coco.shapes import ShapesConfig, write_shapes
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.atomic_files import write_text

_NETWORK = "backbone.arch=resnet18 backbone.width=16 backbone.stem=cifar"
_IMAGES = "data.num_train_images=20 data.num_test_images=20 data.image_size=16"
_PRETRAIN = (
    f"rsa_pretrain run digits/rsa {_NETWORK} data.image_size=16 method.hidden_dim=16 "
    "method.output_dim=8 training.epochs=2 training.global_batch_size=8 optimizer.warmup_epochs=1 "
    "training.checkpoint_every_epochs=1 training.keep_checkpoints=1 "
    "monitor.log_every_steps=1 training.device=cpu output_dir=out/run --resume"
)
_DETECT = (
    "detection train toy_shapes --checkpoint {inputs}/resnet18 --resume output_dir=out/run "
    "data.train_annotations={inputs}/shapes/annotations/instances_train.json "
    "data.train_images={inputs}/shapes/train "
    "data.test_annotations={inputs}/shapes/annotations/instances_val.json "
    "data.test_images={inputs}/shapes/val input.train_short_sides_pixels=[48] "
    "input.test_short_side_pixels=48 input.max_side_pixels=64 sampling.proposals_per_image=20 "
    "sampling.rois_per_image=8 solver.iterations=4 solver.decay_at=[3] "
    "solver.warmup_iterations=1 training.checkpoint_every_iterations=2 training.keep_checkpoints=1 "
    "training.log_every_iterations=1 training.device=cpu"
)
_SUITE = """\
data: {name: digits, image_size: 16, num_train_images: 20, num_test_images: 20, num_workers: 0}
evaluations:
  knn: {}
  logistic: {}
  linear:
    settings:
      {probe.epochs: 2, probe.milestones: [1], probe.batch_size: 8, save_every_minutes: 0}
"""


@dataclass(frozen=True)
class Job:
    """A command; ``{inputs}`` in it stands for what it reads, and it writes below ``out``.

    Attributes:
        name: For tables.
        command: Words after ``python -m``, separated by spaces.
        ranks: Number of processes, as started by torchrun.
        weight: Share of the faults, relative to the others.
        once: Whether it refuses to run again where its result is.
    """

    name: str
    command: str
    ranks: int = 1
    weight: int = 1
    once: bool = False

    @property
    def has_loaders(self) -> bool:
        """Return whether the command starts loader processes."""
        return "num_workers=2" in self.command

    def words(self, inputs: Path) -> list[str]:
        """Return the words after ``python``."""
        return ["-m", *(word.format(inputs=inputs) for word in self.command.split())]


def jobs() -> list[Job]:
    """Return the jobs that can run here; detectron2's engine only where it is installed."""
    detectors = [Job("detection, torchvision", _DETECT)]
    if find_spec("detectron2") is not None:
        detectors.append(Job("detection, detectron2", f"{_DETECT} engine=detectron2"))
    return [
        Job(
            "pretraining, pillow views, loader processes",
            f"{_PRETRAIN} data.num_train_images=16 views.implementation=pillow data.num_workers=2",
            weight=2,
        ),
        Job(
            "pretraining, batched views",
            f"{_PRETRAIN} data.num_train_images=16 views.implementation=batched",
            weight=2,
        ),
        Job(
            "pretraining, shards",
            f"{_PRETRAIN} data.name=webdataset data.root={{inputs}}/shards data.train_dir=. "
            "data.mean=[0.5,0.5,0.5] data.std=[0.3,0.3,0.3] data.num_workers=2 "
            "views.implementation=pillow",
            weight=2,
        ),
        Job(
            "pretraining, two processes",
            f"{_PRETRAIN} data.num_train_images=16 views.implementation=pillow",
            ranks=2,
            weight=2,
        ),
        Job("features", f"rsa_eval features {{inputs}}/run {_IMAGES} cache_dir=out/features"),
        Job(
            "linear probe",
            f"rsa_eval linear {{inputs}}/run {_IMAGES} --out out/records/linear.json "
            "probe.epochs=2 probe.milestones=[1] probe.batch_size=8 save_every_minutes=0",
        ),
        Job(
            "fine-tuning",
            f"rsa_eval finetune {{inputs}}/run {_IMAGES} --out out/records/finetune.json "
            "--config finetune/all_labels tuning.epochs=2 tuning.milestones=[1] "
            "tuning.batch_size=8 save_every_minutes=0",
        ),
        Job("suite", "rsa_eval suite {inputs}/run --suite {inputs}/suite.yaml --out out/suite"),
        *detectors,
        Job("import", "rsa_pretrain import {inputs}/foreign.pth out/imported.safetensors"),
        Job(
            "export",
            "rsa_pretrain export {inputs}/resnet18 out/exported --to huggingface",
            once=True,
        ),
        Job("report", "rsa_eval report {inputs}/records --out out/report.html"),
    ]


def prepare_inputs(inputs: Path, run: Callable[[str], None]) -> None:
    """Write what the jobs read.

    Args:
        inputs: New folder.
        run: Runs a command, of words after ``python -m``.
    """
    run(f"{_PRETRAIN} data.num_train_images=16 output_dir={inputs}/run")
    run(
        "rsa_pretrain run digits/rsa backbone.width=64 data.num_train_images=16 "
        "training.epochs=1 training.global_batch_size=8 optimizer.warmup_epochs=0 "
        f"training.device=cpu output_dir={inputs}/resnet18"
    )
    for protocol in ("knn", "logistic"):
        run(f"rsa_eval {protocol} {inputs}/run {_IMAGES} --out {inputs}/records/{protocol}.json")
    write_shapes(inputs / "shapes", ShapesConfig(num_train=6, num_test=3, image_size=64, seed=3))
    _write_shards(inputs / "shards")
    write_text(inputs / "suite.yaml", _SUITE)
    torch.manual_seed(0)
    network = build_backbone(BackboneConfig.named("resnet18", "standard"))
    torch.save({"state_dict": network.state_dict(), "epoch": 1}, inputs / "foreign.pth")


def _write_shards(folder: Path) -> None:
    folder.mkdir()
    images = open_images(DataConfig(name="digits", image_size=16, num_train_images=16), "train")
    for part in range(4):
        with tarfile.open(folder / f"part-{part}.tar", "w") as shard:
            for number in range(4 * part, 4 * part + 4):
                content = io.BytesIO()
                images[number].save(content, "PNG")
                member = tarfile.TarInfo(f"{number:03}.png")
                member.size = content.tell()
                content.seek(0)
                shard.addfile(member, content)
