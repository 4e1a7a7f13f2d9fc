"""Measure the cost of RSA's two weak views, from which the aggressive ones start anyway."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.images import jpegs, small_images
from benchmarks.measure import Benchmark, Finding, Measurement, alternate, ratio
from benchmarks.our_views import OurViews
from benchmarks.training import RSA, TrainingSettings, training_config
from rsa_pretrain.components.memory_layout import training_layout
from rsa_pretrain.components.optim import build_optimizer
from rsa_pretrain.plumbing.device import autocast
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.training.run_state import build_method
from rsa_pretrain.views.settings import ViewSet

_FOUR: ViewSet = "multi_stage"
_TWO: ViewSet = "aggressive_pair"


class ViewCostSettings(TrainingSettings):
    """One batch of images, and a step of RSA where a step is timed."""

    repeats: Annotated[int, Field(ge=1)] = 5
    """Timed runs of each candidate, after a warm-up run."""
    num_images: Annotated[int, Field(ge=4)] = 1024
    """Images of 32 x 32 pixels for views without a step."""
    num_photos: Annotated[int, Field(ge=1)] = 64
    """JPEG files for views of 224 x 224 pixels."""
    precision: Precision = "fp32"
    """Autocast type of the forward passes."""


def measure(settings: ViewCostSettings) -> Measurement:
    """Time views alone at both sizes, then views with a step."""
    small = small_images(settings.num_images, settings.seed)
    photos = jpegs(settings.num_photos, settings.seed)
    pixels = torch.stack([pil_to_tensor(small[index]) for index in range(len(small))])
    pixels = pixels.to(settings.device)
    groups = [
        (f"32 px, {small.name}: time of the views", _of_pixels(settings, pixels), 1.1),
        (f"224 px, {photos.source}: time of the views", _of_files(settings, photos.files), 1.1),
        (
            f"32 px, {small.name}: time of views and one training step of {settings.arch}",
            _with_step(settings, pixels[: settings.batch_size]),
            1.03,
        ),
    ]
    findings, seconds = [], {}
    for what, candidates, limit in groups:
        seconds |= alternate(candidates, settings.repeats, settings.device)
        four, two = candidates
        findings.append(
            Finding(
                what=f"{what}, four views over two",
                value=ratio(seconds, four, two),
                unit="×",
                bound="at most",
                limit=limit,
            )
        )
    return Measurement(findings, seconds)


def _of_pixels(settings: ViewCostSettings, pixels: Tensor) -> dict[str, Callable[[], object]]:
    four, two = (OurViews(name, 32, settings.device, settings.seed) for name in (_FOUR, _TWO))
    return {
        "four views, 32 px": lambda: four.of_pixels(pixels),
        "two views, 32 px": lambda: two.of_pixels(pixels),
    }


def _of_files(settings: ViewCostSettings, files: list[bytes]) -> dict[str, Callable[[], object]]:
    four, two = (OurViews(name, 224, settings.device, settings.seed) for name in (_FOUR, _TWO))
    return {
        "four views, 224 px": lambda: four.of_files(files),
        "two views, 224 px": lambda: two.of_files(files),
    }


def _with_step(settings: ViewCostSettings, pixels: Tensor) -> dict[str, Callable[[], object]]:
    """Feed the same step with four views, or with two that serve as both aggressive and weak."""
    four, two = (OurViews(name, 32, settings.device, settings.seed) for name in (_FOUR, _TWO))
    step = RSAStep(settings)
    return {
        "four views and step": lambda: step(four.of_pixels(pixels)),
        "two views and step": lambda: step(2 * two.of_pixels(pixels)),
    }


class RSAStep:
    """The training step of RSA, without a trainer.

    Args:
        settings: Network, precision and device.
    """

    def __init__(self, settings: ViewCostSettings) -> None:
        torch.manual_seed(settings.seed)
        config = training_config(settings, RSA, settings.precision, Path())
        self.precision = settings.precision
        self.device = torch.device(settings.device)
        method = build_method(config).to(self.device)
        self.layout = training_layout(method, self.device)
        self.method = method.to(memory_format=self.layout)
        self.optimizer = build_optimizer(self.method, config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = config.optimizer.base_lr

    def __call__(self, views: list[Tensor]) -> None:
        """Train on ``[v_a, v_a', v_w, v_w']``."""
        self.optimizer.zero_grad()
        with autocast(self.precision, self.device):
            views = [view.to(memory_format=self.layout) for view in views]
            output = self.method(views, self.method.scalars(0.0))
        output.loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.method.after_optimizer_step(0.0, [output])


BENCHMARK = Benchmark(
    settings=ViewCostSettings,
    measure=measure,
    summary="RSA's four views compared with the two aggressive ones of other methods.",
)
