"""Tools a backbone is exported to: one literal tuple."""

from rsa_pretrain.foreign.targets.base import Target
from rsa_pretrain.foreign.targets.huggingface import HUGGINGFACE
from rsa_pretrain.foreign.targets.mmpretrain import MMPRETRAIN
from rsa_pretrain.foreign.targets.onnx import ONNX
from rsa_pretrain.foreign.targets.timm import TIMM
from rsa_pretrain.foreign.targets.torchvision import TORCHVISION

# detectron2's exporter is detection.convert, which this package does not import.
TARGETS: tuple[Target, ...] = (TORCHVISION, TIMM, HUGGINGFACE, MMPRETRAIN, ONNX)
