"""The dense linear probe as an evaluation."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import narrow
import numpy as np
import pytest
import torch
from masked_shapes import CLASSES, NUM_TEST, write_shapes
from PIL import Image

from rsa_eval.__main__ import main
from rsa_eval.evaluators import EVALUATORS, Workspace
from rsa_eval.evaluators.segmentation.deviations import segmentation_deviations
from rsa_eval.evaluators.segmentation.evaluator import evaluate_segmentation
from rsa_eval.evaluators.segmentation.samples import TrainingSamples
from rsa_eval.evaluators.segmentation.sets import open_masked
from rsa_eval.evaluators.segmentation.settings import SegmentationConfig
from rsa_eval.evaluators.segmentation.training import DenseProbe
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.records.predictions import read_predictions
from rsa_eval.records.record import Result, read_record
from rsa_pretrain.plumbing.config.files import load_config, parse_tree
from rsa_pretrain.plumbing.config.shipped import find_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

MakeConfig = Callable[..., SegmentationConfig]

# A whole ResNet-18 of a quarter of the width.
LEARNER = {"backbone": {"arch": "resnet18", "stem": "standard", "width": 16}}
LEARNING = {"epochs": 15, "milestones": [12], "lr": 0.003}


def learned(make_config: MakeConfig, root: Path, workspace: Workspace) -> Result:
    """The result of a longer training."""
    config = make_config(root, probe=LEARNING, data={"image_size": 128}, **LEARNER)
    with narrow.narrow_resnets(False):
        return evaluate_segmentation(load_subject(None, config), config, workspace)


def test_it_learns_colours_and_nothing_from_others_masks(
    make_config: MakeConfig, shapes: Path, tmp_path: Path
) -> None:
    """Random filters tell colours: mIoU is far above one class everywhere.

    With each image's mask exchanged for another's, it is not.
    """
    found = learned(make_config, shapes, Workspace(tmp_path / "a.json"))
    trivial = found.details["one_class_everywhere"]
    assert trivial["name"] == "background"
    assert found.metrics["mIoU"].value > trivial["mIoU"] + 25
    assert found.metrics["pixel_accuracy"].value > trivial["pixel_accuracy"] + 8
    scrambled = write_shapes(tmp_path / "scrambled", scrambled=True)
    control = learned(make_config, scrambled, Workspace(tmp_path / "b.json"))
    trivial = control.details["one_class_everywhere"]
    assert control.metrics["mIoU"].value < trivial["mIoU"] + 3


def test_the_record_holds_each_class(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace
) -> None:
    """Their mean is mIoU; images and masks are identified; departures are listed."""
    found = evaluate_segmentation(random_subject, make_config(), workspace)
    classes = found.details["classes"]
    assert [entry["name"] for entry in classes] == list(CLASSES)
    assert found.metrics["mIoU"].value == pytest.approx(
        np.mean([entry["iou"] or 0 for entry in classes])
    )
    assert found.num_samples == len(found.test_keys) == NUM_TEST
    assert found.details["images"]["train"]["count"] == 24
    assert found.details["map"] == {"channels": 32, "height": 8, "width": 8}
    assert found.deviations == [
        "epochs 2 (protocol: 60)",
        "batch_size 5 (protocol: 16)",
        "lr 2 (protocol: 0.1)",
        "milestones none (protocol: 26)",
        "squares of 64 pixels (protocol: 512)",
        "a last batch of 4 images in each epoch (protocol: left out)",
        "weights of the last epoch (protocol: of the best by test mIoU)",
    ]


def test_pixels_are_counted_at_the_original_size(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace, shapes: Path
) -> None:
    """Every pixel of the test masks but the ignored ones, once."""
    found = evaluate_segmentation(random_subject, make_config(), workspace)
    expected = np.zeros(4, int)
    for name in (shapes / "ImageSets/Segmentation/val.txt").read_text().split():
        with Image.open(shapes / f"SegmentationClass/{name}.png") as mask:
            expected += np.bincount(np.array(mask).ravel(), minlength=256)[:4]
    counted = [entry["num_pixels"] for entry in found.details["classes"]]
    assert counted == expected.tolist()


def test_the_backbone_does_not_move(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace
) -> None:
    """Its tensors have the same bytes afterwards, and modes and strides come back."""
    backbone = random_subject.backbone
    before = {name: one.numpy().tobytes() for name, one in backbone.state_dict().items()}
    images = torch.randn(1, 3, 64, 64)
    features = backbone.eval()(images)
    backbone.train()
    evaluate_segmentation(random_subject, make_config(), workspace)
    assert {name: one.numpy().tobytes() for name, one in backbone.state_dict().items()} == before
    assert all(module.training for module in backbone.modules())
    assert torch.equal(backbone.eval()(images), features)


def test_the_test_masks_have_no_say(
    make_config: MakeConfig, random_subject: Subject, tmp_path: Path
) -> None:
    """With other test masks the training is the same, only the result differs."""
    root = write_shapes(tmp_path / "shapes")
    config = make_config(root)
    before = evaluate_segmentation(random_subject, config, Workspace(tmp_path / "a.json"))
    for path in (root / "SegmentationClass").glob("shape_[23]*.png"):
        if int(path.stem[-2:]) >= 24:
            with Image.open(path) as stored:
                turned = stored.transpose(Image.Transpose.ROTATE_180)
            turned.save(path)
    after = evaluate_segmentation(random_subject, config, Workspace(tmp_path / "b.json"))
    assert after.details["loss_by_epoch"] == before.details["loss_by_epoch"]
    assert after.metrics != before.metrics


def stop_at_step(patch: pytest.MonkeyPatch, step: int) -> None:
    """Send SIGTERM during a training step."""
    original, taken = DenseProbe.train_step, []

    def taking_step(self: DenseProbe, *arguments: Any) -> None:
        taken.append(1)
        if len(taken) == step:
            signal.raise_signal(signal.SIGTERM)
        original(self, *arguments)

    patch.setattr(DenseProbe, "train_step", taking_step)


@pytest.mark.parametrize("mode", ["online", "cached"])
@pytest.mark.parametrize("step", [3, 5, 10])
def test_resuming_equals_never_stopping(
    make_config: MakeConfig,
    random_subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    step: int,
) -> None:
    """Within an epoch, at its end or after the last step: metrics and losses are equal bit for bit.

    Two epochs have five steps each.
    """
    config = make_config(probe={"mode": mode}, cache_dir=tmp_path / "maps")
    whole = evaluate_segmentation(random_subject, config, Workspace(tmp_path / "whole.json"))
    workspace = Workspace(tmp_path / "stopped.json")
    with monkeypatch.context() as patch:
        stop_at_step(patch, step)
        with pytest.raises(Stopped, match=f"stopped by SIGTERM after step {step} of 10, saved"):
            evaluate_segmentation(random_subject, config, workspace)
    found = evaluate_segmentation(random_subject, config, workspace)
    assert found.details["loss_by_epoch"] == whole.details["loss_by_epoch"]
    assert found.metrics == whole.metrics


def test_a_state_of_other_masks_is_not_resumed(
    make_config: MakeConfig,
    random_subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Images alone do not identify a training, nor do sizes of files."""
    root = write_shapes(tmp_path / "shapes")
    path = root / "SegmentationClass/shape_00.png"
    with Image.open(path) as mask:
        mask.save(path, compress_level=0)
        changed = mask.transpose(Image.Transpose.ROTATE_180)
    size = path.stat().st_size
    config, workspace = make_config(root), Workspace(tmp_path / "stopped.json")
    with monkeypatch.context() as patch:
        stop_at_step(patch, 3)
        with pytest.raises(Stopped, match="SIGTERM"):
            evaluate_segmentation(random_subject, config, workspace)
    changed.save(path, compress_level=0)
    assert path.stat().st_size == size
    evaluate_segmentation(random_subject, config, workspace)
    assert "belongs to other weights, images or settings" in caplog.text


