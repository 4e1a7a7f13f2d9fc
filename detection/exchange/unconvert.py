"""Extract the backbone of a detectron2 file, or of our detector, into our checkpoint format.

Accepts converted weights, files saved by detectron2's own programs (with the config they wrote
beside them) and the checkpoints of both engines; a fine-tuned backbone can then be probed.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from detection.exchange.convert import write_proved
from detection.exchange.pixels import pixels_of_config
from detection.exchange.proof import TrunkProof
from detection.exchange.trunk_names import BODY, IN_ENGINE
from detection.job.job import METHOD
from detection.job.run_checkpoints import detector_file
from rsa_pretrain.plumbing.atomic_files import atomic_file
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.user_paths import refuse_input
from rsa_pretrain.weights.checkpoint import (
    LoadedBackbone,
    load_backbone,
    read_tensors,
    save_tensors,
)
from rsa_pretrain.weights.files.file_content import FileContent, read_checkpoint_file
from rsa_pretrain.weights.foreign.layout import Layout, Pixels
from rsa_pretrain.weights.foreign.layouts.detectron2 import (
    DETECTRON2,
    DETECTRON2_C4,
    HEADS,
    toolkit_metadata,
)
from rsa_pretrain.weights.foreign.load import ImportOptions, load_found
from rsa_pretrain.weights.foreign.plan import make_plan
from rsa_pretrain.weights.foreign.recognise import RecognisedLayout
from rsa_pretrain.weights.metadata import BackboneMetadata
from rsa_pretrain.weights.tensor_check import differing

_CONFIG_BESIDE = "config.yaml"

TORCHVISION_ENGINE = Layout(
    name="rsa-detect, torchvision engine",
    made_by="rsa-detect train engine=torchvision",
    source="detection/exchange/model_names.py",
    markers=(rf"{BODY}\.conv1\.weight", rf"{BODY}\.layer4\."),
    networks={"trunk": ("",)},
    drops={r"backbone\.fpn\.": "feature pyramid", r"(rpn|roi_heads)\.": HEADS},
    names=IN_ENGINE["FPN"],
    pixels=None,
)
TORCHVISION_ENGINE_C4 = replace(
    TORCHVISION_ENGINE,
    name="rsa-detect, torchvision engine, C4",
    markers=(rf"{BODY}\.conv1\.weight", r"roi_heads\.layer4\."),
    drops={r"(rpn|roi_heads\.(box_predictor|mask_predictor|layer4_norm))\.": HEADS},
    names=IN_ENGINE["C4"],
)
_LAYOUTS = (DETECTRON2, DETECTRON2_C4, TORCHVISION_ENGINE, TORCHVISION_ENGINE_C4)


@dataclass(frozen=True)
class Unconversion:
    """The written backbone and the proof of its conversion."""

    source: Path
    metadata: BackboneMetadata
    proof: TrunkProof


def unconvert(file: Path, out: Path, config: Path | None = None) -> Unconversion:
    """Write the backbone of a detectron2 file, or of a detector, in our checkpoint format.

    Args:
        file: A weights file, a detector's checkpoint, or a run folder with checkpoints.
        out: File to write; must end in ``.safetensors``.
        config: detectron2's config of the file, needed if the file does not state its input; None
            takes the ``config.yaml`` beside it.

    Raises:
        UserError: If the file is unsafe, damaged or has no such backbone, its colour order, stride
            placement or pixel statistics are unknown or not torchvision's, or ``out`` is misnamed.
        RuntimeError: If a part of the proof fails; nothing is written then.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"'{out}' should end in .safetensors")
    source = detector_file(file)
    refuse_input(out, source)
    content = read_checkpoint_file(source)
    loaded = _take(content, config)
    with TemporaryDirectory() as folder:
        proof = write_proved(Path(folder) / "trunk.pkl", loaded)
    origin = loaded.metadata.origin
    assert origin is not None, "a trunk taken from a file keeps its origin"
    proof = replace(proof, num_used=origin.num_taken, dropped=origin.dropped)
    metadata = loaded.metadata.model_copy(
        update={"origin": origin.model_copy(update={"proof": tuple(proof.lines())})}
    )
    with atomic_file(out) as temporary:
        save_tensors(temporary, loaded.backbone.state_dict(), metadata)
        _prove_file(temporary, loaded)
    return Unconversion(content.path, metadata, proof)


def _take(content: FileContent, config: Path | None) -> LoadedBackbone:
    layout, own = _recognise(content)
    if own is not None:
        pixels = Pixels(own.mean, own.std)
    else:
        pixels = pixels_of_config(_find_config(content.path, config))
    # The layout's objection, unknown colours and strides, is settled by now.
    plan = make_plan(content, replace(layout, objection=lambda _: None))
    how = "stated by the file" if own is not None else "its input stated by detectron2's config"
    loaded = load_found(
        content, RecognisedLayout(plan, how), ImportOptions(method=METHOD, pixels=pixels)
    )
    if own is None:
        return loaded
    kept = own.model_copy(update={"parent": content.sha256, "origin": loaded.metadata.origin})
    return replace(loaded, metadata=kept)


def _recognise(content: FileContent) -> tuple[Layout, BackboneMetadata | None]:
    """Return a file's layout, and this toolkit's metadata if the file contains it."""
    layout = next((one for one in _LAYOUTS if one.evidence(content) is not None), None)
    if layout is None:
        raise UserError(
            f"'{content.path}' contains neither a detectron2 ResNet nor a detector of this toolkit"
        )
    if layout in (DETECTRON2, DETECTRON2_C4):
        return layout, toolkit_metadata(content)
    _, metadata = read_tensors(content.path)
    return layout, metadata


def _find_config(file: Path, config: Path | None) -> Path:
    beside = file.parent / _CONFIG_BESIDE
    if config is None and not beside.is_file():
        raise UserError(
            f"'{file}' states neither colour order nor stride placement; give the config.yaml that "
            "detectron2 wrote into its OUTPUT_DIR with --config"
        )
    return config or beside


def _prove_file(written: Path, loaded: LoadedBackbone) -> None:
    restored, source = load_backbone(written).backbone.state_dict(), loaded.backbone.state_dict()
    unequal = differing(restored, source)
    if unequal:
        raise RuntimeError(f"the written file does not restore the backbone: {unequal}")
