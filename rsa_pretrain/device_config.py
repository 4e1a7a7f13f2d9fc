"""Choices of where networks run and at which precision."""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
