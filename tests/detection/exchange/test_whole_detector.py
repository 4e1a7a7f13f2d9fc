import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from detection.__main__ import main
from detection.engines.torchvision.detector import build_detector
from detection.exchange import whole_detector
from detection.exchange.model_config import describe_model
from detection.exchange.trained import read_trained
from detection.exchange.whole_detector import exchange
from detection.job.detector_card import CARD_KEY, make_card
from detection.job.trunk import load_trunk
from detection.recipe.architecture import Anchors
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone, read_tensors, save_tensors
from rsa_pretrain.weights.tensor_check import differing

WriteCheckpoint = Callable[..., LoadedBackbone]
MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def both_files(
    write_checkpoint: WriteCheckpoint,
    make_recipe_at: MakeRecipe,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """A detector of five classes, stem and res2 frozen; the same as detectron2's trainer has it."""
    folder = tmp_path_factory.mktemp("both")
    loaded = write_checkpoint()
    model = {"trunk_norm": "BN", "head_norm": "BN", "freeze_at": 2}
    recipe = make_recipe_at(folder / "run", model=model)
    detector = build_detector(recipe, load_trunk(loaded.path, recipe.model), 5)
    path = folder / "model.safetensors"
    metadata = loaded.metadata.model_copy(update={"method": "mask_rcnn"})
    save_tensors(path, detector.state_dict(), metadata)
    there = exchange(path, folder / "model_final.pth").weights
    _without_note(there)
    return path, there


@pytest.fixture
def detector_file(both_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """The detector of the torchvision engine, to change at will."""
    return shutil.copy(both_files[0], tmp_path / "model.safetensors")


@pytest.fixture
def foreign_file(both_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """The same for detectron2, with its YAML and without this toolkit's note."""
    for suffix in (".pth", ".yaml"):
        shutil.copy(both_files[1].with_suffix(suffix), tmp_path / f"model_final{suffix}")
    return tmp_path / "model_final.pth"


def _edit_yaml(path: Path, section: str, key: str, value: object) -> None:
    """Set MODEL.section.key."""
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["MODEL"].setdefault(section, {})[key] = value
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")


def _without_note(path: Path) -> None:
    """Leave the tensors alone, as detectron2's own trainer writes them."""
    content = torch.load(path, weights_only=True)
    trainer = {"iteration": 7, "trainer": {"optimizer": {"state": {}}}}
    torch.save({"model": content["model"], **trainer}, path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_round_trip_is_bitwise(detector_file: Path, tmp_path: Path, suffix: str) -> None:
    """Detector → detectron2 → detector restores every tensor, metadata and card."""
    there = exchange(detector_file, tmp_path / f"there{suffix}")
    back = exchange(there.weights, tmp_path / "back.safetensors")
    (source, metadata), (found, found_metadata) = map(read_tensors, (detector_file, back.weights))
    assert found.keys() == source.keys()
    for name, tensor in source.items():
        assert torch.equal(found[name], tensor), name
    assert there.num_tensors == back.num_tensors == len(source)
    assert (found_metadata.mean, found_metadata.std) == (metadata.mean, metadata.std)
    assert (found_metadata.arch, found_metadata.method) == ("resnet18", "mask_rcnn")
    assert found_metadata.parent != metadata.parent


def test_paired_keys_describe_the_detector(detector_file: Path, tmp_path: Path) -> None:
    """The YAML beside the weights states what detectron2 cannot read from the tensors."""
    done = exchange(detector_file, tmp_path / "out.pth")
    assert done.config is not None
    tree = yaml.safe_load(done.config.read_text(encoding="utf-8"))
    model = tree["MODEL"]
    assert tree["INPUT"] == {"FORMAT": "RGB", "MIN_SIZE_TEST": 800, "MAX_SIZE_TEST": 1333}
    assert tree["TEST"] == {"DETECTIONS_PER_IMAGE": 100}
    assert model["WEIGHTS"] == str(done.weights)
    assert model["ROI_HEADS"]["NUM_CLASSES"] == 5
    assert model["BACKBONE"]["FREEZE_AT"] == 2
    assert (model["ROI_BOX_HEAD"]["NUM_CONV"], model["ROI_BOX_HEAD"]["NUM_FC"]) == (1, 1)
    assert (model["RESNETS"]["DEPTH"], model["RESNETS"]["STRIDE_IN_1X1"]) == (18, False)
    assert model["PIXEL_MEAN"] == pytest.approx([127.5, 102.0, 76.5])


def test_detectron2_s_own_files_need_its_config(foreign_file: Path, tmp_path: Path) -> None:
    """Pixel statistics come from the YAML beside the file; without one it is refused."""
    back = exchange(foreign_file, tmp_path / "back.safetensors")
    _, metadata = read_tensors(back.weights)
    assert metadata.mean == pytest.approx((0.5, 0.4, 0.3))
    assert (metadata.step, metadata.data_set) == (None, None)
    foreign_file.with_suffix(".yaml").rename(tmp_path / "config.yaml")
    exchange(foreign_file, tmp_path / "again.safetensors")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(UserError, match="does not state its pixel normalisation"):
        exchange(foreign_file, tmp_path / "third.safetensors")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("RESNETS", "STRIDE_IN_1X1", True, r"STRIDE_IN_1X1 is True, expected False"),
        ("RESNETS", "NORM", "GN", r"RESNETS\.NORM is 'GN', but the tensors have 'BN'"),
        (
            "ANCHOR_GENERATOR",
            "SIZES",
            [[32, 64]],
            r"model_final\.yaml' has MODEL\.ANCHOR_GENERATOR\.SIZES \[\[32, 64\]\]; expected one",
        ),
        ("ANCHOR_GENERATOR", "ASPECT_RATIOS", [[1.0, 2.0]], "3 anchors per .* ratios are 2: 1, 2"),
        ("ROI_BOX_HEAD", "POOLER_TYPE", "ROIAlign", "POOLER_TYPE is 'ROIAlign', expected"),
        ("ROI_HEADS", "NUM_CLASSES", 80, "NUM_CLASSES is 80, expected 5"),
    ],
)
def test_other_arithmetic_is_refused(
    foreign_file: Path, tmp_path: Path, section: str, key: str, value: object, message: str
) -> None:
    """Keys under which the tensors compute something else are named; nothing is written."""
    _edit_yaml(foreign_file.with_suffix(".yaml"), section, key, value)
    with pytest.raises(UserError, match=message):
        exchange(foreign_file, tmp_path / "back.safetensors")
    assert not (tmp_path / "back.safetensors").exists()


def test_number_of_anchors_is_the_tensors(
    write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe
) -> None:
    """Anchors of another number are refused; those that fit are part of the architecture."""
    anchors = Anchors((8, 16, 32, 64, 128), (0.25, 1, 4, 9))
    model = dict(zip(("anchor_sizes_pixels", "anchor_aspect_ratios"), anchors, strict=True))
    recipe = make_recipe(model={"head_norm": "BN", **model})
    trunk = load_trunk(write_checkpoint().path, recipe.model)
    tensors = build_detector(recipe, trunk, 5).state_dict()
    assert describe_model(tensors, "resnet18", anchors).model.anchors == anchors
    with pytest.raises(UserError, match=r"have 4 anchors per .* ratios are 3: 0\.5, 1, 2$"):
        describe_model(tensors, "resnet18")


def test_card_goes_with_the_weights(
    write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Classes, input, anchors and limits travel both ways; without notes the YAML has the numbers.

    The YAML beside the weights makes detectron2 find the same.
    """
    loaded = write_checkpoint()
    recipe = make_recipe(
        model={
            "trunk_norm": "BN",
            "head_norm": "BN",
            "anchor_sizes_pixels": [8, 16, 32, 64, 128],
            "anchor_aspect_ratios": [0.25, 1, 4],
        }
    )
    card = make_card(recipe, {7: "crane", 2: "owl"})
    detector = build_detector(recipe, load_trunk(loaded.path, recipe.model), 2)
    metadata = loaded.metadata.model_copy(update={"method": "mask_rcnn"})
    source = tmp_path / "model.safetensors"
    save_tensors(source, detector.state_dict(), metadata, {CARD_KEY: card.model_dump_json()})
    there = exchange(source, tmp_path / "model_final.pth")
    back = exchange(there.weights, tmp_path / "back.safetensors")
    assert [read_trained(path).card for path in (source, there.weights, back.weights)] == [card] * 3
    assert card.names == {2: "owl", 7: "crane"}

    assert there.config is not None
    tree = yaml.safe_load(there.config.read_text(encoding="utf-8"))
    keys = tree["MODEL"]["ANCHOR_GENERATOR"]
    assert keys == {"SIZES": [[8], [16], [32], [64], [128]], "ASPECT_RATIOS": [[0.25, 1, 4]]}
    assert tree["MODEL"]["RPN"]["POST_NMS_TOPK_TEST"] == 20
    assert tree["TEST"] == {"DETECTIONS_PER_IMAGE": 5}
    assert (tree["INPUT"]["MIN_SIZE_TEST"], tree["INPUT"]["MAX_SIZE_TEST"]) == (64, 64)
    _without_note(there.weights)
    found = read_trained(there.weights).card
    assert found.names is None
    assert found.model.anchors == card.model.anchors
    for name in ("test_short_side_pixels", "max_side_pixels"):
        assert getattr(found.input, name) == 64
    assert found.sampling.proposals_per_image == 20
    assert found.sampling.detections_per_image == 5


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ("{", "is not JSON"),
        ('{"model": {}, "classes": 3}', "unknown key 'classes'"),
        ('{"model": {"anchor_aspect_ratios": [1, 2]}}', "aspect ratios are 2: 1, 2"),
        ('{"model": {}, "categories": [{"id": 1, "name": "a"}]}', "names 1 categories, but its"),
    ],
)
def test_damaged_card_is_refused(detector_file: Path, note: str, message: str) -> None:
    """A note that cannot be read, or is not of these tensors, is one error."""
    tensors, metadata = read_tensors(detector_file)
    save_tensors(detector_file, tensors, metadata, {CARD_KEY: note})
    with pytest.raises(UserError, match=message):
        read_trained(detector_file)


def test_norms_of_a_kind_are_one(detector_file: Path, foreign_file: Path, tmp_path: Path) -> None:
    """SyncBN, in training over all processes, has the tensors of BN."""
    config = foreign_file.with_suffix(".yaml")
    for section in ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD"):
        _edit_yaml(config, section, "NORM", "SyncBN")
    _edit_yaml(config, "RPN", "POST_NMS_TOPK_TEST", 77)
    back = read_trained(exchange(foreign_file, tmp_path / "back.safetensors").weights)
    source = read_trained(detector_file)
    assert back.card.model == source.card.model
    assert differing(back.tensors, source.tensors) == []
    assert back.card.sampling.proposals_per_image == 77


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("model.safetensors", "out.safetensors", r"must end in \.pth or \.pkl"),
        ("there.pth", "out.pth", r"must end in \.safetensors"),
        ("absent.pth", "out.safetensors", "'.*absent.pth' does not exist"),
        (".", "out.pth", r"has no detector: neither model\.safetensors nor"),
        ("backbone.safetensors", "out.pth", "is not a detector: its method is 'rsa'"),
        ("trunk.pth", "out.safetensors", "not a Mask R-CNN: it lacks"),
    ],
)
def test_wrong_files_are_one_error(
    detector_file: Path,
    foreign_file: Path,
    write_checkpoint: WriteCheckpoint,
    tmp_path: Path,
    source: str,
    out: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each mistake is refused through the command, and nothing is written."""
    folder = tmp_path / "files"
    folder.mkdir()
    if source != ".":
        detector_file.rename(folder / "model.safetensors")
        foreign_file.rename(folder / "there.pth")
    loaded = write_checkpoint()
    save_tensors(folder / "backbone.safetensors", loaded.backbone.state_dict(), loaded.metadata)
    trunk = {"backbone.bottom_up.stem.conv1.weight": torch.zeros(64, 3, 7, 7)}
    torch.save({"model": trunk}, folder / "trunk.pth")
    if source == ".":
        (folder / "backbone.safetensors").unlink()
    assert main(["convert", "--model", str(folder / source), str(tmp_path / out)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    with pytest.raises(UserError, match=message):
        raise UserError(line)
    assert not (tmp_path / out).exists()


def test_command_says_what_it_did(
    detector_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files, counts and what was left out are printed; a run folder is taken like a file."""
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000003"
    checkpoint.mkdir(parents=True)
    detector_file.rename(checkpoint / "model.safetensors")
    assert main(["convert", "--model", str(tmp_path / "run"), str(tmp_path / "out.pkl")]) == 0
    text = capsys.readouterr().out
    for expected in ("out.pkl", "out.yaml", "tensors, each once", "bbox_pred", "bitwise"):
        assert expected in text


def test_rows_that_nothing_reads_do_not_block(detector_file: Path, tmp_path: Path) -> None:
    """Old checkpoints have numbers where only the background would look; they come back as 0."""
    tensors, metadata = read_tensors(detector_file)
    name = "roi_heads.box_predictor.bbox_pred.weight"
    changed = {**tensors, name: tensors[name] + 1}
    save_tensors(detector_file, changed, metadata)
    done = exchange(detector_file, tmp_path / "out.pth")
    found, _ = read_tensors(exchange(done.weights, tmp_path / "back.safetensors").weights)
    assert found[name][:4].abs().max() == 0
    assert torch.equal(found[name][4:], changed[name][4:])


def test_failed_proof_writes_nothing(
    detector_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the file does not restore the detector, it never gets its final name."""
    convert = whole_detector.to_detectron2_model

    def convert_wrongly(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        model: dict[str, Any] = convert(tensors)
        return {**model, "backbone.fpn_output2.weight": model["backbone.fpn_output2.weight"] + 1e-7}

    monkeypatch.setattr(whole_detector, "to_detectron2_model", convert_wrongly)
    with pytest.raises(RuntimeError, match=r"does not restore .*\['backbone\.fpn\.layer"):
        exchange(detector_file, tmp_path / "out.pth")
    assert list(tmp_path.glob("out*")) == []


def test_frozen_trunk_is_recognised(
    write_checkpoint: WriteCheckpoint, make_recipe: MakeRecipe
) -> None:
    """A trunk without batch counts is FrozenBN; a plain head has no norm."""
    recipe = make_recipe(model={"trunk_norm": "FrozenBN", "head_norm": "none"})
    trunk = load_trunk(write_checkpoint().path, recipe.model)
    found = describe_model(build_detector(recipe, trunk, 5).state_dict(), "resnet18")
    assert (found.model.trunk_norm, found.model.freeze_at) == ("FrozenBN", 0)
    assert found.model.head_norm == "none"
