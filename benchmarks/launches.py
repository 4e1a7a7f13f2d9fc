"""Count the operations that a training step queues, and time queueing them.

A GPU is idle while the CPU queues a step's operations more slowly than it computes them. Both
numbers are taken on a CPU, with narrow networks on two images: the operations are those of the
whole networks, and on images of 8 pixels there is little arithmetic. The operations that make
views are counted for whole batches on torch's meta device, which computes nothing and, unlike a
CPU, takes a batch at once.
"""

import itertools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Measurement
from benchmarks.operations import OTHER, OperationCounter, counting, name_forwards
from benchmarks.training import BYOL, HIDDEN_DIM, OUTPUT_DIM, RSA, alternate_epochs
from rsa_pretrain.components.settings import USUAL_WIDTH
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import Tree, parse_tree
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.training.trainer import Trainer

_METHODS = {"RSA": RSA, "BYOL (AA)": BYOL}
_WIDTH = 16  # narrower networks are trained in another layout on a CPU
_FEW, _SMALL = 2, 8  # images of a step, and their side in pixels where it is timed
_WAIT, _VIEWS = "data wait", "views"
# Of a captured step the rest is launched singly; its layout copies the views to the graph's.
_CAPTURED = ("forward", "loss", "backward")


class LaunchSettings(BenchmarkSettings):
    """Steps of a ResNet-18 with the CIFAR stem, with batched views."""

    device: Literal["cpu"] = "cpu"
    """Device to run on."""
    batch_size: Annotated[int, Field(ge=2)] = 256
    """Images of which views are made."""
    image_size: Annotated[int, Field(ge=8)] = 32
    """Side of these views, in pixels."""
    precision: Precision = "bf16"
    """Autocast type of the forward passes."""
    num_skipped: Annotated[int, Field(ge=1)] = 8
    """Steps before those that are counted or timed; like their number, whole blocks of 8 batches,
    whose views are made at once."""
    num_steps: Annotated[int, Field(ge=1)] = 32
    """Steps that are counted, and timed in each repeat."""


def measure(settings: LaunchSettings) -> Measurement:
    """Count and time the steps of RSA and BYOL."""
    figures = [
        figure
        for name, method in _METHODS.items()
        for figure in operation_figures(settings, name, method)
    ]
    candidates = {
        f"{name}{ending}": partial(seconds_per_step, settings, method, captured=captured)
        for name, method in _METHODS.items()
        for ending, captured in (("", False), (", outside a captured forward and backward", True))
    }
    seconds = alternate_epochs(candidates, settings.repeats)
    figures += [
        Figure(what=f"{name}: CPU time of a step", value=1e3 * statistics.median(runs), unit="ms")
        for name, runs in seconds.items()
    ]
    return Measurement([], seconds, figures)


def operation_figures(settings: LaunchSettings, name: str, method: Tree) -> list[Figure]:
    """Return a step's operations in total, outside a captured step, and by part for RSA."""
    every, computing = count_steps(settings, method)

    def figure(what: str, count: float) -> Figure:
        return Figure(what=f"{name}: {what}", value=count / settings.num_steps, unit="operations")

    outside = sum(n for part, n in computing.items() if not part.startswith(_CAPTURED))
    figures = [
        figure("a step", every.total()),
        figure("the same without tensor views and allocations", computing.total()),
        figure("of these outside a captured forward and backward", outside),
    ]
    if method is RSA:
        for part, count in every.items():
            figures += [
                figure(part, count),
                figure(f"{part}, without tensor views and allocations", computing[part]),
            ]
    return figures


def count_steps(settings: LaunchSettings, method: Tree) -> tuple[Counter[str], Counter[str]]:
    """Count the operations of ``num_steps`` steps by part: all, and those that compute."""
    views = _count_views(settings, method)
    with _trainer(settings, method, _FEW, settings.image_size) as trainer, counting() as step:

        def after_step(taken: int) -> None:
            step.active = settings.num_skipped <= taken < trainer.num_steps

        name_forwards(trainer.state.method)
        _call_after_each_step(trainer, after_step)
        trainer.run()
    for made_on_the_cpu in (_WAIT, _VIEWS):
        del step.every[made_on_the_cpu], step.computing[made_on_the_cpu]
    return views.every + step.every, views.computing + step.computing


