import copy
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.extras import missing_packages
from rsa_pretrain.weights.checkpoint import load_backbone, save_tensors
from rsa_pretrain.weights.export.export import export_backbone, find_target
from rsa_pretrain.weights.export.targets import TARGETS
from rsa_pretrain.weights.export.targets.base import probe_images
from rsa_pretrain.weights.foreign.layout import Pixels
from rsa_pretrain.weights.foreign.load import ImportOptions, import_weights
from rsa_pretrain.weights.tensor_check import differing

# ONNX, whose tracing takes long, has a separate test.
NAMES = [target.name for target in TARGETS if target.layout]


def out_path(folder, target):
    """Where an export goes."""
    return folder / f"exported{target.suffix}"


@pytest.mark.parametrize("name", NAMES)
def test_an_export_is_proved_by_the_tool(own_backbone, tmp_path, name):
    """The tool itself loads what was written and computes the same features."""
    target = find_target(name)
    done = export_backbone(own_backbone(), target, out_path(tmp_path, target), [])
    assert done.out.exists()
    assert done.imported_again
    missing = missing_packages(target.packages)
    if missing:
        assert done.difference is None
        pytest.skip(f"{', '.join(missing)} is not installed")
    assert done.difference <= target.tolerance


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(scale=st.floats(1e-30, 1e30), place=st.integers(0, 63))
def test_import_undoes_export(own_backbone, tmp_path_factory, name, scale, place):
    """Any numbers, exported and imported again, are the same bits."""
    loaded = copy.deepcopy(own_backbone())
    with torch.no_grad():
        loaded.backbone.conv1.weight[place] *= scale
    target = find_target(name)
    out = out_path(tmp_path_factory.mktemp("export"), target)
    if not target.suffix:
        out.mkdir()
    target.write(loaded, out)
    file = out / target.weights
    again = import_weights(file, ImportOptions(layout=target.layout)).backbone.state_dict()
    wanted = loaded.backbone.state_dict()
    assert again.keys() == wanted.keys()
    assert all(torch.equal(again[key], wanted[key]) for key in wanted)


def test_bottlenecks_are_proved_too(own_backbone, tmp_path):
    """A ResNet-50 keeps its features in transformers: the stride is where torchvision has it."""
    target = find_target("huggingface")
    if missing_packages(target.packages):
        pytest.skip("transformers is not installed")
    done = export_backbone(own_backbone("resnet50"), target, out_path(tmp_path, target), [])
    assert done.difference <= target.tolerance


