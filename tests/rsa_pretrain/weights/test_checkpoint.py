import io
import json
import os
import pickle
import resource
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from rsa_pretrain.components.backbone import build_backbone, feature_dim, gflops_per_image
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.atomic_files import TEMPORARY_PREFIX, atomic_file, remove_leftovers
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.weights import checkpoint
from rsa_pretrain.weights.checkpoint import (
    file_sha256,
    list_checkpoints,
    load_backbone,
    load_checkpoint,
    save_checkpoint,
    save_tensors,
)
from rsa_pretrain.weights.files.saving import save_torch
from rsa_pretrain.weights.metadata import METADATA_KEY, BackboneMetadata

R18 = BackboneConfig(arch="resnet18", stem="standard")


def describe(step=3, **changes):
    """Metadata of a ResNet-18."""
    return BackboneMetadata(
        **{
            "format_version": 1,
            "arch": "resnet18",
            "stem": "standard",
            "method": "rsa",
            "image_size": 32,
            "channel_order": "RGB",
            "mean": (0.1, 0.2, 0.3),
            "std": (0.4, 0.5, 0.6),
            "data_set": "digits",
            "epochs": 1.5,
            "step": step,
            "seed": 0,
            "config_hash": "c0ffee",
            "parent": None,
            "library_versions": {"torch": "2"},
        }
        | changes
    )


@pytest.fixture
def state():
    """Tensors of a ResNet-18 with moved BatchNorm statistics."""
    backbone = build_backbone(R18)
    for tensor in backbone.buffers():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return backbone.state_dict()


@pytest.fixture
def run_dir(state, tmp_path):
    """A run folder with one checkpoint."""
    model = {f"backbone.{name}": tensor for name, tensor in state.items()}
    model["predictor.weight"] = torch.ones(2)
    save_checkpoint(tmp_path, model, describe(3), {"step": 3}, keep=None)
    return tmp_path


def test_every_form_of_a_checkpoint_loads(run_dir, state):
    """A run folder, a checkpoint folder, the link and the file give the same tensors."""
    save_tensors(run_dir / "backbone.safetensors", state, describe(3))
    folder = run_dir / "checkpoints" / "step-00000003"
    for path in (run_dir, run_dir / "backbone.safetensors", folder, folder.parent / "last"):
        loaded = load_backbone(path)
        assert loaded.metadata == describe(3)
        assert not loaded.backbone.training
        assert loaded.sha256 == file_sha256(loaded.path)
        for name, tensor in loaded.backbone.state_dict().items():
            assert torch.equal(tensor, state[name]), name


def test_an_unfinished_run_gives_its_last_checkpoint(run_dir):
    """Without the final file the newest checkpoint counts, by the name that stays its own."""
    path = load_backbone(run_dir).path
    assert path.parts[-3:] == ("checkpoints", "step-00000003", "model.safetensors")


@pytest.mark.parametrize("keep", [1, 2])
def test_weights_are_of_one_checkpoint_while_training_writes_the_next(
    run_dir, state, monkeypatch, keep
):
    """The hash is that of the tensors; a checkpoint deleted meanwhile is refused."""

    def next_checkpoint_before(path):
        model = {f"backbone.{name}": tensor + 1 for name, tensor in state.items()}
        save_checkpoint(run_dir, model, describe(4), {"step": 4}, keep=keep)
        return file_sha256(path)

    monkeypatch.setattr(checkpoint, "file_sha256", next_checkpoint_before)
    if keep == 1:
        with pytest.raises(UserError, match=r"step-00000003.* deleted while it was read.*; rerun"):
            load_backbone(run_dir)
        return
    loaded = load_backbone(run_dir)
    assert loaded.metadata.step == 3
    assert loaded.sha256 == file_sha256(loaded.path)
    assert torch.equal(loaded.backbone.state_dict()["conv1.weight"], state["conv1.weight"])


