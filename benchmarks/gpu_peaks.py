"""What GPUs can do at most: matrix products without sparsity, as their makers publish it."""

from typing import NamedTuple

from rsa_pretrain.plumbing.device_names import Precision


class _Peak(NamedTuple):
    """In 1e12 operations per second."""

    half: float
    """bf16 and fp16."""
    tf32: float
    """What cuDNN takes for convolutions in fp32."""


_A100, _H100 = _Peak(312, 156), _Peak(989, 494)

# By the name torch gives; NVIDIA's data sheets, the figures "with sparsity" halved.
_PEAKS = {
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA H100 80GB HBM3": _H100,
    "NVIDIA H100 PCIe": _Peak(756, 378),
    "NVIDIA H200": _H100,
    "NVIDIA L4": _Peak(121, 60),
    "NVIDIA L40S": _Peak(362, 183),
}


def matrix_peak(device_name: str, precision: Precision) -> float | None:
    """Return a GPU's peak in 1e12 operations per second, None if it is not in the table."""
    peak = _PEAKS.get(device_name)
    if peak is None:
        return None
    return peak.tf32 if precision == "fp32" else peak.half
