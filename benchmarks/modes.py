"""The ways in which a GPU runs training steps, and bare passes with them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch

from benchmarks.measure import Device
from rsa_pretrain.plumbing.device import tuned_convolutions
from rsa_pretrain.training.captured import EAGER_STEPS, CudaGraph, capture_stream

Mode = Literal["eager", "captured", "compiled"]
"""Captured: forward and backward pass replayed as a CUDA graph; compiled: so, with compiled
backbones."""


def label(name: str, mode: Mode) -> str:
    """Return the name of a candidate in a mode."""
    return name if mode == "eager" else f"{name}, {mode}"


def training_in(mode: Mode | None, device: Device) -> dict[str, Any]:
    """Return the settings of ``training`` for a mode; None leaves the choice to the trainer.

    A CPU captures nothing; on a GPU it is an error if a step cannot be captured.
    """
    if mode is None:
        return {}
    graph = "auto" if device == "cpu" else mode != "eager"
    return {"compile": mode == "compiled", "cuda_graph": graph}


@contextmanager
def as_in_training(device: Device) -> Iterator[None]:
    """Run the block as the trainer runs its steps: tuned, and on a stream that can be captured."""
    with ExitStack() as stack:
        if device == "cuda":
            stack.enter_context(tuned_convolutions())
            stack.enter_context(capture_stream(torch.device(device)))
        yield


def in_mode(work: Callable[[], Any], mode: Mode, device: Device) -> Callable[[], object]:
    """Return work as it runs in a mode; call it within ``as_in_training``, and there run it.

    Args:
        work: Reads and writes the same tensors each time.
        mode: Eager returns it as it is, the others replay it as a CUDA graph.
        device: On a CPU, work is returned as it is.
    """
    if mode == "eager" or device == "cpu":
        return work
    for _ in range(EAGER_STEPS):
        work()
    graph = CudaGraph()
    graph.record(work)
    return graph.replay
