"""Keep tensors in a GPU's memory where they fit, and bring them to the CPU without waiting."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

# The rest is for the comparison, the classifier and whatever else runs on the GPU.
_PART_TO_FILL = 4


def spare_bytes(device: torch.device) -> int:
    """Return a quarter of a GPU's free memory, in bytes."""
    free, _ = torch.cuda.mem_get_info(device)
    return free // _PART_TO_FILL


def home_of(num_bytes: int, device: torch.device) -> torch.device:
    """Return the GPU if so many bytes fit into a quarter of its free memory, else the CPU."""
    fits = device.type == "cuda" and num_bytes <= spare_bytes(device)
    return device if fits else torch.device("cpu")


def brought_home(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a GPU if it fits there; elsewhere, return it as it is."""
    if tensor.device.type == device.type:
        return tensor
    return tensor.to(home_of(tensor.nbytes, device))


def on_cpu(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield tensors on the CPU; while one is copied from a GPU, the GPU works on the next.

    A yielded tensor may be in pinned memory, of which there should be little: copy what you keep.
    """
    on_its_way: tuple[Tensor, torch.cuda.Event] | None = None
    for batch in batches:
        if not batch.is_cuda:
            yield batch
            continue
        copy = torch.empty_like(batch, device="cpu", pin_memory=True)
        copy.copy_(batch, non_blocking=True)
        arrival = torch.cuda.current_stream(batch.device).record_event()
        if on_its_way is not None:
            yield _arrived(*on_its_way)
        on_its_way = copy, arrival
    if on_its_way is not None:
        yield _arrived(*on_its_way)


def _arrived(copy: Tensor, arrival: torch.cuda.Event) -> Tensor:
    arrival.synchronize()
    return copy
