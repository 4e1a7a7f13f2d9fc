"""Open networks that transformers saved in a folder."""

import hashlib
import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rsa_eval.features.networks.foreign import OpenedNetwork
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.tokens import Pooling, no_map, pool_tokens, tokens_as_map
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import import_extra
from rsa_pretrain.plumbing.json_text import parse_json
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.plumbing.regular_files import open_regular
from rsa_pretrain.weights.checkpoint import file_sha256
from rsa_pretrain.weights.tensor_check import non_finite

_CONFIG, _PREPROCESSOR = "config.json", "preprocessor_config.json"
# Heads of pretraining and classification, of which no features come.
_HEADS = ("classifier", "cls_classifier", "distillation_classifier", "decoder", "head", "lm_head")
_UNUSED = ("pooler",)
_MASKING = "vit_mae"  # hides patches of every image, in eval mode too
# Pillow's numbers.
_INTERPOLATIONS: dict[str, Any] = {"2": "bilinear", "3": "bicubic"}
_PER_PIXEL = 1 / 255
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class HuggingFaceFeatures(nn.Module):
    """Features of a transformers network: its class token, averaged map, or chosen tokens.

    Args:
        model: As loaded by ``AutoModel``.
        name: Its name, for errors.
        pooling: The tokens.
    """

    def __init__(self, model: nn.Module, name: str, pooling: Pooling) -> None:
        super().__init__()
        self.model: Any = model
        self.name = name
        self.pooling = pooling
        size: Any = getattr(self.model.config, "patch_size", None)
        self._patch: int | None = size[0] if isinstance(size, list | tuple) else size
        # A class token, perhaps one for distillation, and registers; others may follow the patches.
        self._most_prefix = 2 + (getattr(self.model.config, "num_register_tokens", 0) or 0)

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (N, D)."""
        several = self.pooling.blocks > 1
        output = self._encode(images, output_hidden_states=several)
        last = self._last_of(output)
        if last.ndim == 4:
            if not self.pooling.is_default:
                raise self.pooling.refuse(self.name, "has no tokens")
            return last.mean(dim=(2, 3))
        num_prefix = self._num_prefix(last, images)
        if self.pooling.is_default:
            return last[:, 0] if num_prefix > 0 else last.mean(dim=1)
        if num_prefix > self._most_prefix:
            raise self.pooling.refuse(self.name, f"returns {num_prefix} tokens beside the patches'")
        sequences = self._normalised(output.hidden_states, last) if several else [last]
        pairs = [
            (sequence[:, 0] if num_prefix else None, sequence[:, num_prefix:])
            for sequence in sequences
        ]
        return pool_tokens(pairs, self.pooling, self.name)

    def last_map(self, images: Tensor) -> Tensor:
        """Return the last map, (N, D, h, w), or the tokens of the patches as one."""
        last = self._last_of(self._encode(images))
        if last.ndim == 4:
            return last
        num_prefix = self._num_prefix(last, images)
        if num_prefix > self._most_prefix:
            raise no_map(self.name, f"returns {num_prefix} tokens beside the patches'")
        return tokens_as_map(last[:, num_prefix:], self.name)

    def _encode(self, images: Tensor, **options: Any) -> Any:
        if self.model.config.model_type == _MASKING:
            # Patches are sorted by the noise, so rising numbers keep their order.
            order = torch.arange(self._num_patches(images), device=images.device)
            options["noise"] = order.expand(len(images), -1)
        return self.model(pixel_values=images, **options)

    def _last_of(self, output: Any) -> Tensor:
        last = getattr(output, "last_hidden_state", None)
        if not isinstance(last, Tensor) or last.ndim not in (3, 4):
            raise UserError(f"{self.name} returns no last_hidden_state of tokens or maps")
        if getattr(output, "encoder_last_hidden_state", None) is not None:
            raise UserError(
                f"{self.name} returns the answers of a decoder, not features of the image's "
                "places; save its backbone alone"
            )
        if last.ndim == 4 and last.shape[1] == last.shape[2] != last.shape[3]:
            return last.permute(0, 3, 1, 2)  # (N, h, w, D) of a square image
        return last

    def _num_prefix(self, last: Tensor, images: Tensor) -> int:
        """Return the number of tokens that are not places of the image, such as patches."""
        length, num_patches = last.shape[1], self._num_patches(images)
        if 0 < num_patches <= length:
            return length - num_patches
        # Hierarchical networks end with fewer places, and perhaps a class token.
        num_prefix = length - math.isqrt(length) ** 2
        if num_prefix > 1:
            raise UserError(
                f"{self.name} returns {length} tokens; expected those of a square of places, with "
                "or without a class token"
            )
        return num_prefix

    def _num_patches(self, images: Tensor) -> int:
        if self._patch is None:
            return 0
        return (images.shape[2] // self._patch) * (images.shape[3] // self._patch)

    def _normalised(self, hidden: tuple[Tensor, ...], last: Tensor) -> list[Tensor]:
        """Return the outputs of the last blocks under the final norm, as the last one is."""
        self.pooling.check_blocks(self.name, len(hidden) - 1)
        norm = getattr(self.model, "layernorm", None) or getattr(self.model, "norm", None)
        if norm is None or not torch.equal(norm(hidden[-1]), last):
            raise UserError(
                f"{self.name} does not say how outputs of its blocks are normalised; set blocks=1"
            )
        return [norm(sequence) for sequence in hidden[-self.pooling.blocks :]]


def open_huggingface(spec: NetworkSpec, pooling: Pooling, seed: int) -> OpenedNetwork:
    """Load a folder's network, strictly, from safetensors; no code in the folder is run.

    Args:
        spec: ``hf:FOLDER``.
        pooling: The tokens.
        seed: Unused: nothing is random.

    Raises:
        UserError: If transformers is missing, or the folder is not what it writes.
    """
    folder = Path(spec.name)
    transformers = import_extra("transformers", spec.network)
    preprocessing = _read_preprocessing(folder)
    with _silenced(transformers):
        try:
            model, info = transformers.AutoModel.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        # Configurations of thousands of kinds fail with any exception.
        except Exception as error:
            raise UserError(
                f"transformers cannot load '{folder}' ({type(error).__name__}: {error}); expected "
                f"{_CONFIG} of a network of transformers' own and model.safetensors"
            ) from None
    model = model.float()
    _check_inputs(model, folder)
    if model.config.model_type == _MASKING:
        model.config.mask_ratio = 0.0
    _check_loaded(info, model, folder)
    if any(_is_of(name, _UNUSED) for name in info["missing_keys"]):
        model.pooler = nn.Identity()  # random otherwise, and part of the network's hash
    return OpenedNetwork(
        module=HuggingFaceFeatures(model, spec.network, pooling),
        preprocessing=preprocessing,
        sha256=None,
        source=_settings_sha256(folder),
        libraries=("transformers",),
    )


def _check_inputs(model: nn.Module, folder: Path) -> None:
    parameters = inspect.signature(model.forward).parameters.values()
    takes = [
        parameter.name
        for parameter in parameters
        if parameter.name in ("pixel_values", "input_ids")
        or (parameter.default is parameter.empty and parameter.kind not in _VARIABLE)
    ]
    config: Any = model.config
    if hasattr(config, "num_frames"):
        takes = ["videos"]
    if takes != ["pixel_values"]:
        raise UserError(
            f"'{folder}' is a {type(model).__name__}, which takes {' and '.join(takes)}; expected "
            "a network of pixel_values alone, such as the vision model that is a part of it, saved "
            "in a folder"
        )


def _check_loaded(info: dict[str, Any], model: nn.Module, folder: Path) -> None:
    problems = {
        "missing": [name for name in info["missing_keys"] if not _is_of(name, _UNUSED)],
        "unexpected": [
            name for name in info["unexpected_keys"] if not _is_of(name, _UNUSED + _HEADS)
        ],
        "misshapen": [str(entry) for entry in info["mismatched_keys"]],
        "not finite": non_finite(dict(model.state_dict())),
    }
    listed = [
        f"{len(names)} {kind}: {first_of(sorted(names))}"
        for kind, names in problems.items()
        if names
    ]
    if listed:
        raise UserError(f"cannot load '{folder}' as {type(model).__name__}: {'; '.join(listed)}")


def _is_of(name: str, modules: tuple[str, ...]) -> bool:
    return name.partition(".")[0] in modules


def _read_preprocessing(folder: Path) -> Preprocessing:
    path = folder / _PREPROCESSOR
    try:
        with open_regular(path) as file:
            tree = parse_json(file.read())
    except OSError as error:
        raise UserError(
            f"cannot read '{path}' ({error.strerror}), which states the mean and std the weights "
            "expect; save the image processor into the folder"
        ) from None
    except ValueError:
        raise UserError(f"'{path}' is not JSON") from None
    if not isinstance(tree, dict):
        raise UserError(f"'{path}' contains no settings")
    factor = tree.get("rescale_factor", _PER_PIXEL) if tree.get("do_rescale", True) else 1
    if not (isinstance(factor, int | float) and abs(factor - _PER_PIXEL) < 1e-6):
        raise UserError(
            f"'{path}' scales pixels by {factor!r}; expected 1/255, with image_mean and image_std "
            "for pixels in [0, 1]"
        )
    mean: Any = (0.0, 0.0, 0.0)
    std: Any = (1.0, 1.0, 1.0)
    if tree.get("do_normalize", True):
        mean, std = tree.get("image_mean"), tree.get("image_std")
    crop = _side(tree.get("crop_size")) if tree.get("do_center_crop") else None
    size = _side(tree.get("size"))
    try:
        return Preprocessing(
            mean=mean,
            std=std,
            image_size=crop or size,
            resize=size if crop else None,
            interpolation=_INTERPOLATIONS.get(str(tree.get("resample"))),
        )
    except UserError as error:
        raise UserError(f"'{path}': {error}") from None


def _side(size: object) -> int | None:
    """Return the side that a size of any form states."""
    if isinstance(size, dict):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else None


def _settings_sha256(folder: Path) -> str:
    digests = [file_sha256(folder / name) for name in (_CONFIG, _PREPROCESSOR)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


@contextmanager
def _silenced(transformers: Any) -> Iterator[None]:
    """Silence the bar and the report of loading, whose findings are checked instead."""
    logging = transformers.utils.logging
    verbosity, has_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bar:
            logging.enable_progress_bar()
