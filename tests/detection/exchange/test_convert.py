import importlib.util
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from detection.exchange import convert as convert_module
from detection.exchange.convert import convert, to_detectron2_weights
from detection.exchange.unconvert import unconvert
from detection.exchange.weights_file import write_weights
from detection.recipe.architecture import RegionMaps
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone, save_tensors
from rsa_pretrain.weights.files.file_content import read_checkpoint_file

WriteCheckpoint = Callable[..., LoadedBackbone]


@pytest.mark.parametrize(
    ("arch", "suffix", "features"),
    [
        ("resnet18", ".pkl", "FPN"),
        ("resnet18", ".pth", "FPN"),
        ("resnet34", ".pth", "FPN"),
        ("resnet50", ".pkl", "FPN"),
        ("resnet101", ".pkl", "FPN"),
        ("resnet50", ".pkl", "C4"),
        ("resnet101", ".pth", "C4"),
    ],
)
def test_inverse_restores_the_checkpoint_bitwise(
    write_checkpoint: WriteCheckpoint, tmp_path: Path, arch: str, suffix: str, features: RegionMaps
) -> None:
    """Checkpoint → file → checkpoint gives every tensor back, batch counts included."""
    loaded = write_checkpoint(arch)
    done = convert(loaded.path, tmp_path / f"out{suffix}", features)
    unconvert(done.weights, tmp_path / "back.safetensors", None)
    back = load_backbone(tmp_path / "back.safetensors")
    restored, source = back.backbone.state_dict(), loaded.backbone.state_dict()
    assert restored.keys() == source.keys()
    for name, tensor in source.items():
        assert restored[name].dtype == tensor.dtype
        assert torch.equal(restored[name], tensor), name
    own = {"parent", "origin"}
    assert back.metadata.model_dump(exclude=own) == loaded.metadata.model_dump(exclude=own)
    assert done.proof.num_used + done.proof.dropped["num_batches_tracked"] == len(source)


def test_names_for_c4(write_checkpoint: WriteCheckpoint, tmp_path: Path) -> None:
    """All 265 tensors are where a C4 detector of detectron2 has them; basic blocks are refused."""
    done = convert(write_checkpoint("resnet50").path, tmp_path / "out.pkl", "C4")
    names = pickle.loads(done.weights.read_bytes())["model"].keys()
    assert len(names) == 265
    assert sum(name.startswith("roi_heads.res5.") for name in names) == 50
    assert sum(name.startswith(("backbone.stem.", "backbone.res")) for name in names) == 215
    with pytest.raises(UserError, match="detectron2 has no C4 detector on resnet18"):
        convert(write_checkpoint().path, tmp_path / "shallow.pkl", "C4")
    assert not (tmp_path / "shallow.pkl").exists()


