"""Convert our checkpoint to detectron2 weights, proved before the file gets its final name.

The proof is that of ``proof``; the written file, read back by the importer, must also equal
the checkpoint bitwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from detection.exchange.config import refuse_shallow, weights_tree
from detection.exchange.proof import TrunkProof, prove_features, prove_shapes
from detection.exchange.trunk_names import BATCH_COUNT, to_detectron2
from detection.exchange.weights_file import SUFFIXES, write_weights
from detection.job.trunk import refuse_unfit
from detection.recipe.architecture import RegionMaps
from rsa_pretrain.plumbing.atomic_files import atomic_file, write_text
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.load import load_weights
from rsa_pretrain.weights.metadata import BackboneMetadata
from rsa_pretrain.weights.tensor_check import differing


@dataclass(frozen=True)
class Conversion:
    """Files written by a conversion, and its proof."""

    weights: Path
    config: Path
    config_tree: dict[str, Any]
    proof: TrunkProof


def to_detectron2_weights(
    tensors: Mapping[str, Tensor], features: RegionMaps = "FPN"
) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Rename a torchvision trunk, each tensor used once or on the drop list.

    Args:
        tensors: State of a ResNet without classifier, float32.
        features: The detector that the weights are for.

    Returns:
        Tensors by detectron2's full names, and the dropped batch counts by torchvision's names.

    Raises:
        ValueError: If a name is not a trunk tensor's.
    """
    model: dict[str, Tensor] = {}
    dropped: dict[str, int] = {}
    for name, tensor in tensors.items():
        full_name = to_detectron2(name, features)
        # FrozenBN has no such tensor and BN restarts its count; a file's extra keeps the values.
        if full_name.endswith(f".{BATCH_COUNT}"):
            dropped[name] = int(tensor)
        else:
            model[full_name] = tensor.detach().cpu()
    return model, dropped


def convert(checkpoint: str | Path, out: Path, features: RegionMaps = "FPN") -> Conversion:
    """Write ``out`` and, beside it, the YAML keys that belong to its weights.

    Args:
        checkpoint: A checkpoint of this toolkit or of another project (``load_weights``).
        out: Weights file to write; must end in ``.pkl`` or ``.pth``.
        features: The detector that the weights are for: its names depend on it.

    Returns:
        The written files and the proof.

    Raises:
        UserError: If the checkpoint is refused or its stem is not detectron2's, ``out`` has another
            ending, or detectron2 is installed but broken.
        RuntimeError: If a part of the proof fails; nothing is written then.
    """
    config = out.with_suffix(".yaml")
    check_generated(config, _CONFIG_HEADER)
    loaded = load_weights(checkpoint)
    proof = convert_loaded(loaded, out, features)
    tree = paired_config(loaded.metadata, out)
    write_text(config, _CONFIG_HEADER + yaml.safe_dump(tree, sort_keys=False))
    return Conversion(out, config, tree, proof)


def convert_loaded(loaded: LoadedBackbone, out: Path, features: RegionMaps = "FPN") -> TrunkProof:
    """Write the weights of ``convert`` alone.

    Args:
        loaded: Backbone to write.
        out: Weights file to write; must end in ``.pkl`` or ``.pth``.
        features: The detector that the weights are for.

    Raises:
        UserError: If detectron2 has no such network, ``out`` has another ending, or detectron2 is
            installed but broken.
        RuntimeError: If a part of the proof fails; nothing is written then.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f"'{out}' must end in .pkl or .pth: detectron2 chooses its reader by that")
    refuse_unfit(loaded)
    refuse_shallow(loaded.metadata.network.arch, features)
    with atomic_file(out) as temporary:
        proof = write_proved(temporary, loaded, features)
        _prove_file(temporary, loaded.backbone.state_dict(), features)
    return proof


def write_proved(weights: Path, loaded: LoadedBackbone, features: RegionMaps = "FPN") -> TrunkProof:
    """Write a weights file with its proof, which runs the file in detectron2 if installed.

    Raises:
        UserError: If detectron2 is installed but broken.
        RuntimeError: If names, shapes or features are not detectron2's.
    """
    model, dropped = to_detectron2_weights(loaded.backbone.state_dict(), features)
    shapes_source = prove_shapes(model, loaded.metadata.arch)
    extra = {
        "metadata": loaded.metadata.model_dump_json(),
        "source_sha256": loaded.sha256,
        BATCH_COUNT: dropped,
    }
    write_weights(weights, model, extra)
    differences = prove_features(weights, model, loaded.backbone, loaded.metadata)
    proof = TrunkProof(len(model), {BATCH_COUNT: len(dropped)}, shapes_source, differences)
    write_weights(weights, model, extra | {"proof": proof.lines()})
    return proof


def paired_config(metadata: BackboneMetadata, weights: Path) -> dict[str, Any]:
    """Return the detectron2 keys that the weights require."""
    tree = weights_tree(metadata.arch, metadata.mean, metadata.std, norm="BN")
    tree["MODEL"]["WEIGHTS"] = str(weights)
    return tree


_CONFIG_HEADER = """\
# detectron2 keys that belong to these weights. NORM may also be SyncBN (several processes) or
# FrozenBN; colour order, pixel statistics and stride placement may not change.
"""


def _prove_file(path: Path, source: Mapping[str, Tensor], features: RegionMaps) -> None:
    layout = "detectron2_c4" if features == "C4" else "detectron2"
    restored = import_weights(path, ImportOptions(layout=layout)).backbone.state_dict()
    unequal = differing(restored, source)
    if unequal:
        raise RuntimeError(f"the written file does not restore the checkpoint: {unequal}")
