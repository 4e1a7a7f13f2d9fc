"""Convert weights to the network's element types."""

from collections import Counter
from collections.abc import Mapping

import torch
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def to_types_of(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], what: str
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Convert half, bfloat16 and double precision to float32, and counts of any type to int64.

    Other types are left for ``check_tensors`` to refuse. Doubles are rounded to the nearest
    float32.

    Args:
        expected: Tensors of the desired types, by name.
        found: Tensors by name.
        what: Names the source in the error.

    Returns:
        The tensors, and how many were converted, by the names of their types.

    Raises:
        UserError: If a finite number is infinite as float32.
    """
    turned: dict[str, Tensor] = {}
    counts: Counter[str] = Counter()
    beyond = []
    for name, tensor in found.items():
        wanted = expected[name].dtype if name in expected else tensor.dtype
        if tensor.dtype == wanted or not _fits(tensor, wanted):
            turned[name] = tensor
            continue
        turned[name] = tensor.to(wanted)
        counts[str(tensor.dtype).removeprefix("torch.")] += 1
        if not torch.equal(turned[name].isfinite(), tensor.isfinite()):
            beyond.append(name)
    if beyond:
        raise UserError(
            f"cannot load {what}: {len(beyond)} not finite as float32 (largest value 3.4e38): "
            + first_of(beyond)
        )
    return turned, dict(counts)


def _fits(tensor: Tensor, wanted: torch.dtype) -> bool:
    if tensor.dtype in _FLOATS:
        return wanted in _FLOATS or torch.equal(tensor, tensor.round())
    return wanted == torch.int64 and tensor.dtype in _INTEGERS
