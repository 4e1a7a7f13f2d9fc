"""Run the tasks of test_distributed.py under torchrun: ``two_processes.py TASK.json``.

Trains in float64, so that what is equal can be seen to be equal.
"""

import json
import signal
import sys
from pathlib import Path

import torch

from rsa_pretrain.components.shuffled_bn import shuffled_over_ranks
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.distributed import (
    gather,
    is_main,
    process_group,
    rank,
)
from rsa_pretrain.training.trainer import Trainer


def make_float64_trainer(tree, *, resume=False):
    """A trainer whose networks and views are float64."""
    config = parse_tree(PretrainConfig, tree, "run")
    torch.set_default_dtype(torch.float64)
    trainer = Trainer(config, open_images(config.data, "train"), resume=resume)
    torch.set_default_dtype(torch.float32)
    in_float32 = trainer._batches
    trainer._batches = lambda: (
        ([view.double() for view in views], labels) for views, labels in in_float32()
    )
    return trainer


def stop_second_process_at(trainer, step):
    """Let the last process, and no other, get SIGUSR1 during a step."""
    original = trainer._train_step

    def train_step(batches):
        original(batches)
        if trainer.state.step == step and rank() == 1:
            signal.raise_signal(signal.SIGUSR1)

    trainer._train_step = train_step


def exchange(folder):
    """Write what gather and shuffled_over_ranks return in each process."""
    images = torch.arange(4.0)[:, None] + 10 * rank()

    def network(batch):
        return torch.cat([batch, torch.full_like(batch, rank())], dim=1)

    shuffled = [shuffled_over_ranks(network, images).tolist() for _ in range(5)]
    photos = torch.rand(4, 3, 5, 5).to(memory_format=torch.channels_last) + rank()
    gathered_photos = gather(photos)[4 * rank() :][:4]
    same = torch.equal(gathered_photos, photos)
    same &= torch.equal(shuffled_over_ranks(lambda batch: batch, photos), photos)
    result = {
        "photos_kept": same,
        "gathered": gather(images).flatten().tolist(),
        "shuffled": shuffled,
    }
    (folder / f"exchange-{rank()}.json").write_text(json.dumps(result))


def main(path):
    """Do the tasks one after the other."""
    torch.set_num_threads(1)
    task = json.loads(path.read_text())
    with process_group(torch.device("cpu")):
        exchange(path.parent)
        for tree in task["runs"]:
            assert make_float64_trainer(tree).run() == 0
        trainer = make_float64_trainer(task["stopped_run"])
        stop_second_process_at(trainer, 2)
        code = trainer.run()
        (path.parent / f"exit-{rank()}").write_text(str(code))
        if is_main():
            (path.parent / "done").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
