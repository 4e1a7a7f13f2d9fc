"""Make one vector of a network's tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from rsa_eval.config import TokenPooling
from rsa_pretrain.plumbing.errors import UserError


@dataclass(frozen=True)
class Pooling:
    """The tokens that become features: an evaluation's ``tokens`` and ``blocks``."""

    tokens: TokenPooling = "default"
    blocks: int = 1

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            UserError: If there is no such choice of tokens, or no such number of their blocks.
        """
        choices = get_args(TokenPooling)
        if self.tokens not in choices:
            raise UserError(f"tokens is {self.tokens!r}, expected one of {', '.join(choices)}")
        if not isinstance(self.blocks, int) or self.blocks < 1:
            raise UserError(f"blocks is {self.blocks!r}, expected a count from 1 on")
        if self.is_default and self.blocks > 1:
            raise UserError("blocks needs tokens=cls, tokens=mean or tokens=cls+mean")

    @property
    def is_default(self) -> bool:
        """Return whether the network's own pooled features are taken."""
        return self.tokens == "default"

    @property
    def text(self) -> str:
        """The settings as words of a command line."""
        return f"tokens={self.tokens} blocks={self.blocks}"

    def refuse(self, network: str, why: str, advice: str = "leave tokens out") -> UserError:
        """Return the error about a network that has no such tokens."""
        return UserError(f"{network} {why}, so {self.text} cannot be taken; {advice}")

    def check_blocks(self, network: str, num_blocks: int) -> None:
        """Refuse more blocks than there are.

        Raises:
            UserError: If there are fewer.
        """
        if self.blocks > num_blocks:
            raise UserError(
                f"{network} has {num_blocks} blocks, found blocks={self.blocks}; lower it"
            )


def pool_tokens(
    outputs: Sequence[tuple[Tensor | None, Tensor]], pooling: Pooling, network: str
) -> Tensor:
    """Concatenate the chosen tokens of a network's last blocks.

    ``cls+mean`` is the input of DINOv2's linear classifiers (Oquab et al. 2023): class tokens of
    all the blocks, then the mean of the last one's patches.

    Args:
        outputs: Class token, (N, D), or None, and tokens of patches, (N, L, D), of each block.
        pooling: The settings.
        network: Name of the network, for errors.

    Returns:
        (N, K), where K is a multiple of D.

    Raises:
        UserError: If the network has no class token, and it is asked for.
    """
    parts: list[Tensor] = []
    if pooling.tokens in ("cls", "cls+mean"):
        classes = [token for token, _ in outputs if token is not None]
        if len(classes) < len(outputs):
            raise pooling.refuse(network, "has no class token", "set tokens=mean")
        parts += classes
    if pooling.tokens in ("mean", "cls+mean"):
        averaged = outputs if pooling.tokens == "mean" else outputs[-1:]
        parts += [patches.mean(dim=1) for _, patches in averaged]
    return torch.cat(parts, dim=1)


def tokens_as_map(patches: Tensor, network: str) -> Tensor:
    """Arrange the tokens of a square image's patches as a map.

    Args:
        patches: Row by row, (N, L, D), without class token and registers.
        network: Name of the network, for errors.

    Returns:
        (N, D, h, w) with h = w.

    Raises:
        UserError: If L is no square number.
    """
    num_images, count, width = patches.shape
    side = math.isqrt(count)
    if side * side != count:
        raise no_map(network, f"gives {count} tokens of patches, which are no square")
    return patches.mT.reshape(num_images, width, side, side)


def no_map(network: str, why: str) -> UserError:
    """Return the error about a network that gives no map."""
    return UserError(f"{network} {why}, so its places cannot be classified; take another network")
