"""Call a user's function that returns a network."""

import hashlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from rsa_eval.features.networks.foreign import OpenedNetwork
from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_eval.features.networks.spec import NetworkSpec
from rsa_eval.features.networks.tokens import Pooling, no_map, pool_tokens, tokens_as_map
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.seeded import seeded
from rsa_pretrain.weights.checkpoint import file_sha256

_RETURNS = "expected (module, rsa_eval.Preprocessing(mean=..., std=...))"
_IMPORTED: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()


class FactoryFeatures(nn.Module):
    """Features of a user's module: its own, or its pooled tokens or map.

    Args:
        module: Returns features (N, D), tokens (N, L, D) or a map (N, D, H, W).
        name: Its name, for errors.
        pooling: The tokens.
        num_prefix: Tokens that are not patches; the first is the class token.
    """

    def __init__(self, module: nn.Module, name: str, pooling: Pooling, num_prefix: int) -> None:
        super().__init__()
        self.model = module
        self.name = name
        self.pooling = pooling
        self.num_prefix = num_prefix
        if pooling.blocks > 1:
            raise pooling.refuse(name, "returns the output of one block")

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (N, D)."""
        output: Tensor = self.model(images)
        if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4):
            return output  # refused with all else that is not features
        if output.ndim == 2:
            if not self.pooling.is_default:
                raise self.pooling.refuse(self.name, "returns features (N, D), not tokens")
            return output
        if self.pooling.is_default:
            raise UserError(
                f"{self.name} returned shape {tuple(output.shape)}, expected features (N, D); set "
                "tokens=mean to average a map (N, D, H, W) or tokens (N, L, D), or tokens=cls"
            )
        if output.ndim == 4:
            return pool_tokens([(None, output.flatten(2).mT)], self.pooling, self.name)
        if self.num_prefix == 0 and self.pooling.tokens != "mean":
            advice = "set tokens=mean, or return Preprocessing(num_prefix_tokens=1) if it is first"
            raise self.pooling.refuse(self.name, "has no class token", advice)
        token = output[:, 0] if self.num_prefix else None
        return pool_tokens([(token, output[:, self.num_prefix :])], self.pooling, self.name)

    def last_map(self, images: Tensor) -> Tensor:
        """Return the module's map, (N, D, h, w), or its tokens of patches as one."""
        output: Tensor = self.model(images)
        if isinstance(output, Tensor) and output.ndim == 3:
            return tokens_as_map(output[:, self.num_prefix :], self.name)
        if isinstance(output, Tensor) and output.ndim == 2:
            raise no_map(self.name, "returns features (N, D), no map (N, D, H, W)")
        return output  # refused if it is no map


def open_factory(spec: NetworkSpec, pooling: Pooling, seed: int) -> OpenedNetwork:
    """Import a module, from the current folder or the Python path, and call its function.

    Args:
        spec: ``python:MODULE:FUNCTION``.
        pooling: The tokens.
        seed: Seed of torch's generator while the function runs.

    Raises:
        UserError: If the import fails, the file changed since it was imported, or the function is
            missing, raises, or returns anything but a module and its preprocessing.
    """
    module_name, _, function = spec.name.partition(":")
    with _current_folder_first():
        module = _import(module_name, spec)
        code = _code_sha256(module)
        make = getattr(module, function, None)
        if not callable(make):
            raise UserError(
                f"module '{module_name}' ({_place(module)}) has no function '{function}'; {spec} "
                "names one without arguments"
            )
        try:
            with seeded(seed):
                found = make()
        # Anything may be raised by code that is not the toolkit's.
        except (Exception, SystemExit) as error:
            raise UserError(f"{spec} raised {type(error).__name__}: {error}") from error
    network, preprocessing = _checked(found, spec)
    return OpenedNetwork(
        module=FactoryFeatures(network, spec.network, pooling, preprocessing.num_prefix_tokens),
        preprocessing=preprocessing,
        sha256=None,
        # A module may have no tensors.
        source=hashlib.sha256(f"{spec} {code} {preprocessing}".encode()).hexdigest(),
        takes_one_size=preprocessing.image_size is not None,
        channels_last=False,
    )


def _import(name: str, spec: NetworkSpec) -> ModuleType:
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    # Importing runs code that is not the toolkit's.
    except (Exception, SystemExit) as error:
        raise UserError(
            f"cannot import '{name}' of {spec} from '{Path.cwd()}' or the Python path "
            f"({type(error).__name__}: {error})"
        ) from error


def _checked(found: Any, spec: NetworkSpec) -> tuple[nn.Module, Preprocessing]:
    if not isinstance(found, tuple) or len(found) != 2:
        count = f" of {len(found)}" if isinstance(found, tuple) else ""
        raise UserError(f"{spec} returned {type(found).__name__}{count}; {_RETURNS}")
    network, preprocessing = found
    if not isinstance(network, nn.Module) or not isinstance(preprocessing, Preprocessing):
        kinds = ", ".join(type(part).__name__ for part in found)
        raise UserError(f"{spec} returned ({kinds}); {_RETURNS}")
    return network, preprocessing


def _code_sha256(module: ModuleType) -> str:
    """Return the hash of a module's file, which must be the code that runs."""
    path = Path(getattr(module, "__file__", None) or "")
    code = file_sha256(path) if path.is_file() else ""
    if _IMPORTED.setdefault(module, code) != code:
        raise UserError(
            f"'{path}' changed since Python imported it, and the imported code would run; restart "
            "Python"
        )
    return code


def _place(module: ModuleType) -> str:
    return str(getattr(module, "__file__", None) or "built in")


@contextmanager
def _current_folder_first() -> Iterator[None]:
    """Import from the current folder first, as ``python -m`` does, and later from it last."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if folder not in sys.path:
            # What is imported during the first forward pass must not hide installed packages.
            sys.path.append(folder)
