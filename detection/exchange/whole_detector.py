"""Convert a whole trained detector from the torchvision engine to detectron2 or back.

The direction follows from the file. Either way every tensor is used once, and the written file is
read back, renamed again and compared bitwise before it gets its final name. Both engines then find
the same boxes, classes and masks (``tests/detection/engines/test_engines_agree.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import Tensor

from detection.exchange.config import refuse_shallow
from detection.exchange.model_config import paired_model_config
from detection.exchange.model_weights import to_detectron2_model, to_torchvision_model, unread_rows
from detection.exchange.trained import detectron2_model, read_trained
from detection.exchange.trunk_names import features_of
from detection.exchange.weights_file import SUFFIXES, write_weights
from detection.job.detector_card import CARD_KEY
from detection.job.run_checkpoints import detector_file
from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated
from rsa_pretrain.weights.checkpoint import file_sha256, read_tensors, save_tensors
from rsa_pretrain.weights.files.file_content import read_checkpoint_file
from rsa_pretrain.weights.foreign.load import is_own_file
from rsa_pretrain.weights.tensor_check import differing

OWN_SUFFIX = ".safetensors"
_METADATA = "metadata"
_HEADER = """\
# detectron2 keys that belong to these weights; norms may be SyncBN in place of BN. The size of
# images and the numbers of proposals and detections are those of the run that trained them.
"""


@dataclass(frozen=True)
class Exchange:
    """Files and tensors that were written."""

    weights: Path
    config: Path | None
    """detectron2's keys beside its weights."""
    num_tensors: int
    unread: list[str]
    """Layers whose background rows were left out, or written as 0."""


def exchange(source: Path, out: Path) -> Exchange:
    """Convert a detector to the other library's file.

    Args:
        source: Any detector that ``read_trained`` accepts.
        out: ``.pth`` or ``.pkl`` for a detector of the torchvision engine, ``.safetensors`` for one
            of detectron2.

    Raises:
        UserError: If ``source`` is not such a detector, detectron2 has none like it, its settings
            are unknown or not equivalent to the torchvision engine's, or ``out`` has another
            suffix.
        RuntimeError: If the written file does not restore the source; nothing is left then.
    """
    file = detector_file(source)
    return _to_detectron2(file, out) if is_own_file(file) else _from_detectron2(file, out)


def _to_detectron2(source: Path, out: Path) -> Exchange:
    if out.suffix not in SUFFIXES:
        raise UserError(
            f"'{out}' must end in .pth or .pkl: '{source}' is converted to detectron2, which "
            "chooses its reader by that"
        )
    config = out.with_suffix(".yaml")
    check_generated(config, _HEADER)
    trained = read_trained(source)
    refuse_shallow(trained.metadata.network.arch, features_of(trained.tensors))
    model = to_detectron2_model(trained.tensors)
    notes = {
        _METADATA: trained.metadata.model_dump_json(),
        CARD_KEY: trained.card.model_dump_json(),
        "source_sha256": file_sha256(source),
    }
    with atomic_file(out) as temporary:
        write_weights(temporary, model, notes)
        written = detectron2_model(read_checkpoint_file(temporary))
        _prove(to_torchvision_model(written), _without_unread_rows(trained.tensors))
    tree = paired_model_config(trained.tensors, trained.metadata, trained.card, out)
    write_text(config, _HEADER + yaml.safe_dump(tree, sort_keys=False))
    return Exchange(out, config, len(model), sorted(unread_rows(trained.tensors)))


def _from_detectron2(source: Path, out: Path) -> Exchange:
    if out.suffix != OWN_SUFFIX:
        raise UserError(
            f"'{out}' must end in {OWN_SUFFIX}: '{source}' is converted from detectron2"
        )
    trained = read_trained(source)
    notes = {CARD_KEY: trained.card.model_dump_json()}
    model = detectron2_model(read_checkpoint_file(source))
    with atomic_file(out) as temporary:
        save_tensors(temporary, trained.tensors, trained.metadata, notes)
        _prove(to_detectron2_model(read_tensors(temporary)[0]), model)
    return Exchange(out, None, len(model), sorted(unread_rows(trained.tensors)))


def _without_unread_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with unread rows set to 0."""
    copies = dict(tensors)
    for module, rows in unread_rows(tensors).items():
        for name in (f"{module}.weight", f"{module}.bias"):
            copies[name] = tensors[name].clone()
            copies[name][:rows] = 0
    return copies


def _prove(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    wrong = differing(found, expected)
    if wrong:
        raise RuntimeError(f"the written file does not restore the detector: {wrong[:5]}")