def test_cached_maps_equal_online_ones_without_augmentation(
    make_config: MakeConfig,
    random_subject: Subject,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same images give the same maps, losses and metrics, up to rounding by batch size.

    A second evaluation reads them from the file: the backbone runs on the test images alone.
    """
    still = {"flip_probability": 0.0, "rotation_degrees": 0.0, "scale": [1.0, 1.0]}
    cached = make_config(probe={"mode": "cached"}, cache_dir=tmp_path / "maps", batch_size=16)
    results = [
        evaluate_segmentation(random_subject, config, Workspace(tmp_path / f"{name}.json"))
        for name, config in (("online", make_config(probe=still)), ("cached", cached))
    ]
    losses = [result.details["loss_by_epoch"] for result in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, metric in results[0].metrics.items():
        assert results[1].metrics[name].value == pytest.approx(metric.value, abs=0.02)
    (file,) = (tmp_path / "maps").glob("shapes-*.safetensors")
    augmented = evaluate_segmentation(
        random_subject, make_config(), Workspace(tmp_path / "augmented.json")
    )
    assert augmented.details["loss_by_epoch"] != pytest.approx(losses[0], rel=1e-3)

    forwards: list[int] = []
    random_subject.backbone.get_submodule("conv1").register_forward_hook(
        lambda module, given, output: forwards.append(len(output))
    )
    again = evaluate_segmentation(random_subject, cached, Workspace(tmp_path / "again.json"))
    assert again.details["loss_by_epoch"] == losses[1]
    # Blank images tell the map's shape; of the others, only those of the test split.
    assert sum(size for size in forwards if size > 1) == NUM_TEST
    assert list((tmp_path / "maps").glob("shapes-*.safetensors")) == [file]


def test_loader_processes_change_nothing(
    make_config: MakeConfig, random_subject: Subject, tmp_path: Path
) -> None:
    """Draws depend on seed, epoch and image alone."""
    losses = [
        evaluate_segmentation(
            random_subject,
            make_config(data={"num_workers": workers}),
            Workspace(tmp_path / f"{workers}.json"),
        ).details["loss_by_epoch"]
        for workers in (0, 2)
    ]
    assert losses[0] == losses[1]


def test_ade20ks_layout_gives_the_same_result(
    make_config: MakeConfig, random_subject: Subject, tmp_path: Path
) -> None:
    """Its values are one higher, and its unlabelled pixels those that are void here."""
    root = write_shapes(tmp_path / "ade", "ade20k")
    found, expected = (
        evaluate_segmentation(random_subject, config, Workspace(tmp_path / f"{name}.json"))
        for name, config in (
            ("ade", make_config(root, masks={"layout": "ade20k"})),
            ("voc", make_config(masks={"classes": len(CLASSES)})),  # so none is a background
        )
    )
    assert found.metrics == expected.metrics
    assert found.details["loss_by_epoch"] == expected.details["loss_by_epoch"]


def test_the_order_of_classes_means_nothing_without_a_background(
    make_config: MakeConfig, shapes: Path, tmp_path: Path
) -> None:
    """Pixels that a warped image leaves free are of no class, whichever is first."""
    root = write_shapes(tmp_path / "permuted")
    permuted = np.concatenate([[2, 3, 1, 0], np.arange(4, 256)]).astype(np.uint8)
    for path in (root / "SegmentationClass").glob("*.png"):
        with Image.open(path) as mask:
            values = permuted[np.array(mask)]
        Image.fromarray(values).save(path)
    for index in range(5):
        usual, other = (
            TrainingSamples(open_masked(config.data, config.masks, "train"), config)[0, index]
            for config in (
                make_config(own, probe={"scale": [0.5, 0.6]}, masks={"classes": 4})
                for own in (shapes, root)
            )
        )
        assert (usual.masks[0] == 255).float().mean() > 0.5
        assert permuted[usual.masks[0].numpy()].tolist() == other.masks[0].tolist()


@pytest.mark.parametrize("mode", ["online", "cached"])
def test_maps_that_overflow_are_blamed_on_the_precision(
    make_config: MakeConfig,
    random_subject: Subject,
    workspace: Workspace,
    tmp_path: Path,
    mode: str,
) -> None:
    """Not on the rate; nothing is saved that would be resumed."""
    weights = random_subject.backbone.get_submodule("layer4.0.bn2").weight
    assert isinstance(weights, torch.Tensor)
    weights.data.fill_(1e6)
    config = make_config(probe={"mode": mode}, feature_dtype="fp16", cache_dir=tmp_path / "maps")
    with pytest.raises(UserError, match=r"maps that are not finite .* kept in fp16; set precision"):
        evaluate_segmentation(random_subject, config, workspace)
    assert not workspace.state.exists()


def test_a_cache_that_is_a_file_is_refused(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace, tmp_path: Path
) -> None:
    """The error names the setting."""
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file/below"):
        config = make_config(probe={"mode": "cached"}, cache_dir=folder)
        with pytest.raises(UserError, match=r"cache_dir '.*file.*' needs a folder, '.*file' is a"):
            evaluate_segmentation(random_subject, config, workspace)


def test_a_broken_test_mask_ends_it_before_the_training(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace, tmp_path: Path
) -> None:
    """Hours would be lost otherwise."""
    root = write_shapes(tmp_path / "shapes")
    Image.new("RGB", (9, 9)).save(root / "SegmentationClass/shape_30.png")
    with pytest.raises(UserError, match=r"shape_30\.png' is stored as RGB"):
        evaluate_segmentation(random_subject, make_config(root), workspace)
    assert not workspace.state.exists()


def test_a_broken_training_mask_ends_it(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace, tmp_path: Path
) -> None:
    """From a loader process too, without a traceback and without a skip."""
    root = write_shapes(tmp_path / "shapes")
    Image.new("L", (9, 9), 77).save(root / "SegmentationClass/shape_03.png")
    for workers in (0, 1):
        config = make_config(root, data={"num_workers": workers})
        with pytest.raises(UserError, match=r"shape_03\.png' has the value 77 in 81 pixels"):
            evaluate_segmentation(random_subject, config, workspace)


def test_masks_without_any_class_are_refused(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace, tmp_path: Path
) -> None:
    """Nothing can be learned, or measured."""
    root = write_shapes(tmp_path / "shapes")

    def empty(names: str) -> None:
        for path in (root / "SegmentationClass").glob(names):
            with Image.open(path) as mask:
                void = Image.new("L", mask.size, 255)
            void.save(path)

    empty("shape_[23]?.png")
    with pytest.raises(UserError, match="no pixel of the test masks has a class"):
        evaluate_segmentation(random_subject, make_config(root), workspace)
    empty("shape_??.png")
    config = make_config(root, probe={"scale": [1.0, 1.0], "rotation_degrees": 0.0})
    with pytest.raises(UserError, match="no pixel of the training masks has a class"):
        evaluate_segmentation(random_subject, config, workspace)


def test_doubts_are_told(
    make_config: MakeConfig, random_subject: Subject, workspace: Workspace
) -> None:
    """A rate that is far too high, and classes that no pixel has."""
    config = make_config(probe={"lr": 3e3}, masks={"classes": 9})
    warnings = evaluate_segmentation(random_subject, config, workspace).details["warnings"]
    assert warnings[0].startswith("the probe did not converge: its last training loss exceeds ln 9")
    assert "of 9 classes are neither in the test masks nor predicted" in warnings[1]


def test_other_libraries_networks_are_probed(make_config: MakeConfig, tmp_path: Path) -> None:
    """One of timm, with its own map; the record says how coarse that is."""
    pytest.importorskip("timm", reason="timm is not installed (extra: networks)")
    out = tmp_path / "vit.json"
    config = make_config(data={"image_size": 160}, backbone=None)
    words = ["segmentation", "timm:test_vit", "--random-init", "--out", str(out)]
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(config.model_dump(mode="json")))
    assert main([*words, "--config", str(path)]) == 0
    record = read_record(out)
    assert record.details["map"] == {"channels": 64, "height": 10, "width": 10}
    assert "a map of 10 × 10 places (protocol: 20 × 20, output_stride 8)" in record.deviations


FUNCTIONS = """
import torch
from torch import nn

from rsa_eval import Preprocessing

INPUT = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


class Maps(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images, 4)


class Features(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3))


