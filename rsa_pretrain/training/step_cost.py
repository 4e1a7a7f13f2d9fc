"""Measure a run's cost on this machine: a few real steps of its network on generated images."""

import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rsa_pretrain.config import MonitorConfig, PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.image_sources import PixelArray
from rsa_pretrain.methods.settings import SupervisedConfig
from rsa_pretrain.plumbing.device import resolve_device
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import available_memory
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.plumbing.parent_process import stop_with
from rsa_pretrain.training.trainer import Trainer

_NUM_STEPS = 3
_NUM_PICTURES = 64


class StepCost(NamedTuple):
    """One optimizer step of a run on this machine."""

    seconds: float
    """Duration, with making the views but without decoding files."""
    memory_bytes: int
    """Peak memory of the GPU, or of the process without one."""


def measure_step(config: PretrainConfig, memory_limit_bytes: int | None = None) -> StepCost | None:
    """Take a few steps in a separate process, and time the last.

    Args:
        config: The run; its data are not read and its folder is not written.
        memory_limit_bytes: Memory the process may use without a GPU; None: all free memory.

    Returns:
        None if the memory is too small.

    Raises:
        UserError: If the device does not exist.
    """
    on_gpu = resolve_device(config.training.device).type == "cuda"
    free = available_memory()
    limit = memory_limit_bytes or (None if free is None else free.num_bytes)
    # In a separate process, being killed for its memory affects nothing else. The folder is not
    # that process's: without memory it might not be able to remove it.
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        try:
            own_limit = None if on_gpu else limit
            return pool.submit(_measure, config, Path(folder), own_limit).result()
        except (BrokenProcessPool, MemoryError):
            return None
        except (UserError, RuntimeError, OSError) as error:
            if "memory" not in str(error):
                raise
            return None


def _measure(config: PretrainConfig, folder: Path, limit: int | None) -> StepCost:
    stop_with(os.getppid())
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    Trainer(_short(config, folder), _pictures(config), resume=False).run()
    last = read_metrics(folder / METRICS_FILE)[-1]
    seconds = config.training.global_batch_size / last["images_per_second"]
    if resolve_device(config.training.device).type == "cuda":
        return StepCost(seconds, torch.cuda.max_memory_reserved())
    return StepCost(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _short(config: PretrainConfig, folder: Path) -> PretrainConfig:
    """Return the run shortened to one epoch of a few steps, each logged."""
    return config.model_copy(
        update={
            "output_dir": folder,
            "training": config.training.model_copy(update={"epochs": 1}),
            "optimizer": config.optimizer.model_copy(update={"warmup_epochs": 0.0}),
            "monitor": MonitorConfig(log_every_steps=1),
        }
    )


def _pictures(config: PretrainConfig) -> ImageSet:
    """Generate as many images as the steps need, of the network's input size."""
    side, method = config.data.image_size, config.method
    pixels = np.random.default_rng(0).integers(
        0, 256, (_NUM_PICTURES, side, side, 3), dtype=np.uint8
    )
    num_classes = method.num_classes if isinstance(method, SupervisedConfig) else 1
    rows = np.arange(_NUM_STEPS * config.training.global_batch_size)
    return ImageSet(
        "generated",
        PixelArray(pixels, "generated"),
        (rows % num_classes).tolist(),
        [str(number) for number in range(num_classes)],
        rows % _NUM_PICTURES,
    )
