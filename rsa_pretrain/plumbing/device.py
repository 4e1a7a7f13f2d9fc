"""Choose the device of tensors and the precision of forward passes."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from rsa_pretrain.plumbing.device_names import DeviceName, Precision
from rsa_pretrain.plumbing.distributed import local_rank
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.memory import why_out_of_memory


def resolve_device(name: DeviceName) -> torch.device:
    """Return the device to use; of several GPUs, the one of this process's local rank.

    Raises:
        UserError: If a GPU is requested and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' was requested, but torch sees no GPU; use device 'cpu'")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank() >= torch.cuda.device_count():
        raise UserError(
            f"process {local_rank()} of this machine has no GPU of its own: torch sees "
            f"{torch.cuda.device_count()}; start at most one process per GPU"
        )
    return torch.device(name, local_rank()) if name == "cuda" else torch.device(name)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device without making the CPU wait."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision the device cannot train at.

    Raises:
        UserError: If fp16 is requested without a GPU.
    """
    if precision == "fp16" and device.type != "cuda":
        raise UserError("precision 'fp16' needs a GPU; on a CPU use 'fp32' or 'bf16'")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which forward passes run at ``precision``."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=compute_dtype(precision))


def compute_dtype(precision: Precision) -> torch.dtype:
    """Return the type in which convolutions and products are computed at ``precision``."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """Let cuDNN time its algorithms for each new shape in the block, and keep the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def without_tf32(precision: Precision) -> Iterator[None]:
    """Make cuDNN convolve in full float32 in the block, if ``precision`` is fp32.

    By default torch lets it round the factors to TF32's ten bits of mantissa.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and precision != "fp32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def explained_out_of_memory(hint: str) -> Iterator[None]:
    """Turn an out-of-memory error in the block, of the GPU or not, into a user error.

    Args:
        hint: Which setting helps.

    Raises:
        UserError: Ends in the hint.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = why_out_of_memory(error)
        if reason is None:
            raise
        raise UserError(f"{reason}; {hint}") from None


def describe_hardware(device: torch.device) -> str:
    """Name the processor as results quote it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
            lines = [line for line in cpuinfo if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    except OSError:
        pass
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def usable_cores() -> int:
    """Count the CPU cores that this process may use; affinity may allow fewer than all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
