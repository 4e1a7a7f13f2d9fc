"""Published transfer of ImageNet-pretrained ResNet-50s to twelve data sets, as printed.

Grill et al. 2020 (BYOL, arXiv:2006.07733v3), Table 3; their Table 10 has the accuracy measures.
They take the rows SimCLR, Supervised-IN and Random init from Chen et al. 2020.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

TransferProtocol = Literal["logistic", "finetune"]

_TOP1, _PER_CLASS, _MAP = "top1", "mean_per_class", "mAP_11_points"

TRANSFER_METRICS: Mapping[str, str] = {
    "food101": _TOP1,
    "cifar10": _TOP1,
    "cifar100": _TOP1,
    "birdsnap": _TOP1,
    "sun397": _TOP1,
    "stanford_cars": _TOP1,
    "fgvc_aircraft": _PER_CLASS,
    "voc2007": _MAP,
    "dtd": _TOP1,
    "oxford_pets": _PER_CLASS,
    "caltech101": _PER_CLASS,
    "flowers102": _PER_CLASS,
}
"""The measure of each data set, in the order of the table; SUN397 and DTD are their first split."""

_LOGISTIC = {
    "BYOL": "75.3 91.3 78.4 57.2 62.2 67.8 60.6 82.5 75.5 90.4 94.2 96.1",
    "SimCLR (repro)": "72.8 90.5 74.4 42.4 60.6 49.3 49.8 81.4 75.7 84.6 89.3 92.6",
    "SimCLR": "68.4 90.6 71.6 37.4 58.8 50.3 50.3 80.5 74.5 83.6 90.3 91.2",
    "Supervised-IN": "72.3 93.6 78.3 53.7 61.9 66.7 61.0 82.8 74.9 91.5 94.5 94.7",
}

_FINETUNE = {
    "BYOL": "88.5 97.8 86.1 76.3 63.7 91.6 88.1 85.4 76.2 91.7 93.8 97.0",
    "SimCLR (repro)": "87.5 97.4 85.3 75.0 63.9 91.4 87.6 84.5 75.4 89.4 91.7 96.6",
    "SimCLR": "88.2 97.7 85.9 75.9 63.5 91.3 88.1 84.1 73.2 89.2 92.1 97.0",
    "Supervised-IN": "88.3 97.5 86.4 75.8 64.3 92.1 86.0 85.0 74.6 92.1 93.3 97.6",
    "Random init": "86.9 95.9 80.2 76.1 53.6 91.4 85.9 67.3 64.8 81.5 72.6 92.0",
}


@dataclass(frozen=True)
class TransferRow:
    """A printed row: one network, transferred to each data set."""

    label: str
    protocol: TransferProtocol
    """logistic: L2-regularised logistic regression on frozen features, by L-BFGS, of 45 strengths;
    finetune: 20,000 steps of the whole network by SGD."""
    source: str
    """Paper and table."""
    values: Mapping[str, float]
    """Percent by data set, in the measure of ``TRANSFER_METRICS``."""


def transfer_rows(protocol: TransferProtocol) -> list[TransferRow]:
    """Return the rows of a protocol in the table's order."""
    rows = {"logistic": _LOGISTIC, "finetune": _FINETUNE}[protocol]
    return [
        TransferRow(
            label=label,
            protocol=protocol,
            source="BYOL, Table 3",
            values=dict(zip(TRANSFER_METRICS, map(float, printed.split()), strict=True)),
        )
        for label, printed in rows.items()
    ]
