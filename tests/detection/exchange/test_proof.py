import ast
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import detection
from detection.exchange.convert import convert, paired_config, to_detectron2_weights
from detection.exchange.weights_file import write_weights
from rsa_pretrain.weights.checkpoint import LoadedBackbone

WriteCheckpoint = Callable[..., LoadedBackbone]


def _model(loaded: LoadedBackbone) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors by detectron2's full names."""
    return to_detectron2_weights(loaded.backbone.state_dict())[0]


def _imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def test_only_the_engine_imports_detectron2() -> None:
    """Everything else in the package works where detectron2 cannot be had."""
    root = Path(detection.__file__).parent
    importing = {
        path.relative_to(root).parent.as_posix()
        for path in root.rglob("*.py")
        if "detectron2" in _imported_packages(path)
    }
    assert importing == {"engines/detectron2"}


class TestWithDetectron2:
    """Prove what only detectron2 itself can."""

    pytestmark = pytest.mark.detectron2

    @pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101"])
    def test_features_are_equal(
        self, write_checkpoint: WriteCheckpoint, tmp_path: Path, arch: str
    ) -> None:
        """detectron2's res2 … res5 are torchvision's layer1 … layer4, to the last bit."""
        for features in ("FPN", "C4") if arch in ("resnet50", "resnet101") else ("FPN",):
            done = convert(write_checkpoint(arch).path, tmp_path / f"{features}.pkl", features)
            assert done.proof.feature_differences == {
                "res2": 0.0,
                "res3": 0.0,
                "res4": 0.0,
                "res5": 0.0,
            }

    @pytest.mark.parametrize("suffix", [".pkl", ".pth"])
    @pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
    def test_checkpointer_misses_nothing(
        self,
        write_checkpoint: WriteCheckpoint,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
        norm: str,
        suffix: str,
    ) -> None:
        """DetectionCheckpointer loads all 265 tensors and warns of none but the dropped counts."""
        from detectron2.checkpoint import DetectionCheckpointer

        from detection.engines.detectron2.features import (
            build_trunk,
            in_detector,
            load_weights_file,
        )

        loaded = write_checkpoint("resnet50")
        done = convert(loaded.path, tmp_path / f"out{suffix}")
        tree = dict(done.config_tree)
        tree["MODEL"]["RESNETS"]["NORM"] = norm
        trunk = in_detector(build_trunk(tree), "FPN")
        checkpointer = DetectionCheckpointer(trunk)
        seen: list[Any] = []
        monkeypatch.setattr(checkpointer, "_log_incompatible_keys", seen.append)
        checkpointer.load(str(done.weights))
        (incompatible,) = seen
        missing = [k for k in incompatible.missing_keys if not k.endswith("num_batches_tracked")]
        assert missing == []
        assert incompatible.unexpected_keys == []
        assert incompatible.incorrect_shapes == []
        with caplog.at_level(logging.WARNING):
            load_weights_file(trunk, done.weights, _model(loaded))

    def test_other_stride_placement_gives_other_features(
        self, write_checkpoint: WriteCheckpoint, tmp_path: Path
    ) -> None:
        """Negative control: with STRIDE_IN_1X1 True, res3 … res5 differ and res2 does not."""
        from detection.engines.detectron2.features import feature_differences

        loaded = write_checkpoint("resnet50")
        done = convert(loaded.path, tmp_path / "out.pkl")
        tree = paired_config(loaded.metadata, done.weights)
        tree["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] = True
        found = feature_differences(done.weights, tree, _model(loaded), loaded.backbone)
        assert found["res2"] == 0.0
        assert min(found[stage] for stage in ("res3", "res4", "res5")) > 0.05

    def test_unloaded_tensor_is_noticed(
        self, write_checkpoint: WriteCheckpoint, tmp_path: Path
    ) -> None:
        """A file without running statistics, which detectron2 fills in silently, is refused."""
        from detection.engines.detectron2.features import (
            build_trunk,
            in_detector,
            load_weights_file,
        )

        loaded = write_checkpoint()
        model = _model(loaded)
        half = {name: tensor for name, tensor in model.items() if "running_" not in name}
        write_weights(tmp_path / "half.pkl", half, {})
        tree = paired_config(loaded.metadata, tmp_path / "half.pkl")
        trunk = in_detector(build_trunk(tree), "FPN")
        with pytest.raises(RuntimeError, match="did not load 40 tensors"):
            load_weights_file(trunk, tmp_path / "half.pkl", model)
