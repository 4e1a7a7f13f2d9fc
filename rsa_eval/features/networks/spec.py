"""Parse a CHECKPOINT that names a network of another library, or a user's function.

timm:NAME@FILE          torchvision:NAME@FILE          weights from a local file
timm:NAME@pretrained    torchvision:NAME@DEFAULT       the library's weights, downloaded
timm:NAME               torchvision:NAME               random weights, with --random-init
hf:FOLDER                                              a transformers folder on disk
python:MODULE:FUNCTION                                 a function that returns the network
hf://USER/NAME[@REVISION]                              a model of transformers or timm on the hub
"""

import difflib
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import HUB, is_address, user_path
from rsa_pretrain.weights.files.regular_file import ABSENT
from rsa_pretrain.weights.remote.places import local_weights

NetworkOrigin = Literal["timm", "torchvision", "hf", "python"]

_SPEC = re.compile(rf"({'|'.join(get_args(NetworkOrigin))}):(.*)", re.DOTALL)
_LIBRARY_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_DOWNLOADS = {"timm": re.compile("pretrained"), "torchvision": re.compile("[A-Z][A-Z0-9_]*")}
_OF_TRANSFORMERS = ("config.json", "model.safetensors")
_USUAL_DOWNLOAD = {"timm": "pretrained", "torchvision": "DEFAULT"}


@dataclass(frozen=True)
class NetworkSpec:
    """A network that is none of the toolkit's, and its weights."""

    origin: NetworkOrigin
    name: str
    """The library's name of the network, a folder, or MODULE:FUNCTION."""
    file: Path | None = None
    """Local file of the weights."""
    download: str | None = None
    """The library's name of the weights to download."""
    is_random: bool = False
    """Take random weights."""
    address: str | None = None
    """Where it was downloaded from."""

    def __str__(self) -> str:
        """Return the text that names it on a command line."""
        if self.address is not None:
            return self.address
        weights = self.file or self.download
        text = f"{self.origin}:{self.name}" + (f"@{weights}" if weights else "")
        return f"{text} with random weights" if self.is_random else text

    @property
    def network(self) -> str:
        """Its name in records: without weights and, for a folder, without the folder's place."""
        if self.address is not None:
            return self.address.partition("@")[0]
        own = Path(self.name).resolve().name if self.origin == "hf" else self.name
        return f"{self.origin}:{own}"

    @property
    def lacks_weights(self) -> bool:
        """Return whether weights need to be chosen."""
        has_none = self.file is None and self.download is None and not self.is_random
        return has_none and self.origin in _DOWNLOADS

    def randomised(self) -> "NetworkSpec | None":
        """Return the same network with random weights; None if its origin has no such thing."""
        if self.origin not in _DOWNLOADS:
            return None
        return replace(self, file=None, download=None, is_random=True)

    def check(self) -> None:
        """Refuse a network without weights, and files that are absent.

        Raises:
            UserError: Lists the choices.
        """
        if self.lacks_weights:
            raise UserError(
                f"'{self}' names no weights; add @FILE for a local file, "
                f"@{_USUAL_DOWNLOAD[self.origin]} to download the library's, or --random-init for "
                "random ones"
            )
        if self.file is not None and not self.file.exists():
            raise UserError(f"'{self.file}' does not exist; expected the weights of {self.network}")
        if self.origin == "hf" and not Path(self.name).is_dir():
            raise UserError(
                f"'{self.name}' is not a folder; expected one with config.json, model.safetensors "
                "and preprocessor_config.json, as transformers' save_pretrained writes"
            )


Checkpoint: TypeAlias = Path | NetworkSpec
"""The weights to evaluate: a file or folder, or a network of another origin."""


def checkpoint_of(given: str | Path | NetworkSpec) -> Checkpoint:
    """Return a path, or the network that a text names.

    Raises:
        UserError: If the text begins like a network but is none.
    """
    if not isinstance(given, str):
        return given
    if is_address(given):
        return _downloaded(given)
    found = _SPEC.fullmatch(given)
    if found is None:
        return user_path(given)
    origin, rest = found.groups()
    if origin == "hf":
        _require(rest != "", given, "hf:FOLDER")
        return NetworkSpec("hf", str(user_path(rest)))
    if origin == "python":
        _require(_FUNCTION.fullmatch(rest) is not None, given, "python:MODULE:FUNCTION")
        return NetworkSpec("python", rest)
    library: NetworkOrigin = "timm" if origin == "timm" else "torchvision"
    name, at, weights = rest.partition("@")
    named = _LIBRARY_NAME.fullmatch(name) is not None and (weights != "" or not at)
    _require(named, given, f"{origin}:NAME@FILE")
    if _DOWNLOADS[origin].fullmatch(weights):
        return NetworkSpec(library, name, download=weights)
    return NetworkSpec(library, name, file=user_path(weights) if weights else None)


def _downloaded(address: str) -> Checkpoint:
    """Return what an address stands for on disk."""
    if not address.startswith(HUB):
        return local_weights(address)
    from rsa_pretrain.weights.remote.hub import pull

    pulled = pull(address)
    if pulled.is_own:
        return pulled.file
    if pulled.timm_architecture is not None:
        return NetworkSpec("timm", pulled.timm_architecture, pulled.file, address=pulled.address)
    return NetworkSpec("hf", str(pulled.file.parent), address=pulled.address)


def check_checkpoint(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that does not exist, and a network without weights.

    Raises:
        UserError: Names what is missing.
    """
    if isinstance(checkpoint, NetworkSpec):
        checkpoint.check()
    elif not checkpoint.exists():
        raise UserError(f"checkpoint '{checkpoint}' {ABSENT}{_hint(str(checkpoint))}")
    elif all((checkpoint / name).is_file() for name in _OF_TRANSFORMERS):
        raise UserError(
            f"'{checkpoint}' is a folder of transformers (it has {_OF_TRANSFORMERS[0]}); write "
            f"hf:{checkpoint}"
        )


def _hint(given: str) -> str:
    """Return what a path that does not exist was probably meant to be."""
    prefix, colon, rest = given.partition(":")
    nearest = difflib.get_close_matches(prefix.lower(), get_args(NetworkOrigin), n=1)
    if colon and nearest:
        return f"; the nearest is '{nearest[0]}:{rest}'"
    if "=" in given:
        return "; the key of a setting, key=value, consists of letters, digits and _ . -"
    return ""


def _require(condition: bool, given: str, form: str) -> None:
    if not condition:
        raise UserError(
            f"'{given}' is not of the form {form}; a file of that name can be written './{given}'"
        )
