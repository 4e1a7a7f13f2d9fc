"""Compare tensors with the expected ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of


def check_tensors(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str, *, finite: bool = True
) -> None:
    """Refuse tensors that are not exactly the expected ones.

    Args:
        found: Tensors by name.
        expected: Tensors with the expected names, shapes and types.
        what: Names the source in the error.
        finite: Also refuse NaN and infinity.

    Raises:
        UserError: Lists missing, unexpected and misshapen tensors, those of another element type,
            and non-finite ones.
    """
    both = [name for name in expected if name in found]
    misshapen = [
        f"{name} ({_shape(found[name])}, expected {_shape(expected[name])})"
        for name in both
        if found[name].shape != expected[name].shape
    ]
    mistyped = [
        f"{name} ({_type(found[name])}, expected {_type(expected[name])})"
        for name in both
        if found[name].dtype != expected[name].dtype
    ]
    problems = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "misshapen": misshapen,
        "of another type": mistyped,
        "not finite": [name for name in found if finite and not all_finite(found[name])],
    }
    listed = [
        f"{len(names)} {kind}: {first_of(names)}" for kind, names in problems.items() if names
    ]
    if listed:
        raise UserError(f"cannot load {what}: " + "; ".join(listed))


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that contain NaN or infinity.

    A GPU is waited for once, unless there are any.

    Args:
        tensors: Tensors of one device by name.
    """
    # A finite sum has finite terms.
    sums = torch.stack([tensor.sum().double() for tensor in tensors.values()])
    if sums.isfinite().all():
        return []
    return [name for name, tensor in tensors.items() if not all_finite(tensor)]


def all_finite(tensor: Tensor) -> bool:
    """Return whether a tensor contains neither NaN nor infinity.

    A finite sum has finite terms, and is known after one pass over the memory, where ``isfinite``
    needs several. The sum of finite terms may overflow, so an infinite one decides nothing.
    """
    if tensor.is_floating_point() and tensor.sum().isfinite():
        return True
    return bool(tensor.isfinite().all())


def differing(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that one side lacks, or that differ in type, shape or any bit.

    Args:
        found: Tensors by name, on any device.
        expected: Likewise.
    """
    return [
        name
        for name in sorted(found.keys() | expected.keys())
        if name not in found or name not in expected or not _same(found[name], expected[name])
    ]


def _same(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())


def _shape(tensor: Tensor) -> str:
    return f"{_type(tensor)} {list(tensor.shape)}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