def test_onnx_takes_any_batch_and_size(own_backbone, tmp_path):
    """The exported graph is bound to neither batch nor image size, and keeps its metadata."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    loaded = own_backbone(stem="cifar")
    done = export_backbone(loaded, find_target("onnx"), tmp_path / "x.onnx", [])
    assert done.difference <= done.target.tolerance
    assert not done.imported_again
    session = runtime.InferenceSession(str(tmp_path / "x.onnx"))
    for images in (probe_images()[:1, :, :32, :48], probe_images().repeat(2, 1, 1, 1)):
        (found,) = session.run(["features"], {"images": images.numpy()})
        with torch.inference_mode():
            wanted = loaded.backbone(images)
        # onnxruntime folds BatchNorm into the convolutions: one more rounding of every weight.
        torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-5)
    kept = {entry.key: entry.value for entry in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert json.loads(kept["rsa_toolkit"])["parent"] == loaded.metadata.parent


def test_the_small_stem_goes_to_torchvision(own_backbone, tmp_path):
    """A 3x3 stem is proved in a torchvision network that has it."""
    done = export_backbone(
        own_backbone(stem="cifar"), find_target("torchvision"), tmp_path / "x.pth", []
    )
    assert done.difference == 0


def test_a_failed_proof_leaves_nothing(own_backbone, tmp_path, monkeypatch):
    """If the tool computes other features, the file never takes its name."""
    target = find_target("torchvision")
    wrong = lambda loaded, path, images: torch.zeros(2, 512)  # noqa: E731
    broken = type(target)(**{**vars(target), "features": wrong})
    with pytest.raises(RuntimeError, match="features of torchvision differ from the backbone's"):
        export_backbone(own_backbone(), broken, tmp_path / "x.pth", [])

    def write_wrong(loaded, path):
        state = loaded.backbone.state_dict()
        torch.save(state | {"bn1.bias": state["bn1.bias"] + 1e-3}, path)

    broken = type(target)(**{**vars(target), "write": write_wrong})
    with pytest.raises(RuntimeError, match=r"does not restore the backbone: \['bn1.bias'\]"):
        export_backbone(own_backbone(), broken, tmp_path / "x.pth", [])
    assert list(tmp_path.iterdir()) == []


def test_narrow_network_is_loaded_again_and_exported_to_onnx_alone(own_backbone, tmp_path):
    """No other library has its network, and its name in the file says so."""
    narrow = BackboneConfig(arch="resnet18", stem="cifar", width=16)
    metadata = own_backbone().metadata.model_copy(update={"arch": narrow.name, "stem": "cifar"})
    tensors = build_backbone(narrow).state_dict()
    save_tensors(tmp_path / "narrow.safetensors", tensors, metadata)
    loaded = load_backbone(tmp_path / "narrow.safetensors")
    assert loaded.metadata.network == narrow
    assert not differing(loaded.backbone.state_dict(), tensors)
    with pytest.raises(UserError, match="is a resnet18_w16, which torchvision does not have"):
        export_backbone(loaded, find_target("torchvision"), tmp_path / "x.pth")
    if not missing_packages(find_target("onnx").packages):
        export_backbone(loaded, find_target("onnx"), tmp_path / "x.onnx")
    wrong = metadata.model_copy(update={"arch": "resnet18"})
    save_tensors(tmp_path / "wrong.safetensors", tensors, wrong)
    with pytest.raises(UserError, match="as resnet18"):
        load_backbone(tmp_path / "wrong.safetensors")


def test_what_cannot_be_exported_is_refused(own_backbone, tmp_path):
    """Stems a tool lacks, wrong suffixes and paths in the way are each named."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "folder.pth").mkdir()
    for name, stem, out, message in (
        ("timm", "cifar", "x.safetensors", "has the 'cifar' stem, which no ResNet of timm has"),
        ("torchvision", "standard", "x.pkl", r"should end in \.pth"),
        ("huggingface", "standard", "x.bin", "should name a folder"),
        ("huggingface", "standard", "full", "is not an empty folder"),
        ("torchvision", "standard", "folder.pth", "is a folder; name a file in it"),
    ):
        with pytest.raises(UserError, match=message):
            export_backbone(own_backbone(stem=stem), find_target(name), tmp_path / out, [])
    loaded = own_backbone()
    before = loaded.path.read_bytes()
    with pytest.raises(UserError, match="is the input file; write to another"):
        export_backbone(loaded, find_target("timm"), loaded.path, [])
    assert loaded.path.read_bytes() == before
    with pytest.raises(UserError, match="there is no target 'caffe'; choose one of: torchvision"):
        find_target("caffe")


def test_a_card_without_records_says_so(own_backbone, tmp_path):
    """No number is invented."""
    export_backbone(own_backbone(), find_target("huggingface"), tmp_path / "hf", [])
    assert "Not evaluated" in (tmp_path / "hf" / "README.md").read_text()


def test_pixel_statistics_travel(own_backbone, tmp_path):
    """Hugging Face's preprocessor and MMPretrain's meta hold the weights' own statistics."""
    loaded = own_backbone()
    metadata = loaded.metadata.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)})
    save_tensors(tmp_path / "own.safetensors", loaded.backbone.state_dict(), metadata)
    changed = load_backbone(tmp_path / "own.safetensors")
    export_backbone(changed, find_target("huggingface"), tmp_path / "hf", [])
    tree = json.loads((tmp_path / "hf" / "preprocessor_config.json").read_text())
    assert Pixels(tuple(tree["image_mean"]), tuple(tree["image_std"])) == Pixels(
        metadata.mean, metadata.std
    )
    export_backbone(changed, find_target("mmpretrain"), tmp_path / "mm.pth", [])
    meta = torch.load(tmp_path / "mm.pth", weights_only=True)["meta"]
    assert meta["data_preprocessor"]["mean"] == [25.5, 51.0, 76.5]
    assert meta["data_preprocessor"]["to_rgb"] is True
