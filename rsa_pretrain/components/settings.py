"""Define the settings of the backbone and the optimizer."""

from typing import Annotated, Literal, Self, get_args

from pydantic import Field

from rsa_pretrain.plumbing.config.files import Section

Stage = Literal["layer1", "layer2", "layer3", "layer4"]
Arch = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
Stem = Literal["standard", "cifar"]

ARCHS: tuple[Arch, ...] = get_args(Arch)
USUAL_WIDTH = 64
WIDTHS = range(8, 257, 8)
NETWORK_NAME = rf"^({'|'.join(ARCHS)})(_w[1-9]\d*)?$"
"""Pattern of ``BackboneConfig.name``."""


class BackboneConfig(Section):
    """The network that is pretrained for its features."""

    arch: Arch
    """torchvision's ResNet of this name, without its classifier."""
    width: Annotated[int, Field(ge=WIDTHS.start, le=WIDTHS[-1], multiple_of=WIDTHS.step)] = (
        USUAL_WIDTH
    )
    """Channels of the stem; those of all stages scale with it. 64: torchvision's; 16: for small
    images on a CPU; 128: SimCLR's ResNet (2x). Checkpoints name a width other than 64, as
    in resnet18_w16; detectors and the formats of other libraries do not have such networks."""
    stem: Stem
    """standard: 7x7 stride 2 and max-pool; cifar: 3x3 stride 1, no max-pool."""
    stem_init: Literal["kaiming", "default"] = "kaiming"
    """Initial weights of the first convolution. kaiming: normal by fan-out, as in torchvision's
    ResNets (standard deviation 0.06 in the cifar stem); default: torch's own for a convolution, as
    RSA's release leaves its CIFAR stem (0.11)."""
    zero_init_residual: bool = True
    """Start each residual branch at zero, as BYOL, SimSiam, SimCLR and RSA's release do; MoCo v2
    and supervised training do not."""

    @property
    def name(self) -> str:
        """The architecture's name in checkpoints: torchvision's, ``_w16`` after it for width 16."""
        return self.arch if self.width == USUAL_WIDTH else f"{self.arch}_w{self.width}"

    @classmethod
    def named(cls, name: str, stem: Stem) -> Self:
        """Return the network of a name, as in a checkpoint's metadata, and a stem."""
        arch, _, width = name.partition("_w")
        return cls.model_validate({"arch": arch, "width": width or USUAL_WIDTH, "stem": stem})


class OptimizerConfig(Section):
    """SGD or LARS, with momentum and a warm-up and cosine schedule set per step."""

    name: Literal["sgd", "lars"] = "sgd"
    """sgd decays every parameter, as the paper's release does; lars (You et al. 2017) neither
    decays nor adapts tensors of one dimension or none (biases, norms)."""
    base_lr: Annotated[float, Field(gt=0)]
    """Learning rate for a batch of 256; lr = base_lr * training.global_batch_size / 256."""
    sgd_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum."""
    weight_decay: Annotated[float, Field(ge=0)]
    """L2 penalty."""
    trust_coefficient: Annotated[float, Field(gt=0)] = 0.001
    """lars: step length relative to the tensor's norm."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Linear ramp of the rate from 0, before the cosine to 0."""
