"""Export a detector for another runtime, proven before the file gets its final name."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from detection.export.exported_detector import ExportedDetector
from detection.export.graph import MARK, DetectorFormat
from detection.export.onnx_file import ONNX
from detection.export.proof import ExportProof, prove
from detection.export.torchscript import TORCHSCRIPT
from rsa_pretrain.plumbing.atomic_files import atomic_file
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import check_packages
from rsa_pretrain.plumbing.generated_files import check_marked
from rsa_pretrain.plumbing.quiet import quiet

DETECTOR_FORMATS = {target.name: target for target in (ONNX, TORCHSCRIPT)}


def check_target(target: DetectorFormat, out: Path) -> None:
    """Refuse, before any work, an output that cannot be written.

    Raises:
        UserError: If ``out`` is misnamed, a folder or somebody else's file, or a package is
            missing.
    """
    if out.suffix != target.suffix:
        raise UserError(f"'{out}' should end in {target.suffix}, as {target.name} files do here")
    check_marked(out, MARK)
    check_packages(target.packages, f"export to {target.name}")


def export_detector(
    exported: ExportedDetector, target: DetectorFormat, out: Path, images: Mapping[str, Tensor]
) -> ExportProof:
    """Write a detector for another runtime; nothing is left behind on failure.

    Args:
        exported: The detector.
        target: Format to write.
        out: File to write.
        images: Images to prove the file on, as for ``prove``.

    Raises:
        UserError: If the file's detections differ from the engine's.
    """
    # Exporters warn about each number that a trace fixes, and torch that TorchScript is deprecated;
    # the proof checks that the result holds for other images.
    with (
        warnings.catch_warnings(action="ignore"),
        quiet(target.loggers, logging.ERROR),
        atomic_file(out) as temporary,
    ):
        target.write(exported.detector, exported.properties(), temporary)
        return prove(target.load(temporary), exported.detector, images)