def _count_views(settings: LaunchSettings, method: Tree) -> OperationCounter:
    """Count the operations that draw and make the views of ``num_steps`` whole batches."""
    size = settings.batch_size, settings.image_size
    with _trainer(settings, method, *size) as trainer, counting() as counter:
        trainer.device = torch.device("meta")
        for number, _ in enumerate(trainer._batches(), 1):
            counter.active = settings.num_skipped <= number < trainer.num_steps
    for counts in (counter.every, counter.computing):
        counts["draws and labels"] = counts.pop(OTHER, 0)
    return counter


class _Launched:
    """Passes that take the CPU no time after the first, as if a GPU replayed them."""

    def __init__(self, passes: Any) -> None:
        self._passes = passes
        self._output: Any = None

    def begin_step(self) -> None:
        """Keep the gradients, which a replay would overwrite."""

    def __call__(self, *batch: Any) -> Any:
        """Return the first pass's result."""
        if self._output is None:
            self._output = self._passes(*batch)
        return self._output


def seconds_per_step(settings: LaunchSettings, method: Tree, *, captured: bool) -> float:
    """Return the CPU seconds of the whole process per step, or per step outside its passes."""
    ends: list[float] = []
    with _trainer(settings, method, _FEW, _SMALL) as trainer:
        if captured:
            trainer._passes = _Launched(trainer._passes)  # type: ignore[assignment]
        _call_after_each_step(trainer, lambda _: ends.append(time.process_time()))
        trainer.run()
    return (ends[-1] - ends[settings.num_skipped - 1]) / settings.num_steps


def _call_after_each_step(trainer: Trainer, call: Callable[[int], object]) -> None:
    """Call a function with the number of steps taken, after the update of the target."""
    method = trainer.state.method
    update, count = method.after_optimizer_step, itertools.count(1)

    def update_and_call(*step: Any) -> None:
        update(*step)
        call(next(count))

    method.after_optimizer_step = update_and_call


@contextmanager
def _trainer(
    settings: LaunchSettings, method: Tree, batch_size: int, image_size: int
) -> Iterator[Trainer]:
    with tempfile.TemporaryDirectory() as folder:
        run = _run(settings, method, batch_size, image_size, Path(folder))
        yield Trainer(*run, resume=False)


def _run(
    settings: LaunchSettings, method: Tree, batch_size: int, image_size: int, folder: Path
) -> tuple[PretrainConfig, ImageSet]:
    """Return a run of one step an epoch, and its images."""
    num_steps = settings.num_skipped + settings.num_steps
    heads = {
        "hidden_dim": HIDDEN_DIM * _WIDTH // USUAL_WIDTH,
        "output_dim": OUTPUT_DIM * _WIDTH // USUAL_WIDTH,
    }
    tree: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "seed": settings.seed,
        "data": {"name": "cifar10", "root": str(folder), "image_size": image_size},
        "views": {"implementation": "batched"},
        "backbone": {"arch": "resnet18", "width": _WIDTH, "stem": "cifar"},
        "method": method | heads,
        "optimizer": {"base_lr": 0.1, "weight_decay": 5e-4},
        "training": {
            "epochs": num_steps,
            "global_batch_size": batch_size,
            "precision": settings.precision,
            "device": settings.device,
            "checkpoint_every_epochs": num_steps,
        },
        "monitor": {"log_every_steps": num_steps + 1},
    }
    shape = (batch_size, image_size, image_size, 3)
    pixels = np.random.default_rng(settings.seed).integers(0, 256, shape, np.uint8)
    images = ImageSet.from_array("noise", pixels, [0] * batch_size, ["noise"])
    return parse_tree(PretrainConfig, tree, "benchmark"), images


BENCHMARK = Benchmark(
    settings=LaunchSettings,
    measure=measure,
    summary="The operations that a training step queues, by part, and the CPU's time for them.",
)
