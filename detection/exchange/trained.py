"""Read a trained detector from a file of either engine or of detectron2's own programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from detection.exchange.anchors import read_anchors
from detection.exchange.model_config import check_settings, describe_model, recognise_arch
from detection.exchange.model_weights import num_classes, to_torchvision_model
from detection.exchange.pixels import pixels_of_config, read_config
from detection.exchange.trunk_names import features_of
from detection.job.detector_card import CARD_KEY, DetectorCard, make_card, parse_card
from detection.job.job import METHOD
from detection.job.run_checkpoints import detector_file
from detection.recipe.architecture import DEFAULT_ANCHORS
from detection.recipe.recipe import RECORD_FILE, Recipe
from rsa_eval.records.record import read_record
from rsa_pretrain.config import CONFIG_FILE
from rsa_pretrain.plumbing.config.files import flatten, load_config, parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import FORMAT_VERSION, read_header, read_tensors
from rsa_pretrain.weights.files.file_content import FileContent, read_checkpoint_file
from rsa_pretrain.weights.foreign.layouts.detectron2 import toolkit_metadata
from rsa_pretrain.weights.foreign.load import is_own_file
from rsa_pretrain.weights.metadata import METADATA_KEY, BackboneMetadata, library_versions

_MODEL_PREFIX = "model/"
_CARD_VALUE = f"{METADATA_KEY}/{CARD_KEY}"
_NUMBERS = {
    ("input", "test_short_side_pixels"): "INPUT.MIN_SIZE_TEST",
    ("input", "max_side_pixels"): "INPUT.MAX_SIZE_TEST",
    ("sampling", "proposals_per_image"): "MODEL.RPN.POST_NMS_TOPK_TEST",
    ("sampling", "train_proposals_per_image"): "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    ("sampling", "detections_per_image"): "TEST.DETECTIONS_PER_IMAGE",
}
_YAML_NAMES = ("config.yaml", "detectron2.yaml")


class TrainedDetector(NamedTuple):
    """A detector's weights with their metadata and card."""

    tensors: Mapping[str, Tensor]
    """Keyed by the torchvision engine's names."""
    metadata: BackboneMetadata
    card: DetectorCard
    file: Path
    """The file they were read from."""


def read_trained(path: Path) -> TrainedDetector:
    """Read a trained detector.

    Args:
        path: Run folder, checkpoint folder or file of either engine; or detectron2's OUTPUT_DIR or
            a file of its programs, with their config beside it.

    Raises:
        UserError: If there is none, it is damaged, or the torchvision engine cannot compute the
            same.
    """
    file = detector_file(path)
    try:
        return _read(file)
    except UserError as error:
        if str(file) in str(error):
            raise
        raise UserError(f"'{file}': {error}") from None


def _read(file: Path) -> TrainedDetector:
    if is_own_file(file):
        tensors, metadata = read_tensors(file)
        if metadata.method != METHOD:
            raise UserError(f"'{file}' is not a detector: its method is '{metadata.method}'")
        note = read_header(file).get(CARD_KEY)
        card = _card_of_run(file, tensors, metadata) if note is None else parse_card(note, file)
    else:
        content = read_checkpoint_file(file)
        tensors, metadata, card = _read_detectron2(content, detectron2_model(content))
    found = describe_model(tensors, metadata.network.arch, card.model.anchors)
    if card.categories is not None and len(card.categories) != found.num_classes:
        raise UserError(
            f"'{file}' names {len(card.categories)} categories, but its tensors have "
            f"{found.num_classes}"
        )
    return TrainedDetector(tensors, metadata, card, file)


def detectron2_model(content: FileContent) -> dict[str, Tensor]:
    """Return the tensors under ``model``, or all of a file that has nothing else."""
    inside = {
        name.removeprefix(_MODEL_PREFIX): tensor
        for name, tensor in content.tensors.items()
        if name.startswith(_MODEL_PREFIX)
    }
    return inside or dict(content.tensors)


def _read_detectron2(
    content: FileContent, model: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], BackboneMetadata, DetectorCard]:
    """Read detectron2's weights, described by a note in the file or the YAML beside it."""
    file = content.path
    try:
        tensors = to_torchvision_model(model)
    except ValueError as error:
        raise UserError(f"'{file}' is not a detector that the engine can build: {error}") from None
    arch = recognise_arch(model)
    noted = toolkit_metadata(content)
    if noted is None:
        metadata, card = _described_by_yaml(content, tensors)
        return tensors, metadata, card
    if noted.arch != arch:
        raise UserError(f"'{file}' states {noted.arch}, but its tensors are a {arch}'s")
    update = {"parent": content.sha256, "library_versions": library_versions()}
    metadata, note = noted.model_copy(update=update), content.values.get(_CARD_VALUE)
    if isinstance(note, str):
        return tensors, metadata, parse_card(note, file)
    return tensors, metadata, _card_of_run(file, tensors, metadata)


def _described_by_yaml(
    content: FileContent, tensors: Mapping[str, Tensor]
) -> tuple[BackboneMetadata, DetectorCard]:
    path = _config_beside(content.path)
    settings = read_config(path)
    arch = recognise_arch(detectron2_model(content))
    found = describe_model(tensors, arch, read_anchors(settings, path, features_of(tensors)))
    check_settings(settings, found, path)
    pixels = pixels_of_config(path)
    metadata = BackboneMetadata(
        format_version=FORMAT_VERSION,
        arch=arch,
        stem="standard",
        method=METHOD,
        image_size=None,
        channel_order="RGB",
        mean=pixels.mean,
        std=pixels.std,
        data_set=None,
        epochs=None,
        step=None,
        seed=None,
        config_hash=None,
        parent=content.sha256,
        library_versions=library_versions(),
    )
    return metadata, parse_tree(
        DetectorCard,
        {"model": to_tree(found.model), **_stated(settings)},
        f"config '{path}'",
    )


def _stated(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the card's numbers stated by a detectron2 config; the others are its defaults."""
    stated = flatten(dict(settings))
    sections: dict[str, dict[str, Any]] = {"input": {}, "sampling": {}}
    for (section, key), theirs in _NUMBERS.items():
        if theirs in stated:
            sections[section][key] = stated[theirs]
    return sections


def _card_of_run(
    file: Path, tensors: Mapping[str, Tensor], metadata: BackboneMetadata
) -> DetectorCard:
    """Describe a detector by the run folder containing it, or by the 1x recipe's numbers."""
    for folder in list(file.absolute().parents)[:3]:
        if (folder / "checkpoints").is_dir() and (folder / CONFIG_FILE).is_file():
            recipe = load_config(Recipe, folder / CONFIG_FILE)
            return make_card(recipe, _recorded_names(folder, num_classes(tensors)))
    model = describe_model(tensors, metadata.network.arch, DEFAULT_ANCHORS).model
    return DetectorCard(model=model)


def _recorded_names(run_dir: Path, count: int) -> dict[int, str] | None:
    path = run_dir / RECORD_FILE
    if not path.is_file():
        return None
    names = {entry["id"]: entry["name"] for entry in read_record(path).details["categories"]}
    return names if len(names) == count else None


def _config_beside(file: Path) -> Path:
    """Find detectron2's keys: the YAML of a conversion, or the one its trainer wrote."""
    candidates = [file.with_suffix(".yaml"), *(file.parent / name for name in _YAML_NAMES)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(
            f"'{file}' does not state its pixel normalisation: put detectron2's config beside "
            f"it, as {' or '.join(candidate.name for candidate in candidates)}"
        )
    return path
