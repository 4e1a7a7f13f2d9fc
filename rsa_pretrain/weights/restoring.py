"""Restore the state of training from what a checkpoint holds."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rsa_pretrain.plumbing.errors import UserError


@contextmanager
def restoring(source: str) -> Iterator[None]:
    """Refuse a trainer state that lacks a part, or has something else in its place.

    Args:
        source: Name of the checkpoint in errors.

    Raises:
        UserError: In place of what the restored parts raise.
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"the trainer state of {source} lacks {error}") from None
    except (UserError, torch.OutOfMemoryError):
        raise
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        problem = " ".join(str(error).split())
        raise UserError(f"the trainer state of {source} is damaged: {problem}") from None