def test_file_is_plain_pickle_without_torch(
    write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    """``pickle.load`` reads it, every weight is a float32 array, and no class is torch's."""
    done = convert(write_checkpoint("resnet50").path, tmp_path / "out.pkl")
    content = pickle.loads(done.weights.read_bytes())
    assert content["__author__"] == "rsa-toolkit"
    assert "matching_heuristics" not in content
    assert len(content["model"]) == 265
    for name, array in content["model"].items():
        assert name.startswith("backbone.bottom_up.")
        assert type(array) is np.ndarray
        assert array.dtype == np.float32
    classes = {argument for _, argument, _ in pickletools.genops(done.weights.read_bytes())}
    assert not any(str(name).startswith("torch") for name in classes if isinstance(name, str))
    assert done.proof.shapes_source == "quoted from detectron2's ResNet-50"


@pytest.mark.parametrize(("arch", "res2_channels"), [("resnet18", 64), ("resnet50", None)])
def test_paired_yaml_holds_what_belongs_to_the_weights(
    write_checkpoint: WriteCheckpoint, tmp_path: Path, arch: str, res2_channels: int | None
) -> None:
    """Colour order, 0–255 pixel statistics, stride placement, depth and norm are written."""
    done = convert(write_checkpoint(arch).path, tmp_path / "out.pkl")
    tree = yaml.safe_load((tmp_path / "out.yaml").read_text(encoding="utf-8"))
    resnets: dict[str, Any] = tree["MODEL"]["RESNETS"]
    assert tree == done.config_tree
    assert tree["INPUT"]["FORMAT"] == "RGB"
    assert tree["MODEL"]["PIXEL_MEAN"] == [127.5, 102.0, 76.5]
    assert tree["MODEL"]["PIXEL_STD"] == [63.75, 51.0, 25.5]
    assert tree["MODEL"]["WEIGHTS"] == str(tmp_path / "out.pkl")
    assert resnets["STRIDE_IN_1X1"] is False
    assert resnets["NORM"] == "BN"
    assert resnets["DEPTH"] == int(arch.removeprefix("resnet"))
    assert resnets.get("RES2_OUT_CHANNELS") == res2_channels


def test_networks_that_detectron2_lacks_are_refused(
    write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    """It has no 3x3 stem and no narrow ResNet; they are refused before anything is written."""
    with pytest.raises(UserError, match="'cifar' stem"):
        convert(write_checkpoint(stem="cifar").path, tmp_path / "out.pkl")
    with pytest.raises(UserError, match="is a resnet18_w32; a detector needs torchvision's widths"):
        convert(write_checkpoint("resnet18_w32").path, tmp_path / "out.pkl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {f"module.{k}": v for k, v in state.items()}, "120 missing.*120 unexpected"),
        (lambda state: dict(list(state.items())[:60]), "60 missing"),
        (lambda state: state | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "1 misshapen"),
    ],
    ids=["foreign names", "half of it", "misshapen"],
)
def test_other_checkpoints_are_refused(
    write_checkpoint: WriteCheckpoint,
    tmp_path: Path,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]],
    message: str,
) -> None:
    """Foreign names, half a trunk and another shape are refused, and nothing is written."""
    loaded = write_checkpoint()
    bad = tmp_path / "bad.safetensors"
    save_tensors(bad, change(loaded.backbone.state_dict()), loaded.metadata)
    with pytest.raises(UserError, match=message):
        convert(bad, tmp_path / "out.pkl")
    assert list(tmp_path.iterdir()) == [bad]


def test_unknown_tensor_name_raises() -> None:
    """A tensor the key map does not know cannot be smuggled through."""
    with pytest.raises(ValueError, match=r"'projector\.0\.weight'"):
        to_detectron2_weights({"projector.0.weight": torch.zeros(1)})


def test_failed_proof_writes_nothing(
    write_checkpoint: WriteCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the written file does not restore the checkpoint, it never gets its final name."""

    def write_wrong(path: Path, model: dict[str, Any], extra: dict[str, Any]) -> None:
        name = "backbone.bottom_up.res2.0.conv1.weight"
        write_weights(path, {**model, name: model[name] + 1e-7}, extra)

    monkeypatch.setattr(convert_module, "write_weights", write_wrong)
    monkeypatch.setattr(convert_module, "prove_features", lambda *arguments: None)
    with pytest.raises(RuntimeError, match=r"does not restore the checkpoint: \['layer1\.0\.co"):
        convert(write_checkpoint().path, tmp_path / "out.pkl")
    assert list(tmp_path.iterdir()) == []


def test_out_must_end_in_a_known_suffix(write_checkpoint: WriteCheckpoint, tmp_path: Path) -> None:
    """detectron2 chooses its reader by the suffix."""
    with pytest.raises(UserError, match=r"must end in \.pkl or \.pth"):
        convert(write_checkpoint().path, tmp_path / "out.safetensors")


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_file_keeps_its_proof(
    write_checkpoint: WriteCheckpoint, tmp_path: Path, suffix: str
) -> None:
    """The proof is stored in the file, and states whether detectron2 took part."""
    done = convert(write_checkpoint().path, tmp_path / f"out{suffix}")
    content = read_checkpoint_file(done.weights)
    kept = [v for path, v in content.values.items() if path.startswith("rsa_toolkit/proof/")]
    assert kept == done.proof.lines()
    assert kept[0] == "used 100 tensors, each once"
    has_detectron2 = importlib.util.find_spec("detectron2") is not None
    assert (done.proof.feature_differences is not None) == has_detectron2


def test_pth_holds_tensors_and_plain_values(
    write_checkpoint: WriteCheckpoint, tmp_path: Path
) -> None:
    """Torch reads it with ``weights_only``, as detectron2 does."""
    done = convert(write_checkpoint("resnet50").path, tmp_path / "out.pth")
    content = torch.load(done.weights, weights_only=True)
    assert len(content["model"]) == 265
    assert all(name.startswith("backbone.bottom_up.") for name in content["model"])
    assert {tensor.dtype for tensor in content["model"].values()} == {torch.float32}
