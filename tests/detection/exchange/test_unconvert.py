import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from detection.__main__ import main
from detection.exchange.config import weights_tree
from detection.exchange.convert import to_detectron2_weights
from detection.exchange.trunk_names import IN_ENGINE
from detection.exchange.unconvert import unconvert
from detection.job.trunk import load_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone, read_tensors
from rsa_pretrain.weights.load import load_weights

WriteCheckpoint = Callable[..., LoadedBackbone]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HEADS = (
    "backbone.fpn_lateral2.weight",
    "proposal_generator.rpn_head.conv.weight",
    "roi_heads.box_head.fc1.weight",
    "roi_heads.mask_head.deconv.bias",
)


@pytest.fixture
def write_output(write_checkpoint: WriteCheckpoint, tmp_path: Path) -> Callable[..., Path]:
    """Write what detectron2's own train_net.py leaves: a detector's file and its config."""

    def write(name: str = "model_final.pth", **config: Any) -> Path:
        model, _ = to_detectron2_weights(write_checkpoint().backbone.state_dict())
        counts = {
            full.replace("running_mean", "num_batches_tracked"): torch.tensor(9)
            for full in model
            if full.endswith("running_mean")
        }
        tensors = {**model, **counts, **{head: torch.ones(2) for head in HEADS}}
        folder = tmp_path / "output"
        folder.mkdir()
        if name.endswith(".pkl"):
            arrays = {full: tensor.numpy() for full, tensor in tensors.items()}
            content = {"model": arrays, "__author__": "Detectron2 Model Zoo"}
            (folder / name).write_bytes(pickle.dumps(content))
        else:
            trainer = {"iteration": 89999, "_trainer": {"optimizer": {"state": torch.ones(3)}}}
            torch.save({"model": tensors, "trainer": trainer, "iteration": 89999}, folder / name)
        tree = weights_tree("resnet18", MEAN, STD, norm="SyncBN")
        for key, value in config.items():
            section = tree["INPUT"] if key == "FORMAT" else tree["MODEL"]["RESNETS"]
            section[key] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        return folder / name

    return write


@pytest.mark.parametrize("name", ["model_final.pth", "model_final_a54504.pkl"])
def test_trained_detector_gives_its_trunk(
    write_checkpoint: WriteCheckpoint,
    write_output: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """The trunk is taken bitwise, the heads are dropped by what they are, the input is known."""
    out = tmp_path / "trunk.safetensors"
    assert main(["unconvert", str(write_output(name)), str(out)]) == 0
    text = capsys.readouterr().out
    assert "dropped 1 tensors: feature pyramid" in text
    assert "dropped 3 tensors: detection heads" in text
    assert ("dropped 1 tensors: trainer state" in text) == name.endswith(".pth")
    loaded = load_backbone(out)
    assert (loaded.metadata.arch, loaded.metadata.method) == ("resnet18", "mask_rcnn")
    assert (loaded.metadata.mean, loaded.metadata.std) == (MEAN, STD)
    origin = loaded.metadata.origin
    assert origin is not None
    assert origin.num_taken == 120
    assert origin.proof[0] == "used 120 tensors, each once"
    found, source = loaded.backbone.state_dict(), write_checkpoint().backbone.state_dict()
    for tensor_name, tensor in source.items():
        count = torch.tensor(9)
        expected = count if tensor_name.endswith("num_batches_tracked") else tensor
        assert torch.equal(found[tensor_name], expected), tensor_name


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"FORMAT": "BGR"}, r"INPUT\.FORMAT BGR; .* has RGB"),
        ({"STRIDE_IN_1X1": True}, r"RESNETS\.STRIDE_IN_1X1 True; .* has False"),
        ({"RES5_DILATION": 2}, r"RESNETS\.RES5_DILATION 2"),
        ({"NUM_GROUPS": 32}, r"RESNETS\.NUM_GROUPS 32"),
    ],
)
def test_other_networks_are_refused(
    write_output: Callable[..., Path], tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    """Matching names are not enough: a network that computes something else is refused."""
    with pytest.raises(UserError, match=message):
        unconvert(write_output(**config), tmp_path / "out.safetensors", None)
    assert not (tmp_path / "out.safetensors").exists()


def test_input_must_be_known(write_output: Callable[..., Path], tmp_path: Path) -> None:
    """Without a config nothing is assumed; a difference from another config is none."""
    file = write_output()
    whole = file.parent / "config.yaml"
    moved = whole.rename(tmp_path / "elsewhere.yaml")
    out = tmp_path / "out.safetensors"
    with pytest.raises(UserError, match=r"states neither colour order nor stride.*--config"):
        unconvert(file, out, None)
    whole.write_text("_BASE_: Base.yaml\nMODEL: {}\n", encoding="utf-8")
    with pytest.raises(UserError, match="difference from another config"):
        unconvert(file, out, None)
    whole.write_text("MODEL: {DEPTH: 50}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"INPUT\.FORMAT BGR"):  # detectron2's defaults
        unconvert(file, out, None)
    with pytest.raises(UserError, match=r"cannot read config 'absent\.yaml'"):
        unconvert(file, out, Path("absent.yaml"))
    unconvert(file, out, moved)
    assert load_backbone(out).metadata.mean == MEAN


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: dict(list(model.items())[:50]), r"stages have \[2, 2, 0, 0\]"),
        (lambda model: {k: v for k, v in model.items() if "running_" not in k}, "40 missing"),
        (lambda model: model | {"backbone.bottom_up.extra.weight": torch.ones(1)}, "1 unexpected"),
        (lambda model: model | {"sem_seg_head.weight": torch.ones(1)}, "1 unexpected"),
    ],
    ids=["half", "no statistics", "more in the trunk", "unknown head"],
)
def test_file_must_be_accounted_for(
    write_output: Callable[..., Path], tmp_path: Path, change: Callable[..., Any], message: str
) -> None:
    """Half a trunk, and tensors on no list, are refused."""
    file = write_output()
    content = torch.load(file, weights_only=True)
    torch.save({"model": change(content["model"])}, file)
    with pytest.raises(UserError, match=message):
        unconvert(file, tmp_path / "out.safetensors", None)


