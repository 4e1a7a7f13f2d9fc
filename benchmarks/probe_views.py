"""Compare the online linear probe on views made in batches with the one on Pillow's."""

from functools import partial
from typing import Annotated

from pydantic import Field

from benchmarks.images import small_images
from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Finding,
    Measurement,
    alternate,
    rates,
    ratio,
)
from rsa_eval.evaluators.linear.batches import ReadOrder
from rsa_eval.evaluators.linear.heads import HeadTrainer, new_heads
from rsa_eval.evaluators.linear.online import (
    LoadedViews,
    ResidentViews,
    online_batches,
    steps_per_forward,
)
from rsa_eval.evaluators.linear.probe import train_probe
from rsa_eval.evaluators.linear.settings import LinearConfig
from rsa_eval.evaluators.linear.state import ProbeState
from rsa_eval.features.forward import feature_width
from rsa_eval.features.frozen import frozen
from rsa_eval.features.scaling import unscaled
from rsa_eval.features.subject import Subject, load_subject
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.device_names import Precision

_WAYS: dict[str, type[LoadedViews] | type[ResidentViews]] = {
    "pillow": LoadedViews,
    "batched": ResidentViews,
}


class ProbeViewsSettings(BenchmarkSettings):
    """An epoch of MoCo v2's probe on CIFAR-10, or on noise, with a ResNet-18 of random weights."""

    repeats: Annotated[int, Field(ge=1)] = 3
    """Timed runs of each candidate, after a warm-up run."""
    num_images: Annotated[int, Field(ge=1)] = 512
    """Images of 32 x 32 pixels, in memory."""
    precision: Precision = "fp32"
    """Autocast type of the backbone."""


def measure(settings: ProbeViewsSettings) -> Measurement:
    """Time the views alone, in this process, and whole epochs."""
    images = small_images(settings.num_images, settings.seed)
    configs = {way: _config(settings, way) for way in _WAYS}
    subject = load_subject(None, configs["pillow"])
    with frozen(subject.backbone):
        candidates = {
            f"views, {way}": partial(_make_views, subject, images, config)
            for way, config in configs.items()
        } | {
            f"epoch, {way}": partial(_train, subject, images, config)
            for way, config in configs.items()
        }
        seconds = alternate(candidates, settings.repeats, settings.device)
    finding = Finding(
        what=f"views of {images.name} for the probe: images/s in batches over Pillow's",
        value=ratio(seconds, "views, pillow", "views, batched"),
        unit="×",
        bound="at least",
        limit=5,
    )
    return Measurement([finding], seconds, rates(seconds, len(images)))


def _config(settings: ProbeViewsSettings, way: str) -> LinearConfig:
    tree = {
        "data": {"name": "digits", "image_size": 32, "num_workers": 0},
        "backbone": {"arch": "resnet18", "stem": "cifar"},
        "seed": settings.seed,
        "device": settings.device,
        "precision": settings.precision,
        "probe": {"epochs": 1, "milestones": [], "views": way},
    }
    return parse_tree(LinearConfig, tree, "benchmark")


def _order(images: ImageSet, config: LinearConfig) -> ReadOrder:
    return ReadOrder(len(images), config.probe.batch_size, config.probe.epochs, config.seed)


def _num_steps(subject: Subject, config: LinearConfig) -> int:
    return steps_per_forward(subject.device, subject.backbone, config)


def _make_views(subject: Subject, images: ImageSet, config: LinearConfig) -> None:
    blocks = _order(images, config).blocks(0, _num_steps(subject, config))
    for views, _ in _WAYS[config.probe.views](subject, images, config).load(blocks):
        views.to(subject.device, non_blocking=True)


def _train(subject: Subject, images: ImageSet, config: LinearConfig) -> None:
    order, num_steps = _order(images, config), _num_steps(subject, config)
    batches = online_batches(subject, images, order, unscaled, config, num_steps)
    width, num_classes = feature_width(subject.backbone, config), len(images.class_names)
    heads = new_heads(width, num_classes, config.probe, config.seed, subject.device)
    train_probe(ProbeState(HeadTrainer(heads, config.probe), "", None), batches, order, 5)


BENCHMARK = Benchmark(
    settings=ProbeViewsSettings,
    measure=measure,
    summary="The online linear probe on views made in batches compared with Pillow's.",
)
