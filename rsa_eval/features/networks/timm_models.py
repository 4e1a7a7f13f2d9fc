"""Open timm's networks."""

import inspect
import logging
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from rsa_eval.features.networks.foreign import OpenedNetwork
from rsa_eval.features.networks.libraries import unknown_name
from rsa_eval.features.networks.preprocessing import Preprocessing, known_interpolation
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.tokens import Pooling, no_map, pool_tokens
from rsa_eval.features.networks.weights_file import load_file
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.seeded import seeded
from rsa_pretrain.weights.checkpoint import file_sha256

_HUB_LOG = logging.getLogger("huggingface_hub")


class TimmFeatures(nn.Module):
    """Features of a timm network: what its classifier would see, or tokens.

    Args:
        model: Created without classifier.
        name: Its name, for errors.
        pooling: The tokens.
    """

    def __init__(self, model: nn.Module, name: str, pooling: Pooling) -> None:
        super().__init__()
        self.model: Any = model
        self.name = name
        self.pooling = pooling
        self._has_class_token = getattr(model, "cls_token", None) is not None
        self._num_prefix = int(getattr(model, "num_prefix_tokens", 0))
        if not pooling.is_default:
            num_blocks = _num_token_blocks(model)
            if num_blocks == 0:
                raise pooling.refuse(name, "gives no tokens of its blocks")
            pooling.check_blocks(name, num_blocks)
            if _normalises_pooled(model):
                raise pooling.refuse(name, "has its final norm behind the pooling, not on tokens")

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (N, D)."""
        if self.pooling.is_default:
            pooled: Tensor = self.model.forward_head(
                self.model.forward_features(images), pre_logits=True
            )
            return pooled
        outputs = self.model.forward_intermediates(
            images,
            indices=self.pooling.blocks,
            return_prefix_tokens=self._num_prefix > 0,
            norm=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if self._num_prefix == 0:
            outputs = [(patches, None) for patches in outputs]
        pairs = [
            (prefix[:, 0] if self._has_class_token else None, patches)
            for patches, prefix in outputs
        ]
        return pool_tokens(pairs, self.pooling, self.name)

    def last_map(self, images: Tensor) -> Tensor:
        """Return the last map, (N, D, h, w), under the final norm where there is one on maps."""
        method = getattr(self.model, "forward_intermediates", None)
        if method is None:
            raise no_map(self.name, "gives no maps (timm: forward_intermediates)")
        (found,) = method(images, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)
        last: Tensor = found
        return last


def _num_token_blocks(model: Any) -> int:
    """Return how many blocks yield class tokens and patches; those of other networks yield maps."""
    method = getattr(model, "forward_intermediates", None)
    if method is None or "return_prefix_tokens" not in inspect.signature(method).parameters:
        return 0
    return len(getattr(model, "blocks", ()))


def _normalises_pooled(model: Any) -> bool:
    """Return whether the final norm follows the pooling; some networks have none at all."""
    on_tokens, on_pooled = (
        not isinstance(getattr(model, name, nn.Identity()), nn.Identity)
        for name in ("norm", "fc_norm")
    )
    return on_pooled and not on_tokens


def open_timm(spec: NetworkSpec, pooling: Pooling, seed: int) -> OpenedNetwork:
    """Create a network and load its weights.

    Args:
        spec: ``timm:NAME`` with a file, a download or random weights.
        pooling: The tokens.
        seed: Seeds random weights.

    Raises:
        UserError: If timm is missing, has no such network, or the weights do not fit.
    """
    timm = import_extra("timm", spec.network)
    architecture = spec.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name(timm, "network", architecture, timm.list_models())
    pulled = spec.file if spec.address else None  # its config.json states its preprocessing
    folder = pulled and f"local-dir:{pulled.parent}"
    with seeded(seed):
        try:
            if spec.download is None and folder is None:
                model = timm.create_model(spec.name, num_classes=0)
            else:
                # With another number of classes than the weights', timm does not load strictly.
                _HUB_LOG.propagate = False  # it has a handler already, and would print twice
                model = timm.create_model(folder or spec.name, pretrained=True)
                if model.num_classes > 0:
                    model.reset_classifier(0)
        # Downloads fail with the exceptions of several libraries.
        except Exception as error:
            reason = f"timm cannot create '{spec}' ({type(error).__name__}: {error})"
            if spec.download is not None:
                reason += (
                    "; without a connection, download the weights elsewhere and give "
                    f"{spec.network}@FILE"
                )
            raise UserError(reason) from None
    sha256 = None
    if pulled is not None:
        sha256 = file_sha256(pulled)
    elif spec.file is not None:
        classifier = model.pretrained_cfg.get("classifier") or ()
        names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
        sha256 = load_file(model, spec.file, spec.network, names)
    return OpenedNetwork(
        module=TimmFeatures(model, spec.network, pooling),
        preprocessing=_preprocessing(model.pretrained_cfg),
        sha256=sha256,
        libraries=("timm",),
    )


def _preprocessing(config: Mapping[str, Any]) -> Preprocessing:
    size = int(config["input_size"][-1])
    return Preprocessing(
        mean=config["mean"],
        std=config["std"],
        image_size=size,
        resize=math.floor(size / config["crop_pct"]),  # as timm's transforms_imagenet_eval
        interpolation=known_interpolation(config.get("interpolation")),
    )