@pytest.mark.parametrize("on_c4", [False, True])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_torchvision_engine_s_run_gives_its_trunk(
    make_recipe: Callable[..., Recipe],
    write_checkpoint: WriteCheckpoint,
    c4: dict[str, Any],
    tmp_path: Path,
    norm: str,
    on_c4: bool,
) -> None:
    """A run folder is taken by its last checkpoint; the trunk is probed like any other."""
    recipe = make_recipe(
        solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0},
        model={"trunk_norm": norm, **(c4 | {"head_norm": "none"} if on_c4 else {})},
    )
    run_recipe(recipe, load_trunk(write_checkpoint().path, recipe.model), resume=False)
    out = tmp_path / "trunk.safetensors"
    done = unconvert(recipe.output_dir, out, None)
    model, metadata = read_tensors(done.source)
    loaded = load_weights(out)
    names = IN_ENGINE["C4" if on_c4 else "FPN"]
    for name, tensor in loaded.backbone.state_dict().items():
        if name.endswith("num_batches_tracked") and norm == "FrozenBN":
            assert tensor == 0
        else:
            assert torch.equal(tensor, model[names.from_torchvision(name)]), name
    assert done.proof.num_used == sum(names.to_torchvision(name) is not None for name in model)
    pyramid = set() if on_c4 else {"feature pyramid"}
    assert set(done.proof.dropped) == {"detection heads"} | pyramid
    own = {"parent", "origin"}
    assert loaded.metadata.model_dump(exclude=own) == metadata.model_dump(exclude=own)


@pytest.mark.parametrize(
    ("prepare", "out", "message"),
    [
        (lambda folder: folder, "out.pkl", r"should end in \.safetensors"),
        (lambda folder: folder, "out.safetensors", "has no detector: neither"),
        (lambda folder: folder / "absent.pth", "out.safetensors", "absent.pth"),
    ],
)
def test_mistakes_of_paths(
    tmp_path: Path, prepare: Callable[[Path], Path], out: str, message: str
) -> None:
    """Each is one error."""
    with pytest.raises(UserError, match=message):
        unconvert(prepare(tmp_path), tmp_path / out, None)


def test_backbone_alone_is_no_detector(write_checkpoint: WriteCheckpoint, tmp_path: Path) -> None:
    """A checkpoint of this toolkit needs no unconversion."""
    with pytest.raises(UserError, match="neither a detectron2 ResNet nor a detector"):
        unconvert(write_checkpoint().path, tmp_path / "out.safetensors", None)


def test_detector_of_nobody_is_refused(tmp_path: Path) -> None:
    """Names alone do not say what the pixels were: the engine's metadata must be there."""
    file = tmp_path / "model.safetensors"
    names = ("backbone.body.conv1.weight", "backbone.body.layer4.0.conv1.weight")
    save_file({name: torch.zeros(64, 3, 7, 7) for name in names}, file)
    with pytest.raises(UserError, match=r"has no 'rsa_toolkit' metadata.*; rsa-pretrain import"):
        unconvert(file, tmp_path / "out.safetensors", None)
