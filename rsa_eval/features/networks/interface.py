"""Give the toolkit's ResNets and other networks one interface for extraction."""

import hashlib
import math
from typing import Protocol

from torch import Tensor, nn

from rsa_eval.features.identity import tensors_sha256
from rsa_eval.features.networks.foreign import ForeignNetwork
from rsa_pretrain.components.backbone import feature_dim, last_stage_map, pooled_stages
from rsa_pretrain.components.settings import Stage


class StageSettings(Protocol):
    """The setting that chooses among a ResNet's features."""

    @property
    def layers(self) -> tuple[Stage, ...]:
        """Stages whose averaged outputs are concatenated."""


class FeatureNetwork(Protocol):
    """A network as extraction sees it."""

    libraries: tuple[str, ...]
    """Packages that compute the features, beside torch and torchvision."""
    uses_every_parameter: bool
    """All parameters receive a gradient in training."""
    channels_last: bool
    """Filters and images may be in this memory format, the faster one for convolutions."""

    def features(self, images: Tensor, settings: StageSettings) -> Tensor:
        """Return the features, (N, D), of normalised images, float32 (N, 3, S, S)."""

    def last_map(self, images: Tensor) -> Tensor:
        """Return the last map before any pooling, (N, D, h, w).

        Raises:
            UserError: If the network gives none.
        """

    def width(self, settings: StageSettings) -> int:
        """Return D."""

    def forward_width(self) -> int:
        """Return the width of what the module itself returns, which is fine-tuned."""

    def largest_map_bytes(self, image_size: int) -> int:
        """Return the size of the largest float32 feature map of one image, in bytes."""

    def identity(self, settings: StageSettings) -> tuple[str, tuple[str, ...]]:
        """Return a hash of the weights, and names of what is taken from the network."""


def network_of(backbone: nn.Module) -> FeatureNetwork:
    """Return the interface of a backbone: a loaded network, or a ResNet without classifier."""
    if isinstance(backbone, ForeignNetwork):
        return _OtherFeatures(backbone)
    return _ResNetFeatures(backbone)


def every_tensor(module: nn.Module) -> dict[str, Tensor]:
    """Return a module's parameters and buffers by name, those too that checkpoints leave out."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def explain_changes(backbone: nn.Module, moved: list[str]) -> Exception:
    """Return the error about tensors that changed while a network was frozen.

    It is a defect of the toolkit, unless the network is none of the toolkit's.
    """
    if isinstance(backbone, ForeignNetwork):
        return backbone.changed(moved)
    return RuntimeError(f"the frozen backbone changed: {', '.join(moved[:5])}")


class _ResNetFeatures:
    """A ResNet as built by ``build_backbone``."""

    libraries: tuple[str, ...] = ()
    uses_every_parameter = True
    channels_last = True

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone

    def features(self, images: Tensor, settings: StageSettings) -> Tensor:
        return pooled_stages(self.backbone, images, settings.layers)

    def last_map(self, images: Tensor) -> Tensor:
        return last_stage_map(self.backbone, images)

    def width(self, settings: StageSettings) -> int:
        return sum(feature_dim(self.backbone, layer) for layer in settings.layers)

    def forward_width(self) -> int:
        return feature_dim(self.backbone)

    def largest_map_bytes(self, image_size: int) -> int:
        """Return the size of the output of the first convolution or of the first stage.

        From stage to stage the area falls by four and the width only doubles.
        """
        stem = self.backbone.get_submodule("conv1")
        assert isinstance(stem, nn.Conv2d)
        stem_side = math.ceil(image_size / stem.stride[0])
        pools = not isinstance(self.backbone.get_submodule("maxpool"), nn.Identity)
        stage_side = math.ceil(stem_side / 2) if pools else stem_side
        values = (
            stem.out_channels * stem_side**2,
            feature_dim(self.backbone, "layer1") * stage_side**2,
        )
        return 4 * max(values)

    def identity(self, settings: StageSettings) -> tuple[str, tuple[str, ...]]:
        return tensors_sha256(self.backbone.state_dict()), settings.layers


class _OtherFeatures:
    """A network of another origin, whose features were chosen when it was loaded."""

    uses_every_parameter = False

    def __init__(self, network: ForeignNetwork) -> None:
        self.network = network
        self.libraries = network.libraries
        self.channels_last = network.channels_last

    def features(self, images: Tensor, settings: StageSettings) -> Tensor:
        found: Tensor = self.network(images)
        return found

    def last_map(self, images: Tensor) -> Tensor:
        return self.network.last_map(images)

    def width(self, settings: StageSettings) -> int:
        return self.forward_width()

    def forward_width(self) -> int:
        assert self.network.width is not None, "a network is tried when it is loaded"
        return self.network.width

    def largest_map_bytes(self, image_size: int) -> int:
        return max(1, math.ceil(self.network.map_bytes_per_pixel * image_size**2))

    def identity(self, settings: StageSettings) -> tuple[str, tuple[str, ...]]:
        return foreign_sha256(self.network), (self.network.name, *self.network.pooling.split())


def foreign_sha256(network: ForeignNetwork) -> str:
    """Return a hash of a network's tensors and of the code or settings that use them."""
    weights = tensors_sha256(every_tensor(network.module))
    if not network.source:
        return weights
    return hashlib.sha256(f"{weights} {network.source}".encode()).hexdigest()