def maps():
    return Maps(), INPUT


def features():
    return Features(), INPUT
"""


def test_a_users_function_is_probed_if_it_gives_a_map(
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Averages of colours are a map, and say more than one class everywhere; features are none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dense_functions.py").write_text(FUNCTIONS)
    probe = {"epochs": 10, "lr": 1.0}
    tree = make_config(probe=probe, backbone=None).model_dump(mode="json")
    Path("config.yaml").write_text(json.dumps(tree))
    words = ["--config", "config.yaml", "--out", "out.json"]
    assert main(["segmentation", "python:dense_functions:maps", "tokens=mean", *words]) == 0
    record = read_record(Path("out.json"))
    assert record.details["map"] == {"channels": 3, "height": 16, "width": 16}
    trivial = record.details["one_class_everywhere"]["mIoU"]
    assert record.metrics["mIoU"].value > trivial + 10
    assert not [text for text in record.deviations if "tokens" in text]
    capsys.readouterr()
    assert main(["segmentation", "python:dense_functions:features", *words]) == 2
    assert "returns features (N, D), no map (N, D, H, W), so its places" in capsys.readouterr().err


def test_a_record_is_made_reported_and_compared(
    run_folder: Path, make_config: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes it, its answers give its numbers, and two of them are compared."""
    path = tmp_path / "config.yaml"
    tree = make_config(backbone=None).model_dump(mode="json")
    path.write_text(json.dumps(tree))
    assert main(["segmentation", str(run_folder), "--config", str(path)]) == 0
    out = run_folder / "records" / "segmentation-maskcontrast-shapes.json"
    record = read_record(out)
    assert (record.kind, record.data_set, record.headline) == ("segmentation", "shapes", "mIoU")
    kept = read_predictions(out, record).predictions
    for name, metric in record.metrics.items():
        assert kept.value(name) == pytest.approx(metric.value, abs=1e-9)
        assert metric.interval is not None
        assert metric.interval.low < metric.value < metric.interval.high
    assert kept.is_of_same_truth(kept)
    other = run_folder / "records" / "random.json"
    words = ["backbone.arch=resnet18", "backbone.stem=standard", "--config", str(path)]
    assert main(["segmentation", "--random-init", *words, "--out", str(other)]) == 0
    capsys.readouterr()
    assert main(["compare", str(out), str(other)]) == 0
    assert "mIoU" in capsys.readouterr().out
    assert main(["audit", str(out), str(other), "--no-features"]) == 0
    assert "segmentation on shapes (2 records)" in capsys.readouterr().out
    page = tmp_path / "page.html"
    assert main(["report", str(run_folder / "records"), "--out", str(page)]) == 0
    text = page.read_text()
    assert "Semantic segmentation, dense linear probe" in text
    assert f"{record.metrics['mIoU'].value:.1f}" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "digits", "root": None}}, "masks needs data.name=imagefolder"),
        ({"data": {"train_dir": "x"}}, r"data\.train_dir has no meaning with masks"),
        ({"data": {"eval_resize": 80}}, "resizes whole images to the square"),
        ({"layers": ["layer3"]}, "segmentation reads the last map"),
        ({"tokens": "cls"}, "segmentation reads the last map"),
        ({"tokens": "mean", "blocks": 2}, "segmentation reads the last map"),
        ({"probe": {"mode": "cached"}}, "probe.mode cached needs cache_dir"),
        ({"probe": {"milestones": [2]}}, "milestones .* must be below epochs 2"),
        ({"probe": {"epochs": 9, "milestones": [5, 3]}}, "milestones must increase"),
        (
            {"probe": {"mode": "cached", "flip_probability": 0.0}, "cache_dir": "x"},
            "flip_probability has no meaning in mode cached",
        ),
        ({"probe": {"scale": [1.2, 0.8]}}, "scale must satisfy 0 < low <= high"),
        ({"probe": {"output_stride": 4}}, "output_stride"),
    ],
)
def test_contradictions_are_refused(
    make_config: MakeConfig, changes: dict[str, Any], message: str
) -> None:
    """When the settings are read."""
    with pytest.raises(UserError, match=message):
        make_config(**changes)


