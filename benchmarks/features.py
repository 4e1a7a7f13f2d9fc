"""Compare feature extraction with the bare forward passes of the same images, all in memory."""

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from benchmarks.measure import Benchmark, BenchmarkSettings, Finding, Measurement, alternate, ratio
from rsa_eval.config import EvaluationConfig
from rsa_eval.features.extract import extract_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.plumbing.config.files import parse_tree

_BARE, _OURS = "bare forward", "extract_features"


class FeatureSettings(BenchmarkSettings):
    """Amount of extraction."""

    arch: Literal["resnet18", "resnet50"] = "resnet50"
    """Network, with the standard stem."""
    num_images: Annotated[int, Field(ge=1)] = 256
    """Images per run."""
    image_size: Annotated[int, Field(ge=32)] = 224
    """Side of the images, in pixels."""
    batch_size: Annotated[int, Field(ge=1)] = 64
    """Images per forward pass."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Loader processes."""


def measure(settings: FeatureSettings) -> Measurement:
    """Time both ways of computing the same features."""
    side = settings.image_size
    data = {"name": "digits", "image_size": side, "num_workers": settings.num_workers}
    config = parse_tree(
        EvaluationConfig,
        {"protocol": "benchmark", "data": data, "batch_size": settings.batch_size},
        "benchmark",
    )
    device = torch.device(settings.device)
    network = BackboneConfig(arch=settings.arch, stem="standard")
    backbone = build_backbone(network).eval().to(device)
    transform = evaluation_transform(config.data, *normalisation(config.data))
    generator = np.random.default_rng(settings.seed)
    shape = (settings.num_images, side, side, 3)
    pixels = generator.integers(0, 256, shape, np.uint8)
    images = ImageSet.from_array("noise", pixels, [0] * len(pixels), ["noise"])
    ready = torch.stack([transform(images[index]) for index in range(len(images))])

    @torch.no_grad()
    def bare() -> None:
        for batch in torch.split(ready, settings.batch_size):
            backbone(batch.to(device, memory_format=torch.channels_last))

    def ours() -> None:
        extract_features(backbone, images, transform, config, "features")

    with frozen(backbone):
        seconds = alternate({_BARE: bare, _OURS: ours}, settings.repeats, settings.device)
    finding = Finding(
        what="images/s of extraction over those of the bare forward passes",
        value=ratio(seconds, _BARE, _OURS),
        unit="×",
        bound="at least",
        limit=0.95,
    )
    return Measurement([finding], seconds)


BENCHMARK = Benchmark(
    settings=FeatureSettings,
    measure=measure,
    summary="Feature extraction compared with bare forward passes of prepared tensors.",
)
