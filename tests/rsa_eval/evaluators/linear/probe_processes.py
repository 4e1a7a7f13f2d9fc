"""Worker of test_linear_distributed.py under torchrun: ``probe_processes.py TASK.json``.

Trains in float64, so that equal results compare as equal.
"""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from rsa_eval.__main__ import main as rsa_eval
from rsa_eval.evaluators.linear.batches import ReadOrder, cached_batches
from rsa_eval.evaluators.linear.heads import Heads, HeadTrainer, new_heads
from rsa_eval.evaluators.linear.probe import train_probe
from rsa_eval.evaluators.linear.settings import ProbeConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.scaling import unscaled
from rsa_pretrain.plumbing.distributed import is_main, process_group, rank
from rsa_pretrain.plumbing.stop_signal import Stopped

CPU = torch.device("cpu")


def new_state(task: dict[str, Any], path: Path) -> tuple[ProbeState, ReadOrder]:
    """Two float64 heads and the order in which they are trained."""
    probe = ProbeConfig(**task["probe"])
    start = new_heads(6, 3, probe, 0, CPU)
    heads = Heads(start.weight.double(), start.bias.double())
    order = ReadOrder(task["num_images"], probe.batch_size, probe.epochs, 0)
    return ProbeState(HeadTrainer(heads, probe), "same", path), order


def train(task: dict[str, Any], path: Path) -> ProbeState:
    """Train to the end, from the state at ``path`` if there is one."""
    state, order = new_state(task, path)
    state.restore()
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(order.num_images, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(3, (order.num_images,), generator=generator)
    batches = cached_batches(LabelledFeatures(features, labels), order, unscaled, CPU)
    train_probe(state, batches, order, save_every_minutes=5)
    return state


def train_stopped_by_the_second(task: dict[str, Any], path: Path) -> str:
    """Send SIGUSR1 to the last process only, during its sixth step."""
    original, taken = HeadTrainer.step, []

    def step(self: HeadTrainer, *arguments: Any) -> torch.Tensor:
        taken.append(1)
        if len(taken) == 6 and rank() == 1:
            signal.raise_signal(signal.SIGUSR1)
        return original(self, *arguments)

    HeadTrainer.step = step  # type: ignore[method-assign]
    try:
        train(task, path)
    except Stopped as stopped:
        return str(stopped)
    finally:
        HeadTrainer.step = original  # type: ignore[method-assign]
    return "not stopped"


def main(path: Path) -> None:
    """Run the tasks one after another."""
    torch.set_num_threads(1)
    tasks, folder = json.loads(path.read_text()), path.parent
    with process_group(CPU):
        for number, task in enumerate(tasks["trainings"]):
            state = train(task, folder / f"state-{number}.pt")
            torch.save(state.tensors(), folder / f"result-{number}-{rank()}.pt")
        why = train_stopped_by_the_second(tasks["trainings"][0], folder / "stopped.pt")
        (folder / f"stopped-{rank()}.txt").write_text(why)
        state = train(tasks["trainings"][0], folder / "stopped.pt")
        torch.save(state.tensors(), folder / f"resumed-{rank()}.pt")
        for words in tasks["commands"]:
            assert rsa_eval(words) == 0
        if is_main():
            (folder / "done").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