def test_masks_are_required() -> None:
    """Without them there is nothing to classify."""
    tree = {"data": {"name": "imagefolder", "root": "x", "image_size": 64}}
    with pytest.raises(UserError, match="masks"):
        parse_tree(EVALUATORS["segmentation"].config, tree, "test")


@pytest.mark.gpu
def test_it_runs_on_a_gpu(make_config: MakeConfig, tmp_path: Path) -> None:
    """On CUDA the losses are those of a CPU, up to rounding; so is the result."""
    results = []
    for device in ("cpu", "cuda"):
        config = make_config(device=device)
        subject = load_subject(None, config)
        found = evaluate_segmentation(subject, config, Workspace(tmp_path / f"{device}.json"))
        results.append((found.details["loss_by_epoch"], found.metrics["pixel_accuracy"].value))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-2)
    assert results[1][1] == pytest.approx(results[0][1], abs=3)


def test_two_processes_equal_one(
    make_config: MakeConfig, tmp_path: Path, run_two_processes: Any
) -> None:
    """Each takes a half of a batch, and a whole last batch of one image goes to one of them.

    Losses differ by rounding; pixels are counted once.
    """
    path = tmp_path / "config.yaml"
    tree = make_config(probe={"batch_size": 23}).model_dump(mode="json")
    path.write_text(json.dumps(tree))
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    words = ["segmentation", "--random-init", "--config", str(path), "--out"]
    done = run_two_processes("-m", "rsa_eval", *words, together)
    assert done.returncode == 0, done.stderr
    assert main([*words, str(alone)]) == 0
    one, two = read_record(alone), read_record(together)
    assert two.details["loss_by_epoch"] == pytest.approx(one.details["loss_by_epoch"], rel=1e-4)
    for name, metric in one.metrics.items():
        assert two.metrics[name].value == pytest.approx(metric.value, abs=0.1)
    counted = [[entry["num_pixels"] for entry in own.details["classes"]] for own in (one, two)]
    assert counted[0] == counted[1]


