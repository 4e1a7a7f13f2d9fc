"""Load a network of another origin for an evaluation."""

from collections.abc import Callable
from dataclasses import dataclass
from pkgutil import resolve_name

import torch
from torch.nn.parameter import is_lazy

from rsa_eval.config import TokenPooling
from rsa_eval.features.forward import placed
from rsa_eval.features.networks.foreign import ForeignNetwork, ForwardError, OpenedNetwork
from rsa_eval.features.networks.interface import every_tensor, foreign_sha256
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.networks.spec import NetworkOrigin, NetworkSpec, checkpoint_of
from rsa_eval.features.networks.tokens import Pooling
from rsa_eval.features.networks.trial import try_network
from rsa_pretrain.plumbing.device_names import Precision
from rsa_pretrain.plumbing.errors import UserError

_HERE = "rsa_eval.features.networks"
_OPENERS: dict[NetworkOrigin, str] = {
    "timm": f"{_HERE}.timm_models:open_timm",
    "torchvision": f"{_HERE}.torchvision_models:open_torchvision",
    "hf": f"{_HERE}.huggingface:open_huggingface",
    "python": f"{_HERE}.factory:open_factory",
}


@dataclass(frozen=True)
class LoadedNetwork:
    """A network of another origin, ready for extraction."""

    backbone: ForeignNetwork
    """In eval mode; maps normalised images, (N, 3, S, S), to features, (N, D)."""
    preprocessing: Preprocessing
    """The input its weights expect."""
    sha256: str
    """Hash of the file of the weights, or of the tensors where there is none."""


def load_network(
    spec: str | NetworkSpec,
    image_size: int,
    *,
    tokens: TokenPooling = "default",
    blocks: int = 1,
    seed: int = 0,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> LoadedNetwork:
    """Load a network of another library, or a user's own, and try it on two images.

        loaded = load_network("timm:vit_small_patch16_224@vit.safetensors", 224, tokens="cls")
        test = extract(loaded.backbone, images, transform=transform_for(loaded.preprocessing))

    Args:
        spec: ``timm:NAME@FILE``, ``torchvision:NAME@FILE``, ``hf:FOLDER`` or
            ``python:MODULE:FUNCTION``.
        image_size: Side of the images, in pixels.
        tokens: The tokens that become features, of networks that have some.
        blocks: Last blocks whose tokens are concatenated.
        seed: Seeds random weights.
        precision: Autocast type of the trial.
        device: Where the network runs.

    Raises:
        UserError: If it cannot be loaded, takes no images of this size, or misbehaves.
    """
    named = checkpoint_of(spec)
    if not isinstance(named, NetworkSpec):
        raise UserError(f"'{spec}' names no network; expected timm:, torchvision:, hf: or python:")
    named.check()
    pooling = Pooling(tokens, blocks)
    opener: Callable[[NetworkSpec, Pooling, int], OpenedNetwork] = resolve_name(
        _OPENERS[named.origin]
    )
    opened = opener(named, pooling, seed)
    network = _placed(ForeignNetwork(opened, named.network, pooling.text), torch.device(device))
    _try(network, opened, image_size, precision)
    return LoadedNetwork(network, opened.preprocessing, opened.sha256 or foreign_sha256(network))


def _try(
    network: ForeignNetwork, opened: OpenedNetwork, image_size: int, precision: Precision
) -> None:
    """Try a network on images of the evaluation's size, and name another that it takes."""
    native = opened.preprocessing.image_size
    size_to_set = f"found {image_size}; set data.image_size={native}"
    if opened.takes_one_size and native != image_size:
        raise UserError(f"{network.name} takes images of {native} pixels only, {size_to_set}")
    try:
        try_network(network, image_size, precision)
    except ForwardError as error:
        if native in (None, image_size):
            raise
        raise UserError(
            f"{network.name} was made for images of {native} pixels, {size_to_set} ({error})"
        ) from error


def _placed(network: ForeignNetwork, device: torch.device) -> ForeignNetwork:
    for name, tensor in every_tensor(network).items():
        is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta)
        if is_lazy(tensor) or not is_plain:
            raise UserError(
                f"{network.name} has a tensor without values, or a sparse or quantized one "
                f"({name.removeprefix('module.model.')}); expected dense ones, with values"
            )
    placed(network, device)
    return network.eval()
