"""Measure images per second by loader processes, batch size and number of training processes."""

import math
import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch.utils.data import Dataset

from benchmarks.images import jpegs, small_images
from benchmarks.measure import Benchmark, Figure, Measurement, alternate, rates
from benchmarks.our_views import OurViews
from benchmarks.training import (
    RSA,
    TrainingSettings,
    alternate_epochs,
    epoch_ends,
    trainer_epoch,
)
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.loader import make_batch_loader
from rsa_pretrain.plumbing.device import resolve_device
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.distributed import process_group
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.views.crops import Crops

LOADING = "decode and crop twice, 224 px, loader processes: {}"

_PER_BATCH = 32

Counts = tuple[Annotated[int, Field(ge=1)], ...]


class ScalingSettings(TrainingSettings):
    """Quantities to vary, one at a time."""

    repeats: Annotated[int, Field(ge=1)] = 1
    """Timed runs of each candidate, after a warm-up run."""
    num_photos: Annotated[int, Field(ge=1)] = 512
    """JPEG files that loader processes decode and crop to 224 pixels, twice each."""
    num_workers: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Loader processes; 0 is the main process."""
    batch_sizes: Counts = (64, 128, 256)
    """Images per training step, 32 x 32 pixels, one process."""
    num_processes: Counts = (1, 2)
    """Processes that train together, one GPU each, with batch_size images per step in total."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes."""


def measure(settings: ScalingSettings) -> Measurement:
    """Time each series; there are no bounds.

    Raises:
        UserError: If there are fewer GPUs than processes.
    """
    most, gpus = max(settings.num_processes, default=1), torch.cuda.device_count()
    if settings.device == "cuda" and most > gpus:
        raise UserError(f"num_processes asks for {most} GPUs, but there is {gpus}; set less")
    files = jpegs(settings.num_photos, settings.seed).files
    loading = {
        LOADING.format(workers): partial(load_crops, settings, files, workers)
        for workers in settings.num_workers
    }
    seconds = alternate(loading, settings.repeats, "cpu")
    figures = rates(seconds, len(files))
    kilobytes = sum(map(len, files)) / len(files) / 1000
    figures.append(Figure(what="mean size of these JPEG files", value=kilobytes, unit="kB"))
    images = small_images(settings.num_images, settings.seed)
    training = {
        f"RSA, 32 px, batches of {batch_size}": partial(
            trainer_epoch,
            settings.model_copy(update={"batch_size": batch_size}),
            RSA,
            settings.precision,
            images,
        )
        for batch_size in settings.batch_sizes
    } | {
        f"RSA, 32 px, processes: {count}": partial(parallel_epoch, settings, count, images)
        for count in settings.num_processes
    }
    epochs = alternate_epochs(training, settings.repeats)
    for name, runs in epochs.items():
        figures += rates({name: runs}, settings.num_images)
    return Measurement([], seconds | epochs, figures)


def load_crops(settings: ScalingSettings, files: list[bytes], num_workers: int) -> None:
    """Make both crops of each file in loader processes, as a GPU would need them."""
    batches = _CropBatches(OurViews("multi_stage", 224, "cpu", settings.seed), files)
    for _ in make_batch_loader(batches, range(len(batches)), num_workers, torch.device("cpu")):
        pass  # The batches are discarded.


class _CropBatches(Dataset[Crops]):
    def __init__(self, views: OurViews, files: list[bytes]) -> None:
        self.views = views
        self.files = files

    def __len__(self) -> int:
        return math.ceil(len(self.files) / _PER_BATCH)

    def __getitem__(self, batch: int) -> Crops:
        start = batch * _PER_BATCH
        return self.views.crops(self.files[start : start + _PER_BATCH])


def parallel_epoch(settings: ScalingSettings, num_processes: int, images: ImageSet) -> float:
    """Train two epochs in new processes and return the seconds of the second."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(num_processes, multiprocessing.get_context("spawn")) as pool:
        members = [
            pool.submit(_train_as, rank, num_processes, port, settings, images)
            for rank in range(num_processes)
        ]
        ends, *_ = [member.result() for member in members]
    first, second = ends
    return second - first


def _train_as(
    rank: int, num_processes: int, port: int, settings: ScalingSettings, images: ImageSet
) -> list[float]:
    """Train as one of the processes; the main one returns the end times of the epochs."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    with process_group(resolve_device(settings.device)):
        return epoch_ends(settings, RSA, settings.precision, images)


BENCHMARK = Benchmark(
    settings=ScalingSettings,
    measure=measure,
    summary="Images per second by loader processes, batch size and training processes.",
)