def test_the_shipped_config_is_the_protocol() -> None:
    """On VOC 2012 nothing departs but what no setting can change."""
    config = load_config(SegmentationConfig, find_config(Path("segmentation/voc2012")))
    assert segmentation_deviations(config, 10_582, map_side=64) == [
        "a last batch of 6 images in each epoch (protocol: left out)",
        "weights of the last epoch (protocol: of the best by test mIoU)",
    ]
    data = config.data.model_copy(update={"image_size": 33})
    small = config.model_copy(update={"data": data})
    assert len(segmentation_deviations(small, 10_582, map_side=5)) == 3
    changes = {
        "train_split": "train",
        "test_split": "trainval",
        "train_mask_dir": "SegmentationClass",
        "classes": 21,
    }
    masks = config.masks.model_copy(update=changes)
    alone = config.model_copy(update={"masks": masks})
    assert segmentation_deviations(alone, 1_456, map_side=32) == [
        "a map of 32 × 32 places (protocol: 64 × 64, output_stride 8)",
        "training images of the split train (protocol: trainaug)",
        "test images of the split trainval (protocol: val)",
        "training masks of SegmentationClass (protocol: SegmentationClassAug)",
        "21 classes of own names (protocol: VOC's 21)",
        "pixels outside a warped image do not count (protocol: class 0)",
        "weights of the last epoch (protocol: of the best by test mIoU)",
    ]
