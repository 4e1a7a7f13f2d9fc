"""Export a backbone to another tool's format, verified before the file gets its final name.

The proof has two parts: the written file, imported again, equals the backbone bitwise (except
ONNX, which nothing imports); and, if the tool is installed, its own network computes the same
features for two images.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from rsa_pretrain.components.settings import USUAL_WIDTH
from rsa_pretrain.plumbing.atomic_files import atomic_file, atomic_folder
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import check_packages, missing_packages
from rsa_pretrain.plumbing.quiet import quiet
from rsa_pretrain.plumbing.user_paths import refuse_input
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.export.model_card import UNNAMED, RecordOfWeights, model_card
from rsa_pretrain.weights.export.targets import TARGETS
from rsa_pretrain.weights.export.targets.base import ExportTarget, probe_images
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.tensor_check import differing

CARD_FILE = "README.md"


@dataclass(frozen=True)
class Export:
    """The written file, and the findings of its proof."""

    target: ExportTarget
    out: Path
    imported_again: bool
    difference: float | None
    """Largest difference of features, relative to the largest; None without the tool."""


def find_target(name: str) -> ExportTarget:
    """Return the target with a name.

    Raises:
        UserError: If there is none.
    """
    for target in TARGETS:
        if target.name == name:
            return target
    known = ", ".join(target.name for target in TARGETS)
    raise UserError(f"there is no target '{name}'; choose one of: {known}")


def export_backbone(
    loaded: LoadedBackbone,
    target: ExportTarget,
    out: Path,
    records: Sequence[RecordOfWeights] = (),
    repository: str = UNNAMED,
) -> Export:
    """Write a backbone for another tool; nothing is left behind on failure.

    Args:
        loaded: The backbone.
        target: The tool.
        out: File or folder to write.
        records: Evaluations for the model card.
        repository: USER/NAME on the Hugging Face hub, for the model card.

    Raises:
        UserError: If the tool has no such network, ``out`` is misnamed, already exists or is the
            backbone's own file, or the library that writes the file is not installed.
        RuntimeError: If a part of the proof fails.
    """
    _check(loaded, target, out)
    with quiet(target.loggers, logging.WARNING), _atomic(target, out) as temporary:
        target.write(loaded, temporary)
        if not target.suffix:
            card = model_card(loaded, records, repository)
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        imported_again = _prove_import(loaded, target, temporary)
        difference = _prove_features(loaded, target, temporary)
    return Export(target, out, imported_again, difference)


def _check(loaded: LoadedBackbone, target: ExportTarget, out: Path) -> None:
    if loaded.metadata.stem not in target.stems:
        raise UserError(
            f"'{loaded.path}' has the '{loaded.metadata.stem}' stem, which no ResNet of "
            f"{target.name} has; export it to torchvision or onnx"
        )
    if target.layout is not None and loaded.metadata.network.width != USUAL_WIDTH:
        raise UserError(
            f"'{loaded.path}' is a {loaded.metadata.arch}, which {target.name} does not have; "
            "export it to onnx"
        )
    if out.suffix != target.suffix:
        wanted = f"should end in {target.suffix}" if target.suffix else "should name a folder"
        raise UserError(f"'{out}' {wanted}")
    refuse_input(out, loaded.path)
    if target.suffix and out.is_dir():
        raise UserError(f"'{out}' is a folder; name a file in it")
    if not target.suffix and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"'{out}' exists and is not an empty folder; name another")
    if target.layout is None:
        check_packages(target.packages, f"export to {target.name}")


def _atomic(target: ExportTarget, out: Path) -> AbstractContextManager[Path]:
    return atomic_file(out) if target.suffix else atomic_folder(out)


def _prove_import(loaded: LoadedBackbone, target: ExportTarget, written: Path) -> bool:
    if target.layout is None:
        return False
    file = written / target.weights if target.weights else written
    pixels = Pixels(loaded.metadata.mean, loaded.metadata.std)
    again = import_weights(file, ImportOptions(target.layout, pixels=pixels, cifar_stem=True))
    source, restored = loaded.backbone.state_dict(), again.backbone.state_dict()
    unequal = differing(restored, source)
    if unequal:
        raise RuntimeError(f"the written file does not restore the backbone: {unequal}")
    return True


def _prove_features(loaded: LoadedBackbone, target: ExportTarget, written: Path) -> float | None:
    if missing_packages(target.packages):
        return None
    images = probe_images()
    with torch.inference_mode():
        expected = loaded.backbone(images)
    found = target.features(loaded, written, images)
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= target.tolerance:
        raise RuntimeError(
            f"features of {target.name} differ from the backbone's by {difference:g} of the "
            f"largest, more than {target.tolerance:g}"
        )
    return difference
