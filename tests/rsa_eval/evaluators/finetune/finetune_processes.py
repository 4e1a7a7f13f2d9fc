"""Worker of test_finetune_distributed.py under torchrun: ``finetune_processes.py TASK.json``.

Trains in float64, so that equal results compare as equal.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn

from rsa_eval.__main__ import main as run_command
from rsa_eval.evaluators.finetune.batches import EvenOrder, training_steps
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import ClassTask
from rsa_eval.evaluators.finetune.tuning import Classifier, Tuning
from rsa_eval.evaluators.shared.resumable import StateFile
from rsa_eval.features.subject import Subject, load_subject
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.distributed import process_group, rank

CPU = torch.device("cpu")


class NoNorm(nn.Identity):
    """Replacement for BatchNorm, whose statistics depend on the split into processes."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def without_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm below a module, and keep activations from blowing up."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, NoNorm(child.num_features))
        else:
            without_batchnorm(child)
        if isinstance(child, nn.Conv2d):
            child.weight.data *= 0.5


def tune(task: dict[str, Any], path: Path, *, batchnorm: bool) -> Tuning:
    """Fine-tune to the end."""
    config = parse_tree(FinetuneConfig, task["config"], "task")
    subject: Subject = load_subject(Path(task["run"]), config)
    if not batchnorm:
        without_batchnorm(subject.backbone)
    images = open_images(config.data, "train")
    order = EvenOrder(len(images), config.tuning, config.seed)
    classifier = Classifier(subject.backbone, 10, config.seed).double()
    tuning = Tuning(classifier, config, order, StateFile(path, "same"), ClassTask(images).loss)
    steps = training_steps(subject, images, order, tuning.step, config)
    tuning.run((views.double(), labels, size) for views, labels, size in steps)
    return tuning


def main(path: Path) -> None:
    """Run the task with and without BatchNorm and write each process's result; then a command."""
    torch.set_num_threads(1)
    task, folder = json.loads(path.read_text()), path.parent
    counted = mock.patch.object(distributed, "new_group", wraps=distributed.new_group)
    with process_group(CPU), counted as new_group:
        for name, batchnorm in (("plain", False), ("batchnorm", True)):
            tuning = tune(task, folder / f"{name}.pt", batchnorm=batchnorm)
            result = {"tensors": tuning.classifier.state_dict(), "losses": tuning.losses}
            torch.save(result, folder / f"{name}-{rank()}.pt")
        assert run_command(task["command"]) == 0
        (folder / f"groups-{rank()}.txt").write_text(str(new_group.call_count))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
