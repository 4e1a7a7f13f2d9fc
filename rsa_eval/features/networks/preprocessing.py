"""State the input that a network was trained on."""

import math
from dataclasses import dataclass
from typing import get_args

from rsa_pretrain.data.settings import RGB, Interpolation
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Preprocessing:
    """The input a network expects; a user's function returns it beside the module.

    The evaluation's settings decide size and resizing. Where a network states others, a line names
    the settings that would follow it.

        Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), image_size=224)
    """

    mean: RGB
    """Per channel, for pixels in [0, 1]."""
    std: RGB
    """Per channel, positive."""
    image_size: int | None = None
    """Side in pixels. A function that returns it takes no other; None: it takes any."""
    resize: int | None = None
    """Side to which the short one is resized before the centre is cropped; None: not stated."""
    interpolation: Interpolation | None = None
    """Interpolation of the resizing; None: not stated."""
    num_prefix_tokens: int = 0
    """Tokens before those of patches, of a module that returns tokens, (N, L, D); the first is the
    class token."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: If one of them is not of its kind.
        """
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not isinstance(values, tuple | list) or [*map(_is_number, values)] != [True] * 3:
                raise UserError(f"{name} must be three numbers, found {values!r}")
            object.__setattr__(self, name, tuple(map(float, values)))
        if min(self.std) <= 0:
            raise UserError(f"std must be positive, found {self.std}")
        for name, size in (("image_size", self.image_size), ("resize", self.resize)):
            if size is not None and not (_is_count(size) and size > 0):
                raise UserError(f"{name} must be a number of pixels or None, found {size!r}")
        if self.interpolation not in (None, *get_args(Interpolation)):
            raise UserError(
                f"interpolation must be one of {', '.join(get_args(Interpolation))} or None, found "
                f"{self.interpolation!r}"
            )
        if not (_is_count(self.num_prefix_tokens) and self.num_prefix_tokens >= 0):
            raise UserError(f"num_prefix_tokens must count, found {self.num_prefix_tokens!r}")


def known_interpolation(name: object) -> Interpolation | None:
    """Return a library's interpolation if the toolkit has it, too."""
    return next((known for known in get_args(Interpolation) if known == name), None)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
