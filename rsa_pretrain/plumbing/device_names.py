"""Name devices and precisions in settings; importing this imports no torch."""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda"]


Precision = Literal["fp32", "bf16", "fp16"]
