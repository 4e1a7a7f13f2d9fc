"""Open torchvision's classification networks."""

import re
from collections.abc import Iterable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from rsa_eval.features.networks.foreign import OpenedNetwork
from rsa_eval.features.networks.libraries import unknown_name
from rsa_eval.features.networks.preprocessing import Preprocessing, known_interpolation
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.tokens import Pooling, no_map, pool_tokens, tokens_as_map
from rsa_eval.features.networks.weights_file import load_file, load_tensors
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.seeded import seeded

# Their released weights expect pixels scaled otherwise, which the network does if told to.
_RESCALING = frozenset({"googlenet", "inception_v3"})
# Used in training alone.
_SIDE_CLASSIFIERS = ("AuxLogits", "aux1", "aux2")
# The module whose output is the last map, the first of these that a network has.
_LAST_MAPS = (
    *("permute", "layer4", "trunk_output", "conv5", "layers", "features"),
    *("inception5b", "Mixed_7c"),
)
# Names in the released files of DenseNets, from before names could contain no dots.
_DOTTED = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


class TorchvisionFeatures(nn.Module):
    """Features of a torchvision network: the input of its last linear layer, or tokens.

    Args:
        model: A network without its last linear layer.
        name: Its name, for errors.
        pooling: The tokens.
    """

    def __init__(self, model: nn.Module, name: str, pooling: Pooling) -> None:
        super().__init__()
        self.model: Any = model
        self.name = name
        self.pooling = pooling
        if not pooling.is_default:
            if not isinstance(self.model, torchvision.models.VisionTransformer):
                raise pooling.refuse(name, "has no tokens")
            pooling.check_blocks(name, len(self.model.encoder.layers))

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (N, D)."""
        if self.pooling.is_default:
            pooled: Tensor = self.model(images)
            return pooled
        encoder = self.model.encoder
        outputs = self._outputs_of(encoder.layers[-self.pooling.blocks :], images)
        sequences = [encoder.ln(output) for output in outputs]
        pairs = [(sequence[:, 0], sequence[:, 1:]) for sequence in sequences]
        return pool_tokens(pairs, self.pooling, self.name)

    def last_map(self, images: Tensor) -> Tensor:
        """Return the last map, (N, D, h, w), as the pooling before the classifier takes it."""
        if isinstance(self.model, torchvision.models.VisionTransformer):
            (sequence,) = self._outputs_of([self.model.encoder], images)
            return tokens_as_map(sequence[:, 1:], self.name)
        name = next((name for name in _LAST_MAPS if hasattr(self.model, name)), None)
        if name is None:
            raise no_map(self.name, "has no module that is known to give its last map")
        (found,) = self._outputs_of([getattr(self.model, name)], images)
        is_densenet = isinstance(self.model, torchvision.models.DenseNet)
        return found.relu() if is_densenet else found

    def _outputs_of(self, modules: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
        """Run the network, and return the outputs of some of its modules in their order."""
        outputs: list[Tensor] = []
        # Hooks of one call, which no copy of the network inherits.
        handles = [
            module.register_forward_hook(lambda module, given, found: outputs.append(found))
            for module in modules
        ]
        try:
            self.model(images)
        finally:
            for handle in handles:
                handle.remove()
        return outputs


def open_torchvision(spec: NetworkSpec, pooling: Pooling, seed: int) -> OpenedNetwork:
    """Build a network and load its weights.

    Args:
        spec: ``torchvision:NAME`` with a file, a download or random weights.
        pooling: The tokens.
        seed: Seeds random weights.

    Raises:
        UserError: If there is no such network, or the weights do not fit.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if spec.name not in known:
        raise unknown_name(torchvision, "classification network", spec.name, known)
    if spec.file is not None and spec.name in _RESCALING:
        raise UserError(
            f"a file of {spec.network} does not say whether its weights expect transform_input, as "
            "torchvision's do; write a function for python:MODULE:FUNCTION that builds the network"
        )
    weights = _weights(spec)
    with seeded(seed):
        model = torchvision.models.get_model(spec.name, weights=None, **_arguments(spec, weights))
    classifier = _without_classifier(model, spec.network)
    sha256 = None
    if spec.file is not None:
        sha256 = load_file(model, spec.file, spec.network, classifier, _undotted)
    elif spec.download is not None:
        _download(model, spec, weights, classifier)
    for side in _SIDE_CLASSIFIERS:
        if hasattr(model, side):
            setattr(model, side, None)
    return OpenedNetwork(
        module=TorchvisionFeatures(model, spec.network, pooling),
        preprocessing=_preprocessing(weights, model),
        sha256=sha256,
    )


def _weights(spec: NetworkSpec) -> Any:
    """Return the released weights that are asked for, or whose preprocessing holds."""
    released = torchvision.models.get_model_weights(spec.name)
    if spec.download is None:
        return released.DEFAULT
    if spec.download not in released.__members__:
        raise UserError(
            f"torchvision has no weights '{spec.download}' of {spec.name}; expected one of "
            f"{', '.join(released.__members__)}, or a file"
        )
    return released[spec.download]


def _arguments(spec: NetworkSpec, weights: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spec.name in _RESCALING:
        found = {"init_weights": spec.is_random, "transform_input": not spec.is_random}
    if spec.download is not None and spec.name.startswith("vit_"):
        found["image_size"] = weights.meta["min_size"][0]
    return found


def _without_classifier(model: nn.Module, name: str) -> tuple[str, ...]:
    """Remove the last linear layer, and return its name."""
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(
            f"{name} has no linear classifier to remove; write a function for "
            "python:MODULE:FUNCTION that returns its features"
        )
    parent, _, own_name = linear[-1].rpartition(".")
    setattr(model.get_submodule(parent), own_name, nn.Identity())
    return (linear[-1],)


def _download(
    model: nn.Module, spec: NetworkSpec, weights: Any, classifier: tuple[str, ...]
) -> None:
    try:
        found = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    # Downloads fail with many exceptions, and damaged copies of earlier ones with others.
    except Exception as error:
        raise UserError(
            f"cannot load '{spec}' from {weights.url} or from its copy below "
            f"'{torch.hub.get_dir()}' ({type(error).__name__}: {error})"
        ) from None
    tensors = {_undotted(name): tensor for name, tensor in found.items()}
    load_tensors(model, tensors, f"'{spec}'", classifier)


def _undotted(name: str) -> str:
    return _DOTTED.sub(r"\1\2", name)


def _preprocessing(weights: Any, model: Any) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        mean=preset.mean,
        std=preset.std,
        image_size=int(getattr(model, "image_size", preset.crop_size[0])),
        resize=int(preset.resize_size[0]),
        interpolation=known_interpolation(preset.interpolation.value),
    )
