"""Describe the contents of a checkpoint file, in lines for a terminal."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.name_lists import first_of
from rsa_pretrain.weights.checkpoint import NOT_A_BACKBONE, is_detector
from rsa_pretrain.weights.files.file_content import FileContent, look_at_file
from rsa_pretrain.weights.files.tree import listed, printable
from rsa_pretrain.weights.foreign.assign import networks_in, shown_prefix
from rsa_pretrain.weights.foreign.layout import Layout
from rsa_pretrain.weights.foreign.plan import make_plan
from rsa_pretrain.weights.foreign.recognise import matching_layouts, recognise
from rsa_pretrain.weights.foreign.unwrap import unwrapped
from rsa_pretrain.weights.metadata import METADATA_KEY, BackboneMetadata
from rsa_pretrain.weights.tensor_check import all_finite

_SHOWN_VALUES = 12
_SHOWN_VALUE_LETTERS = 60
_SHOWN_SHAPES = 4
_SHOWN_KINDS = 20


def describe_file(path: Path, *, every_tensor: bool = False) -> list[str]:
    """Describe any checkpoint, whether or not it can be imported; runs no code in the file.

    Args:
        path: The file.
        every_tensor: Add one line per tensor.

    Raises:
        UserError: If it cannot be read.
    """
    content = look_at_file(path)
    lines = [
        f"file      {path}",
        f"written   {content.kind}, {content.size / 1e6:.1f} MB, SHA-256 {content.sha256}",
    ]
    lines += [
        f"DANGER    it refers to {name}, which was not run; an import refuses this file"
        for name in content.dangerous
    ]
    if METADATA_KEY in content.values:
        lines += _own_metadata(str(content.values[METADATA_KEY]))
    else:
        lines += _layout_lines(content)
    if is_detector(content.tensors):
        lines.append(f"detector  {NOT_A_BACKBONE}")
    if content.tensors:
        lines += ["tensors   group, count, elements, smallest to largest, mean ± std, shapes"]
        lines += [f"  {line}" for line in _group_lines(content)]
        lines += _non_finite_lines(content)
    else:
        lines += ["tensors   none"]
    lines += _value_lines(content)
    lines += _ignored_lines(content.passed_over)
    if every_tensor:
        lines += [
            f"  {path}  {_summary({path: tensor})}" for path, tensor in content.tensors.items()
        ]
    return lines


def import_lines(metadata: BackboneMetadata) -> list[str]:
    """Describe what an import took from a file, dropped and changed.

    Args:
        metadata: Metadata of imported weights.
    """
    origin = metadata.origin
    assert origin is not None, "an import keeps its origin"
    lines = [
        f"layout    {origin.layout}, {origin.recognised}",
        f"network   {origin.network}, under '{origin.prefix}'",
        f"backbone  {metadata.arch}, {metadata.stem} stem, {origin.num_taken} tensors",
        *(f"dropped   {count} x {why}" for why, count in origin.dropped.items()),
    ]
    if origin.wrappers:
        lines.append(f"unwrapped {', '.join(origin.wrappers)}")
    lines += [*_ignored_lines(origin.passed_over), *origin.changes()]
    if origin.non_finite:
        lines.append(f"NaN/Inf   in {', '.join(origin.non_finite)}")
    lines.append(f"pixels    mean {metadata.mean}, std {metadata.std}, RGB ({origin.pixels})")
    return lines


def _ignored_lines(passed_over: Mapping[str, int]) -> list[str]:
    """Count the objects that are neither tensors nor plain values, by kind, in one line or none."""
    kinds = [f"{count} x {kind}" for kind, count in passed_over.items()]
    total = sum(passed_over.values())
    return [f"ignored   {total} other objects: {listed(kinds, _SHOWN_KINDS)}"] if kinds else []


def _own_metadata(text: str) -> list[str]:
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        return ["layout    this toolkit's, with damaged metadata"]
    if not isinstance(metadata, dict):
        return ["layout    this toolkit's, with damaged metadata"]
    return [
        "layout    this toolkit's",
        *(printable(f"  {key}: {value}") for key, value in metadata.items()),
    ]


def _layout_lines(content: FileContent) -> list[str]:
    """Say how the file would be imported, or why not, and which networks it contains."""
    if not content.tensors:
        return ["layout    none: it contains no tensors"]
    try:
        candidates = matching_layouts(content)
        chosen = recognise(content, finite=False)
    except UserError as error:
        return [f"layout    none: {error}"]
    plan = chosen.plan
    lines = [
        f"layout    {plan.layout.name} ({plan.layout.made_by})",
        f"          {chosen.how}",
        f"          names as in {plan.layout.source}",
    ]
    if len(candidates) > 1:
        lines.append(f"          also tried: {', '.join(layout.name for layout in candidates)}")
    for network, prefix in networks_in(content, plan.layout).items():
        default = ", taken by default" if network == plan.layout.default_network else ""
        what = _network(content, plan.layout, network)
        shown = shown_prefix(unwrapped(content), plan.layout, prefix)
        lines.append(f"network   {network}, under '{shown}'{default}: {what}")
    for why, paths in plan.dropped.items():
        lines.append(f"dropped   {len(paths)} x {why}, such as '{paths[0]}'")
    lines += [f"converted {count} x {kind}" for kind, count in plan.converted.items()]
    if plan.filled:
        lines.append(f"filled    {len(plan.filled)} batch counts that the file lacks")
    pixels = plan.pixels
    stated = "must be given" if pixels is None else f"mean {pixels.mean}, std {pixels.std}, RGB"
    return [*lines, f"pixels    {stated}"]


def _network(content: FileContent, layout: Layout, network: str) -> str:
    try:
        plan = make_plan(content, layout, network, finite=False)
    except UserError as error:
        return str(error)
    return f"{plan.config.name}, {plan.config.stem} stem, {len(plan.tensors)} tensors"


def _group_lines(content: FileContent) -> Iterator[str]:
    """Summarise the tensors by container and first module."""
    groups: dict[str, dict[str, Tensor]] = {}
    for path, tensor in content.tensors.items():
        folder, slash, name = path.rpartition("/")
        module = name.removeprefix("module.").partition(".")[0]
        groups.setdefault(f"{folder}{slash}{module}", {})[path] = tensor
    width = max(len(group) for group in groups)
    for group, tensors in groups.items():
        yield f"{group:<{width}}  {_summary(tensors)}"


def _summary(tensors: Mapping[str, Tensor]) -> str:
    shapes = list(dict.fromkeys(_shape(tensor) for tensor in tensors.values()))
    elements = sum(tensor.numel() for tensor in tensors.values())
    parts = [f"{len(tensors):>4}", f"{elements:>10}", _statistics(tensors)]
    return "  ".join([*parts, first_of(shapes, _SHOWN_SHAPES)])


def _statistics(tensors: Mapping[str, Tensor]) -> str:
    """Return range, mean and standard deviation of the finite floating-point values."""
    count, total, squares = 0, 0.0, 0.0
    low, high = float("inf"), float("-inf")
    for tensor in tensors.values():
        if not tensor.is_floating_point():
            continue
        values = tensor if all_finite(tensor) else tensor[tensor.isfinite()]
        if values.numel():
            count += values.numel()
            total += float(values.sum(dtype=torch.float64))
            squares += float(values.float().square().sum(dtype=torch.float64))
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    if count == 0:
        return "no floating-point values"
    mean = total / count
    std = max(squares / count - mean**2, 0.0) ** 0.5
    return f"{low:.3g} to {high:.3g}, {mean:.3g} ± {std:.3g}"


def _shape(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _non_finite_lines(content: FileContent) -> list[str]:
    bad = {
        path: int(torch.count_nonzero(~tensor.isfinite()))
        for path, tensor in content.tensors.items()
        if not all_finite(tensor)
    }
    if not bad:
        return ["finite    every value"]
    return [f"NaN/Inf   {count} values in '{path}'" for path, count in bad.items()]


def _value_lines(content: FileContent) -> list[str]:
    values = {
        path: value
        for path, value in content.values.items()
        if value is not None and path != METADATA_KEY
    }
    shown = dict(list(values.items())[:_SHOWN_VALUES])
    lines = [
        f"value     {path}: {printable(str(value))[:_SHOWN_VALUE_LETTERS]}"
        for path, value in shown.items()
    ]
    if len(values) > len(shown):
        lines.append(f"value     and {len(values) - len(shown)} more")
    return lines