def test_loading_leaves_the_random_state_alone(run_dir):
    """No weights are drawn only to be overwritten."""
    before = torch.get_rng_state()
    load_backbone(run_dir)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_final_file_has_torchvisions_names(state):
    """A plain torchvision ResNet takes the tensors; only its classifier is left."""
    import torchvision

    report = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert report.missing_keys == ["fc.weight", "fc.bias"]
    assert report.unexpected_keys == []


def altered(state, change):
    """A copy of the state after ``change``."""
    copy = {name: tensor.clone() for name, tensor in state.items()}
    change(copy)
    return copy


REFUSALS = {
    "missing": (
        lambda s: [s.pop(name) for name in list(s) if name.startswith("layer4.1")],
        r"12 missing: layer4\.1\.conv1\.weight, .* and 7 more",
    ),
    "unexpected": (
        lambda s: s.update({"fc.weight": torch.zeros(2)}),
        r"1 unexpected: fc\.weight",
    ),
    "misshapen": (
        lambda s: s.update({"conv1.weight": torch.zeros(64, 3, 3, 3)}),
        r"1 misshapen: conv1\.weight \(float32 \[64, 3, 3, 3\], expected float32 \[64, 3, 7, 7\]\)",
    ),
    "half": (
        lambda s: s.update({"conv1.weight": s["conv1.weight"].half()}),
        r"1 of another type: conv1\.weight \(float16, expected float32\)",
    ),
    "nan": (lambda s: s["conv1.weight"].fill_(float("nan")), r"1 not finite: conv1\.weight"),
    "all at once": (
        lambda s: s.update({"stray": s.pop("bn1.bias")}),
        r"1 missing: bn1\.bias; 1 unexpected: stray",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_anything_but_the_exact_backbone_is_refused(state, tmp_path, name):
    """Missing, unexpected, misshapen and non-finite tensors are listed."""
    change, message = REFUSALS[name]
    save_tensors(tmp_path / "x.safetensors", altered(state, change), describe())
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path / "x.safetensors")


def test_files_of_other_kinds_are_refused(state, tmp_path):
    """Truncated, empty, foreign, versioned and pickled files each get one clear error."""
    whole = tmp_path / "whole.safetensors"
    save_tensors(whole, state, describe())
    cases = {
        "cut": (whole.read_bytes()[:-100], "not a complete safetensors file"),
        "empty": (b"", "not a complete safetensors file"),
        "noise": (os.urandom(4000), "not a complete safetensors file"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_backbone(tmp_path / name)
    foreign = tmp_path / "foreign.safetensors"
    save_file(state, foreign)
    with pytest.raises(UserError, match=r"has no 'rsa_toolkit' metadata.*; rsa-pretrain import"):
        load_backbone(foreign)
    metadata = json.loads(describe().model_dump_json())
    for change, message in (
        ({"format_version": 99}, "has format version 99, expected 1"),
        ({"colour": "RGB"}, "unknown key 'colour'"),
        ({"channel_order": "BGR"}, "channel_order"),
    ):
        save_file(state, foreign, {METADATA_KEY: json.dumps(metadata | change)})
        with pytest.raises(UserError, match=message):
            load_backbone(foreign)
    with pytest.raises(
        UserError, match=r"does not exist; expected a run folder, a checkpoint folder or a file$"
    ):
        load_backbone(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"contains neither backbone\.safetensors nor"):
        load_backbone(tmp_path / "folder")


class Marker:
    """Unpickling an instance creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_trainer_state_is_never_unpickled(run_dir):
    """A malicious trainer.pt is refused and its code does not run."""
    marker = run_dir / "ran"
    path = run_dir / "checkpoints" / "last" / "trainer.pt"
    buffer = io.BytesIO()
    torch.save({"x": Marker(marker)}, buffer)
    for content in (buffer.getvalue(), pickle.dumps(Marker(marker)), b"", b"PK\x03\x04junk"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"or contains more than tensors .*; delete its folder"):
            load_checkpoint(path.parent)
    assert not marker.exists()


def test_another_number_in_the_trainer_state_is_refused(run_dir):
    """Torch would read it, as it does not verify the checksums of its archives."""
    path = run_dir / "checkpoints" / "last" / "trainer.pt"
    moments = torch.full((64,), 2.0)
    torch.save({"step": 3, "moments": moments}, path)
    assert load_checkpoint(path.parent)[2]["step"] == 3
    content = path.read_bytes()
    changed = content.replace(moments.numpy().tobytes(), (moments + 1).numpy().tobytes())
    assert changed != content
    path.write_bytes(changed)
    assert torch.load(path)["moments"][0] == 3
    with pytest.raises(UserError, match=r"trainer\.pt' is damaged"):
        load_checkpoint(path.parent)


def test_a_cut_or_absent_trainer_state_is_refused(run_dir):
    """A file cut anywhere is called damaged, one that is not there is named."""
    path = run_dir / "checkpoints" / "last" / "trainer.pt"
    torch.save({"x": torch.zeros(50_000)}, path)
    whole = path.read_bytes()
    for size in (1, 100, 5_000, 100_000, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"or contains more than tensors .*; delete its folder"):
            load_checkpoint(path.parent)
    path.unlink()
    with pytest.raises(UserError, match=r"trainer\.pt' is not a file"):
        load_checkpoint(path.parent)


def test_only_the_newest_checkpoints_stay(state, tmp_path):
    """keep=2 leaves the last two, in order, and the link on the newest."""
    for step in (5, 10, 100_000_000):
        save_checkpoint(tmp_path, {"x": torch.ones(1)}, describe(step), {}, keep=2)
    names = [path.name for path in list_checkpoints(tmp_path)]
    assert names == ["step-00000010", "step-100000000"]
    assert (tmp_path / "checkpoints" / "last").resolve().name == "step-100000000"


def test_saving_a_step_again_replaces_it(tmp_path):
    """A resumed run may reach a step whose checkpoint exists."""
    for value in (1.0, 2.0):
        save_checkpoint(tmp_path, {"x": torch.tensor(value)}, describe(5), {}, keep=None)
    tensors, _, _ = load_checkpoint(tmp_path / "checkpoints" / "last")
    assert tensors["x"] == 2.0
    assert [
        path.name for path in (tmp_path / "checkpoints").iterdir() if "-0" not in path.name
    ] == ["last"]


def test_a_copied_folder_in_place_of_the_link_is_replaced(tmp_path):
    """Copying that follows links leaves a folder called last; the next save makes it a link."""
    save_checkpoint(tmp_path / "run", {"x": torch.ones(1)}, describe(5), {}, keep=None)
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert not (copy / "checkpoints" / "last").is_symlink()
    save_checkpoint(copy, {"x": torch.ones(1)}, describe(6), {}, keep=None)
    assert (copy / "checkpoints" / "last").resolve().name == "step-00000006"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    """An exception while writing changes nothing and leaves nothing behind."""
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail():
        with atomic_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_full_disk_stops_is_named(tmp_path):
    """Whatever a library raises then, the error is the system's, of the file or folder to write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path, run = tmp_path / "x.pt", tmp_path / "run"
    tensors = {"a": torch.zeros(1_000_000)}
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, limits[1]))
    try:
        with pytest.raises(OSError, match=f"too large: '{path}'"), atomic_file(path) as temporary:
            save_torch(tensors, temporary)
        step = run / "checkpoints" / "step-00000001"
        for one, state in ((tensors, {}), ({"b": torch.zeros(1)}, tensors)):
            with pytest.raises(OSError, match=f"too large: '{step}'"):
                save_checkpoint(run, one, describe(1), state, keep=None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((run / "checkpoints").iterdir()) == []
    assert not path.exists()


SAVE_FOR_EVER = """
import sys, torch
from pathlib import Path
from rsa_pretrain.weights.checkpoint import save_checkpoint
from rsa_pretrain.weights.metadata import BackboneMetadata
run, metadata = Path(sys.argv[1]), BackboneMetadata.model_validate_json(sys.argv[2])
step = 0
while True:
    step += 1
    tensors = {"a": torch.full((400_000,), float(step)), "b": torch.full((400_000,), float(step))}
    metadata = metadata.model_copy(update={"step": step})
    save_checkpoint(run, tensors, metadata, {"step": step, "c": tensors["a"]}, keep=2)
"""


def test_kill_during_saving_leaves_a_whole_checkpoint(tmp_path, python):
    """After kill -9 at ten different moments the last checkpoint is readable and consistent."""
    for attempt in range(10):
        run = tmp_path / str(attempt)
        process = python.start("-c", SAVE_FOR_EVER, run, describe(0).model_dump_json())
        try:
            wait_for((run / "checkpoints" / "last").exists)
            time.sleep(0.013 * attempt)
        finally:
            process.kill()
        tensors, metadata, trainer_state = load_checkpoint(run / "checkpoints" / "last")
        value = float(metadata.step)
        assert trainer_state["step"] == metadata.step
        assert torch.equal(tensors["a"], torch.full((400_000,), value))
        assert torch.equal(tensors["b"], trainer_state["c"])
        remove_leftovers(run / "checkpoints")
        leftovers = [p for p in (run / "checkpoints").iterdir() if TEMPORARY_PREFIX in p.name]
        assert leftovers == []


def wait_for(condition, seconds=60):
    """Poll until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("arch", "stem", "width"),
    [("resnet18", "cifar", 512), ("resnet34", "standard", 512), ("resnet50", "standard", 2048)],
)
def test_backbones(arch, stem, width):
    """Features have the stated width; the CIFAR stem keeps the resolution."""
    backbone = build_backbone(BackboneConfig(arch=arch, stem=stem))
    assert feature_dim(backbone) == width
    assert backbone.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, width)
    stride = 1 if stem == "cifar" else 4
    stem_output = backbone.maxpool(backbone.conv1(torch.zeros(1, 3, 32, 32)))
    assert stem_output.shape[-1] == 32 // stride


def test_zero_init_residual_starts_the_branches_at_zero():
    """The last norm of each block is zero, or one if the option is off."""
    for zero in (True, False):
        config = R18.model_copy(update={"zero_init_residual": zero})
        assert build_backbone(config).layer4[1].bn2.weight.unique().tolist() == [float(not zero)]


@pytest.mark.parametrize(
    ("stem", "init", "deviation"),
    [
        ("cifar", "kaiming", (2 / (64 * 9)) ** 0.5),
        ("cifar", "default", (1 / (3 * 3 * 9)) ** 0.5),
        ("standard", "kaiming", (2 / (64 * 49)) ** 0.5),
        ("standard", "default", (1 / (3 * 3 * 49)) ** 0.5),
    ],
)
def test_first_convolution_starts_as_stated(stem, init, deviation):
    """Kaiming: sqrt(2 / fan_out); default: uniform, a third of the variance 1 / fan_in."""
    config = BackboneConfig(arch="resnet18", stem=stem, stem_init=init)
    weight = build_backbone(config).conv1.weight
    assert weight.std().item() == pytest.approx(deviation, rel=0.1)


def test_flop_count_of_resnet50():
    """4.1 G multiply-adds at 224 px, the published figure, are 8.2 GFLOP."""
    config = BackboneConfig(arch="resnet50", stem="standard")
    assert gflops_per_image(config, 224) == pytest.approx(2 * 4.09, rel=0.01)


def test_safetensors_round_trip_is_bitwise(state, tmp_path):
    """The values written are the values read."""
    save_tensors(tmp_path / "x.safetensors", state, describe())
    again = load_file(tmp_path / "x.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
