"""Load the backbone to evaluate: a checkpoint's, another library's, or one with random weights."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import nn

from rsa_eval.config import EvaluationConfig
from rsa_eval.features.forward import device_of, placed
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.networks.spec import NetworkSpec, checkpoint_of
from rsa_eval.records.record import Model, describe_checkpoint, describe_random_init
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.open_images import normalisation
from rsa_pretrain.data.settings import RGB
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.device import check_precision, resolve_device
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.seeded import seeded
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.load import load_weights
from rsa_pretrain.weights.metadata import BackboneMetadata

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A backbone and the pixel statistics its weights expect."""

    backbone: nn.Module
    mean: RGB
    std: RGB
    model: Model

    @property
    def device(self) -> torch.device:
        """The backbone's device."""
        return device_of(self.backbone)


def load_subject(checkpoint: str | Path | NetworkSpec | None, config: EvaluationConfig) -> Subject:
    """Load a checkpoint's backbone, or build a random one, on the device of the evaluation.

    The statistics that normalise the input belong to the weights, so they come from the checkpoint.
    Random weights, and files of other projects that state none, take the data set's.

    Args:
        checkpoint: Anything ``load_weights`` takes, or a network of another library such as
            ``timm:NAME@FILE``; None for random weights of a ResNet, seeded.
        config: The evaluation.

    Raises:
        UserError: If the device is missing or does not support the precision, the checkpoint is
            unusable or contradicts the config, or random weights lack an architecture.
    """
    device = resolve_device(config.device)
    check_precision(config.precision, device)
    place = None if checkpoint is None else checkpoint_of(checkpoint)
    if isinstance(place, NetworkSpec):
        return _other_subject(place, config, device)
    if config.tokens != "default":
        raise UserError(
            f"tokens={config.tokens} needs a network with tokens, and a ResNet has maps; leave "
            "tokens out, or set layers"
        )
    if place is not None:
        loaded = load_weights(place, Pixels(*normalisation(config.data)))
        _check_agreement(config, loaded.metadata, loaded.path)
        metadata = loaded.metadata
        model = describe_checkpoint(loaded)
        return Subject(placed(loaded.backbone, device), metadata.mean, metadata.std, model)
    if config.backbone is None:
        raise UserError(
            "random weights need an architecture; set backbone.arch and backbone.stem, "
            "for example backbone.arch=resnet18 backbone.stem=cifar"
        )
    network = BackboneConfig(**to_tree(config.backbone))
    with seeded(config.seed):
        backbone = build_backbone(network)
    mean, std = normalisation(config.data)
    return Subject(placed(backbone.eval(), device), mean, std, describe_random_init(network))


def _other_subject(spec: NetworkSpec, config: EvaluationConfig, device: torch.device) -> Subject:
    """Load a network of another library, or a user's own."""
    if config.layers != ("layer4",):
        raise UserError(
            f"layers are a ResNet's stages, and {spec.network} is none of this toolkit's; leave "
            "layers out, or set tokens for a vision transformer"
        )
    if config.backbone is not None:
        raise UserError(f"backbone is set, and the network is {spec.network}; leave backbone out")
    from rsa_eval.features.networks.load import load_network

    loaded = load_network(
        spec,
        config.data.image_size,
        tokens=config.tokens,
        blocks=config.blocks,
        seed=config.seed,
        precision=config.precision,
        device=device,
    )
    expected = loaded.preprocessing
    _check_settings(_pixel_settings(config, expected), str(spec))
    _tell_preprocessing(spec.network, _other_settings(config, expected))
    model = Model(
        checkpoint=None if spec.is_random else str(spec),
        sha256=loaded.sha256,
        metadata=None,
        backbone=None,
        other_network=spec.network,
    )
    return Subject(loaded.backbone, expected.mean, expected.std, model)


def _other_settings(config: EvaluationConfig, expected: Preprocessing) -> str:
    """Return the settings that would follow a network's own preprocessing, where they differ."""
    stated = {
        "data.image_size": (config.data.image_size, expected.image_size),
        "data.eval_resize": (config.data.eval_resize, expected.resize),
        "data.eval_interpolation": (config.data.eval_interpolation, expected.interpolation),
    }
    return " ".join(
        f"{key}={own}" for key, (found, own) in stated.items() if own not in (None, found)
    )


@cache
def _tell_preprocessing(network: str, settings: str) -> None:
    """Log another preprocessing, once for all the evaluations of a network."""
    if settings:
        _log.info("%s states another preprocessing of its images: %s", network, settings)


def _pixel_settings(
    config: EvaluationConfig, expected: BackboneMetadata | Preprocessing
) -> dict[str, tuple[object, ...]]:
    return {
        "data.mean": (config.data.mean, expected.mean),
        "data.std": (config.data.std, expected.std),
    }


def _check_agreement(config: EvaluationConfig, metadata: BackboneMetadata, path: Path) -> None:
    stated = _pixel_settings(config, metadata)
    if config.backbone is not None:
        for key in ("arch", "width", "stem"):
            stated[f"backbone.{key}"] = tuple(
                getattr(each, key) for each in (config.backbone, metadata.network)
            )
    _check_settings(stated, str(path))


def _check_settings(stated: Mapping[str, tuple[object, ...]], place: str) -> None:
    for key, (found, expected) in stated.items():
        if found is not None and found != expected:
            raise UserError(
                f"{key} is set to {found}, but the weights in '{place}' expect {expected}; "
                f"leave {key} out"
            )
