"""Define the settings of the backbone and the optimizer."""

from typing import Annotated, Literal

from pydantic import Field

from rsa_pretrain.plumbing.config.files import Section

Stage = Literal["layer1", "layer2", "layer3", "layer4"]


class BackboneConfig(Section):
    """The network that is pretrained for its features."""

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101"]
    """torchvision's ResNet of this name, without its classifier."""
    stem: Literal["standard", "cifar"]
    """standard: 7x7 stride 2 and max-pool; cifar: 3x3 stride 1, no max-pool."""
    stem_init: Literal["kaiming", "default"] = "kaiming"
    """Initial weights of the first convolution. kaiming: normal by fan-out, as in torchvision's
    ResNets (standard deviation 0.06 in the cifar stem); default: torch's own for a convolution, as
    RSA's release leaves its CIFAR stem (0.11)."""
    zero_init_residual: bool = True
    """Start each residual branch at zero, as BYOL, SimSiam, SimCLR and RSA's release do; MoCo v2
    and supervised training do not."""


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
