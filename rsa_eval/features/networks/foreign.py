"""Hold a network that is none of the toolkit's, and check every answer it gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rsa_eval.features.networks.preprocessing import Preprocessing
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import why_out_of_memory


class ForwardError(UserError):
    """A network raised an exception on a batch of images."""


@dataclass(frozen=True)
class OpenedNetwork:
    """A network as its origin opens it."""

    module: nn.Module
    """Maps normalised images, float32 (N, 3, S, S), to features, (N, D); its ``last_map`` gives
    their last map before any pooling, (N, D, h, w)."""
    preprocessing: Preprocessing
    sha256: str | None
    """Hash of the file of the weights; None where there is none, for that of the tensors."""
    source: str = ""
    """Hash of code or settings that decide the features beside the tensors."""
    libraries: tuple[str, ...] = ()
    """Packages that compute the features, beside torch."""
    takes_one_size: bool = False
    """The image size it states is the only one it takes."""
    channels_last: bool = True
    """Images may come in this memory format, the faster one for convolutions."""


class ForeignNetwork(nn.Module):
    """A network of another origin: its features, checked at each call.

    Args:
        opened: The network.
        name: Its name in records and errors.
        pooling: Settings that chose its features, as text.
    """

    place: Tensor

    def __init__(self, opened: OpenedNetwork, name: str, pooling: str) -> None:
        super().__init__()
        self.module = opened.module
        self.name = name
        self.pooling = pooling
        self.source = opened.source
        self.libraries = opened.libraries
        self.width: int | None = None
        """D, known after the first call."""
        self.map_bytes_per_pixel: float = 0.0
        """Size of the largest float32 output of any of its modules, per pixel of the image."""
        self.channels_last = opened.channels_last
        # A network need not have any tensor that says where it is.
        self.register_buffer("place", torch.empty(0), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return features, (N, D), of normalised images.

        Raises:
            UserError: If the network fails, or returns anything else.
        """
        checked = self._checked(self._run(self.module, images), images)
        # What inference mode leaves behind cannot be trained on.
        return checked.clone() if checked.is_inference() else checked

    def last_map(self, images: Tensor) -> Tensor:
        """Return the last map before any pooling, (N, D, h, w), of normalised images.

        Raises:
            UserError: If the network fails, gives no map, or one that is not square as its images.
        """
        module: Any = self.module
        found = self._run(module.last_map, images)
        if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != len(images):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{self.name} gave {what} as its last map, expected (N, D, h, w)")
        if not found.is_floating_point() or found.device != images.device:
            raise UserError(
                f"{self.name} gave a map of type {found.dtype} on {found.device}, expected float32 "
                f"on {images.device}"
            )
        if images.shape[2] == images.shape[3] and found.shape[2] != found.shape[3]:
            raise UserError(
                f"{self.name} gave {tuple(found.shape)} as the last map of square images, expected "
                "(N, D, h, w) with h = w; permute a map of shape (N, h, w, D)"
            )
        self._check_mode(found)
        return found.clone() if found.is_inference() else found

    def _run(self, function: Callable[[Tensor], Any], images: Tensor) -> Any:
        if not self.channels_last:
            images = images.contiguous()
        try:
            return function(images)
        except UserError:
            raise
        # Anything may be raised by code that is not the toolkit's.
        except Exception as error:
            if why_out_of_memory(error) is not None:
                raise
            raise ForwardError(
                f"{self.name} failed on images {tuple(images.shape)} with "
                f"{type(error).__name__}: {error}"
            ) from error

    def changed(self, moved: Sequence[str]) -> UserError:
        """Return the error about tensors that changed while the network was frozen."""
        listed = ", ".join(name.removeprefix("module.model.") for name in moved[:5])
        return UserError(
            f"{self.name} changed its tensors while computing features ({listed}); in eval mode "
            "parameters and buffers must stay as they are"
        )

    def _checked(self, features: object, images: Tensor) -> Tensor:
        if not isinstance(features, Tensor):
            raise UserError(
                f"{self.name} returned {type(features).__name__}, expected a tensor of features "
                "(N, D)"
            )
        shape, num_images = tuple(features.shape), len(images)
        if features.ndim != 2 or shape[0] != num_images or shape[1] == 0:
            raise UserError(
                f"{self.name} returned shape {shape} for {num_images} images, expected features "
                f"({num_images}, D)"
            )
        if not features.is_floating_point():
            raise UserError(
                f"{self.name} returned features of type {features.dtype}, expected float32"
            )
        if features.device != images.device:
            raise UserError(
                f"{self.name} returned features on {features.device} for images on "
                f"{images.device}; expected them on the images' device"
            )
        if self.width is None:
            self.width = shape[1]
        if shape[1] != self.width:
            raise UserError(
                f"{self.name} returned features of width {shape[1]}, and of width {self.width} "
                "before; expected one width for all images"
            )
        self._check_mode(features)
        return features

    def _check_mode(self, features: Tensor) -> None:
        if self.training:
            if torch.is_grad_enabled() and not features.requires_grad:
                raise UserError(
                    f"{self.name} computes its features without gradients, so it cannot be "
                    "fine-tuned; remove torch.no_grad or inference_mode from its forward"
                )
            return
        awake = [name for name, module in self.module.named_modules() if module.training]
        if awake:
            raise UserError(
                f"{self.name} was put in eval mode, and its module '{awake[0]}' is in training "
                "mode; it must not override train() or call it"
            )
