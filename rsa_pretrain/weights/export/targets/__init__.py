"""List the tools that a backbone can be exported to: one literal tuple."""

from rsa_pretrain.weights.export.targets.base import ExportTarget
from rsa_pretrain.weights.export.targets.huggingface import HUGGINGFACE
from rsa_pretrain.weights.export.targets.mmpretrain import MMPRETRAIN
from rsa_pretrain.weights.export.targets.onnx import ONNX
from rsa_pretrain.weights.export.targets.timm import TIMM
from rsa_pretrain.weights.export.targets.torchvision import TORCHVISION

# detectron2's exporter is detection.exchange.convert, which this package does not import.
TARGETS: tuple[ExportTarget, ...] = (TORCHVISION, TIMM, HUGGINGFACE, MMPRETRAIN, ONNX)
