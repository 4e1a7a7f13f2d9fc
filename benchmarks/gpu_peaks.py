"""List GPUs' published peak rates of matrix products without sparsity."""

from typing import NamedTuple

from rsa_pretrain.plumbing.device_names import Precision


class _Peak(NamedTuple):
    """Rates in 1e12 operations per second."""

    half: float
    """bf16 and fp16."""
    tf32: float
    """cuDNN's default for convolutions in fp32."""


_A100, _H100 = _Peak(312, 156), _Peak(989, 494)

# Keyed by torch's device name; from NVIDIA's data sheets, figures "with sparsity" halved.
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
    """Return a GPU's peak in 1e12 operations per second, or None if it is not listed."""
    peak = _PEAKS.get(device_name)
    if peak is None:
        return None
    return peak.tf32 if precision == "fp32" else peak.half
