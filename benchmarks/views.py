"""Compare making four views of an image with the usual pipeline of torchvision and PIL."""

import io
from collections.abc import Callable
from functools import partial
from typing import Annotated

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor

from benchmarks.images import jpegs, small_images
from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Finding,
    Measurement,
    alternate,
    peak_memory,
    rates,
    ratio,
)
from benchmarks.our_views import OurViews
from benchmarks.usual_views import UsualViews
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.sets import data_set

_AT_32 = "usual, 32 px", "batched, 32 px"
_USUAL_224, _OURS_224 = "usual, 224 px", "batched, 224 px"
_CROPS_224 = "decoded crops alone, 224 px"


class ViewsSettings(BenchmarkSettings):
    """Numbers of images and batch size."""

    num_small_images: Annotated[int, Field(ge=1)] = 1024
    """Images of 32 x 32 pixels, in memory."""
    num_photos: Annotated[int, Field(ge=1)] = 64
    """JPEG files, in memory, for views of 224 x 224 pixels."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Images per batch; the usual pipeline takes one at a time."""


def measure(settings: ViewsSettings) -> Measurement:
    """Time both pipelines at both sizes."""
    small = small_images(settings.num_small_images, settings.seed)
    photos = jpegs(settings.num_photos, settings.seed)
    of_small, of_photos = _of_small(settings, small), _of_photos(settings, photos.files)
    seconds_small = alternate(of_small, settings.repeats, settings.device)
    seconds_large = alternate(of_photos, settings.repeats, settings.device)
    figures = rates(seconds_small, len(small)) + rates(seconds_large, len(photos.files))
    figures += peak_memory(of_small | of_photos, settings)
    seconds = seconds_small | seconds_large
    findings = [
        _finding(f"32 px, {small.name}: four views", ratio(seconds, *_AT_32), 8),
        _finding(
            f"224 px, {photos.source}: what remains on the CPU when a GPU does the rest",
            ratio(seconds, _USUAL_224, _CROPS_224),
            3.5,
        ),
        _finding(
            f"224 px, {photos.source}: four views", ratio(seconds, _USUAL_224, _OURS_224), 1.3
        ),
    ]
    return Measurement(findings, seconds, figures)


def _finding(what: str, value: float, limit: float) -> Finding:
    name = f"{what}: images/s over those of the usual pipeline"
    return Finding(what=name, value=value, unit="×", bound="at least", limit=limit)


def _of_small(settings: ViewsSettings, images: ImageSet) -> dict[str, Callable[[], None]]:
    usual, ours = _AT_32
    pixels = torch.stack([pil_to_tensor(images[index]) for index in range(len(images))])
    return {
        usual: partial(_usual_views_of_images, images),
        ours: partial(_our_views_of_images, settings, pixels),
    }


def _of_photos(settings: ViewsSettings, files: list[bytes]) -> dict[str, Callable[[], None]]:
    return {
        _USUAL_224: partial(_usual_views_of_files, files),
        _CROPS_224: partial(_our_crops_of_files, settings, files),
        _OURS_224: partial(_our_views_of_files, settings, files),
    }


def _usual_views_of_images(images: ImageSet) -> None:
    views = UsualViews(32, *data_set("cifar10").normalisation)
    for index in range(len(images)):
        views(images[index])


def _usual_views_of_files(files: list[bytes]) -> None:
    views = UsualViews(224, *data_set("imagenet").normalisation)
    for file in files:
        views(Image.open(io.BytesIO(file)).convert("RGB"))


def _our_views_of_images(settings: ViewsSettings, pixels: Tensor) -> None:
    views = OurViews("multi_stage", 32, settings.device, settings.seed)
    for batch in torch.split(pixels.to(settings.device), settings.batch_size):
        views.of_pixels(batch)


def _our_crops_of_files(settings: ViewsSettings, files: list[bytes]) -> None:
    views = OurViews("multi_stage", 224, settings.device, settings.seed)
    for start in range(0, len(files), settings.batch_size):
        views.crops(files[start : start + settings.batch_size])


def _our_views_of_files(settings: ViewsSettings, files: list[bytes]) -> None:
    views = OurViews("multi_stage", 224, settings.device, settings.seed)
    for start in range(0, len(files), settings.batch_size):
        views.of_files(files[start : start + settings.batch_size])


BENCHMARK = Benchmark(
    settings=ViewsSettings,
    measure=measure,
    summary="Four views of an image compared with torchvision's v1 transforms on PIL images.",
)
