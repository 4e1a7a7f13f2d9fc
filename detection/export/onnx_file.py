"""Export to ONNX, for ONNX Runtime and other readers of the format."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from detection.engines.torchvision.detector import MaskRCNN
from detection.engines.torchvision.regions import SCORE_THRESHOLD as DEFAULT_THRESHOLD
from detection.engines.torchvision.regions import Detections
from detection.export.graph import (
    IMAGE,
    SCORE_THRESHOLD,
    DetectorFormat,
    DetectorGraph,
    RunDetector,
    example,
    output_names,
)

# torchvision's batched_nms offsets groups for up to 1000 boxes, and loops over them for more.
_MOVED_APART = 1000
_LOWEST = float(torch.finfo(torch.float32).min)
_ERRORS_AND_ABOVE = 3  # of ONNX Runtime


@torch.library.custom_op("rsa_toolkit::nms_in_groups", mutates_args=())
def nms_in_groups(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Suppress within each group, as one ONNX operator that torch lacks.

    Returns:
        Indices of the boxes kept, in no particular order.
    """
    kept = [torch.zeros(0, dtype=torch.int64)]
    for group in torch.unique(groups):
        members = torch.where(groups == group)[0]
        kept.append(members[nms(boxes[members], scores[members], iou)])
    return torch.cat(kept)


@nms_in_groups.register_fake
def _(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    return boxes.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def suppress(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float, limit: int) -> Tensor:
    """Reproduce the engine's ``suppress`` on the CPU, rounding included, without branching.

    Boxes that torchvision would offset are offset by as much here, which rounds them; in either
    case each group is then suppressed separately.
    """
    order = scores.sort(descending=True).indices
    boxes, groups = boxes[order], groups[order]
    extent = torch.cat([boxes.flatten(), boxes.new_zeros(1)]).max() + 1
    count = torch.ones_like(groups).sum()
    step = torch.where(count > _MOVED_APART, torch.zeros_like(extent), extent)
    moved = boxes + (groups.to(boxes) * step)[:, None]
    places = torch.ones_like(groups).cumsum(0)
    kept = nms_in_groups(moved, -places.to(boxes), groups, iou)
    # Otherwise torch refuses what follows in case none are kept; the ONNX graph has no such check.
    torch._check(kept.shape[0] > 0)
    best = order[kept.sort().values][:limit]
    # Newer releases of torch know this of a slice.
    torch._check(best.shape[0] > 0)
    torch._check(best.shape[0] <= limit)
    return best


def write(detector: MaskRCNN, properties: Mapping[str, str], path: Path) -> None:
    """Trace the detector with dynamic sizes and translate it to ONNX."""
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        DetectorGraph(detector, suppress),
        example(),
        dynamic_shapes={IMAGE: {1: dynamic, 2: dynamic}, SCORE_THRESHOLD: None},
        strict=False,
    )
    translated = torch.onnx.export(
        program,
        input_names=[IMAGE, SCORE_THRESHOLD],
        output_names=output_names(detector),
        custom_translation_table={torch.ops.rsa_toolkit.nms_in_groups.default: _nms_in_groups},
        dynamo=True,
        verbose=False,
    )
    if translated is None:
        raise RuntimeError("torch.onnx.export returned no model")
    onnx = importlib.import_module("onnx")
    model = translated.model_proto
    _name_sizes(model.graph)
    default = onnx.numpy_helper.from_array(np.array(DEFAULT_THRESHOLD, np.float32), SCORE_THRESHOLD)
    model.graph.initializer.append(default)  # an input with a default may be omitted
    onnx.helper.set_model_props(model, dict(properties))
    onnx.save(model, str(path))


def load(path: Path) -> RunDetector:
    """Run with ONNX Runtime on the CPU."""
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = _ERRORS_AND_ABOVE
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(image: Tensor, score_threshold: float) -> Detections:
        inputs = {IMAGE: image.numpy(), SCORE_THRESHOLD: np.array(score_threshold, np.float32)}
        values = map(torch.from_numpy, session.run(names, inputs))
        return dict(zip(names, values, strict=True))

    return run


def _nms_in_groups(boxes: Any, scores: Any, groups: Any, iou: float) -> Any:
    """Translate to ONNX: a box keeps its score in its own group and gets the lowest elsewhere."""
    op = importlib.import_module("onnxscript").opset18
    zero, one = op.Constant(value_ints=[0]), op.Constant(value_ints=[1])
    last = op.ReduceMax(op.Concat(groups, zero, axis=0), keepdims=0)
    each = op.Range(
        op.Constant(value_int=0), last + op.Constant(value_int=1), op.Constant(value_int=1)
    )
    own = op.Equal(op.Unsqueeze(each, one), op.Unsqueeze(groups, zero))
    by_group = op.Where(own, op.Unsqueeze(scores, zero), op.Constant(value_float=_LOWEST))
    chosen = op.NonMaxSuppression(
        op.Unsqueeze(boxes, zero),
        op.Unsqueeze(by_group, zero),
        op.Constant(value_ints=[torch.iinfo(torch.int64).max]),
        op.Constant(value_floats=[iou]),
        op.Constant(value_floats=[_LOWEST / 2]),
    )
    # Rows are (image, group, box).
    return op.Squeeze(
        op.Slice(chosen, op.Constant(value_ints=[2]), op.Constant(value_ints=[3]), one), one
    )


def _name_sizes(graph: Any) -> None:
    """Name the dynamic sizes by their meaning instead of the tracer's symbols."""
    del graph.value_info[:]
    for value in graph.input:
        if value.name == IMAGE:
            for dim, name in zip(
                value.type.tensor_type.shape.dim[1:], ("height", "width"), strict=True
            ):
                dim.dim_param = name
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_param = "detections"


ONNX = DetectorFormat(
    name="onnx",
    suffix=".onnx",
    packages=("onnx", "onnxscript", "onnxruntime"),
    write=write,
    load=load,
    advice="onnxruntime.InferenceSession('OUT').run(None, {'image': image})",
    loggers=("onnxscript", "onnx_ir", "torch.onnx", "torch.export", "torch.fx"),
)
