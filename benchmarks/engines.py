"""Time the training of both detection engines, each by its own loop, on drawn images."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Measurement
from detection.coco.shapes import ShapesConfig, write_shapes
from detection.engines import ENGINES, load_engine
from detection.job.job import open_job
from detection.job.trunk import random_trunk
from detection.recipe.recipe import EngineName, Recipe
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.plumbing.stop_signal import StopSignal


class EngineSettings(BenchmarkSettings):
    """A recipe, shortened to a few iterations."""

    on_gpu: ClassVar[dict[str, Any]] = {
        "recipe": "mask_rcnn_R_50_FPN_1x",
        "batch_size": 16,
        "image_size": 640,
        "iterations": 20,
        "precision": "bf16",
        "num_workers": 8,
    }

    recipe: str = "toy_shapes"
    """Name of the recipe."""
    batch_size: Annotated[int, Field(ge=1)] = 2
    """Images per iteration, halved until they fit in the GPU's memory."""
    image_size: Annotated[int, Field(ge=32)] = 128
    """Side of the drawn images, before the recipe resizes them."""
    iterations: Annotated[int, Field(ge=2)] = 6
    """Iterations, of which the second half is timed."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes."""


def measure(settings: EngineSettings) -> Measurement:
    """Train each engine that is installed."""
    figures: list[Figure] = []
    seconds: dict[str, list[float]] = {}
    facts: dict[str, str] = {}
    for engine in ENGINES:
        try:
            load_engine(engine)
        except UserError as error:
            facts[f"engine {engine}"] = str(error)
            continue
        batch_size, line = _train_what_fits(settings, engine)
        seconds[engine] = [line["seconds_per_iteration"]]
        figures += [
            Figure(what=engine, value=line["images_per_second"], unit="images/s"),
            Figure(what=f"{engine}: batch that fits", value=batch_size, unit="images"),
            Figure(
                what=f"{engine}: time waiting for images", value=line["data_wait"], unit="share"
            ),
        ]
    return Measurement([], seconds, figures, facts)


def _train_what_fits(settings: EngineSettings, engine: EngineName) -> tuple[int, dict[str, float]]:
    batch_size = settings.batch_size
    while True:
        try:
            return batch_size, train_engine(settings, engine, batch_size)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
        batch_size //= 2
        torch.cuda.empty_cache()


def train_engine(settings: EngineSettings, engine: EngineName, batch_size: int) -> dict[str, float]:
    """Train an engine and return the last line of its log, the mean of the second half."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shapes = ShapesConfig(
            num_train=2 * settings.batch_size,
            num_test=1,
            image_size=settings.image_size,
            seed=settings.seed,
        )
        write_shapes(folder / "shapes", shapes)
        recipe = _shortened(settings, engine, batch_size, folder)
        job = open_job(recipe, random_trunk(recipe.model, recipe.seed))
        recipe.output_dir.mkdir()
        with StopSignal() as stop:
            load_engine(engine).train(job, recipe.output_dir, None, stop)
        return read_metrics(recipe.output_dir / METRICS_FILE)[-1]


def _shortened(
    settings: EngineSettings, engine: EngineName, batch_size: int, folder: Path
) -> Recipe:
    shapes = folder / "shapes"
    changes = {
        "engine": engine,
        "output_dir": str(folder / "run"),
        "seed": settings.seed,
        "data.train_annotations": str(shapes / "annotations" / "instances_train.json"),
        "data.train_images": str(shapes / "train"),
        "data.test_annotations": str(shapes / "annotations" / "instances_val.json"),
        "data.test_images": str(shapes / "val"),
        "data.num_workers": settings.num_workers,
        "solver.batch_size": batch_size,
        "solver.reference_batch_size": batch_size,
        "solver.iterations": settings.iterations,
        "solver.decay_at": [],
        "solver.warmup_iterations": 1,
        "training.device": settings.device,
        "training.precision": settings.precision,
        "training.precise_bn_iterations": None,
        "training.log_every_iterations": settings.iterations // 2,
    }
    # JSON is valid YAML.
    words = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return load_config(Recipe, settings.recipe, words)


BENCHMARK = Benchmark(
    settings=EngineSettings,
    measure=measure,
    summary="Training of the detection engines, by their own loops.",
)
