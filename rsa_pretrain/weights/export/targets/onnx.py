"""Export to ONNX: images in, features out, any batch and image size."""

import importlib
from pathlib import Path

import torch
from torch import Tensor, nn

from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.targets.base import ExportTarget, probe_images
from rsa_pretrain.weights.metadata import METADATA_KEY

_INPUT, _OUTPUT = "images", "features"


def write(loaded: LoadedBackbone, path: Path) -> None:
    """Trace the network, and store the metadata in the model's properties."""
    batch, height, width = (torch.export.Dim(name) for name in ("batch", "height", "width"))
    traced = torch.onnx.export(
        _Features(loaded.backbone).eval(),
        (probe_images(),),
        input_names=[_INPUT],
        output_names=[_OUTPUT],
        dynamic_shapes={_INPUT: {0: batch, 2: height, 3: width}},
        dynamo=True,
        verbose=False,
    )
    if traced is None:
        raise RuntimeError("torch.onnx.export returned no model")
    onnx = importlib.import_module("onnx")
    model = traced.model_proto
    properties = {METADATA_KEY: loaded.metadata.model_dump_json(), "input": _input_text(loaded)}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, str(path))


def features(loaded: LoadedBackbone, path: Path, images: Tensor) -> Tensor:
    """Run with onnxruntime on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run([_OUTPUT], {_INPUT: images.numpy()})
    return torch.from_numpy(result)


class _Features(nn.Module):
    """The backbone with its argument named as the model's input."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.backbone(images)
        return result


def _input_text(loaded: LoadedBackbone) -> str:
    metadata = loaded.metadata
    return f"(N, 3, H, W) RGB in [0, 1], less {metadata.mean}, divided by {metadata.std}"


ONNX = ExportTarget(
    name="onnx",
    suffix=".onnx",
    stems=("standard", "cifar"),
    write=write,
    packages=("onnx", "onnxscript", "onnxruntime"),
    features=features,
    layout=None,
    # onnxruntime folds BatchNorm into the convolutions, which rounds every weight again.
    tolerance=1e-4,
    advice="onnxruntime.InferenceSession('OUT').run(['features'], {'images': images})",
    loggers=("onnxscript", "onnx_ir", "torch.onnx"),
)
