"""Test the benchmarks of views and training, at sizes at which the numbers mean nothing."""

from typing import Any

import pytest
import torch

from benchmarks import scaling, startup
from benchmarks.catalogue import BENCHMARKS
from benchmarks.detection import prepared_detections
from benchmarks.detectors import DetectionSettings
from benchmarks.images import jpegs, small_images
from benchmarks.our_views import OurViews
from benchmarks.passes import bare_passes
from benchmarks.training import RSA, alternate_epochs
from benchmarks.view_cost import RSAStep, ViewCostSettings
from rsa_pretrain.components.backbone import build_backbone
from rsa_pretrain.components.settings import BackboneConfig
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.methods.rsa import RSA as Method
from rsa_pretrain.methods.settings import RSAConfig
from rsa_pretrain.plumbing.errors import UserError

TRAINING = {"num_images": 8, "batch_size": 4, "repeats": 1}
DETECTION = {"image_size": 64, "num_proposals": 20, "num_regions": 8, "num_detections": 4}
SMALL: dict[str, dict[str, Any]] = {
    "ap_coverage": {"num_images": (6, 9), "num_experiments": 3, "resamples": 40},
    "coco_resamples": {"num_images": 8, "num_categories": 3, "resamples": 4},
    "detection": DETECTION | {"repeats": 1, "batch_size": 1, "num_classes": 3},
    "epoch": TRAINING,
    "lightly_epoch": TRAINING | {"lightly_workers": 0},
    "scaling": TRAINING
    | {"num_photos": 2, "num_workers": (0,), "batch_sizes": (4, 8), "num_processes": ()},
    "view_cost": TRAINING | {"num_photos": 2},
    "views": {"num_small_images": 5, "num_photos": 2, "batch_size": 3, "repeats": 1},
}
# Findings with their bounds, and the figures' units.
EXPECTED: dict[str, tuple[list[float], set[str]]] = {
    "ap_coverage": ([93.5] * 4, set()),
    "coco_resamples": ([60, 0.001, 0.02, 512], {"s"}),
    "detection": ([1.05, 1.02], {"×"}),
    "epoch": ([1.05], {"images/s", "MiB"}),
    "lightly_epoch": ([1.5, 1.5], {"images/s", "MiB"}),
    "scaling": ([], {"images/s", "kB"}),
    "view_cost": ([1.1, 1.1, 1.03], set()),
    "views": ([8, 3.5, 1.3], {"images/s", "MiB"}),
}


@pytest.fixture(autouse=True)
def _generated_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unpacking CIFAR-10 takes ten seconds."""
    monkeypatch.delenv("RSA_DATA", raising=False)


@pytest.mark.usefixtures("no_new_process", "narrow_resnets")
@pytest.mark.parametrize("name", SMALL)
def test_they_run(name: str) -> None:
    """Each has its findings with their bounds, its figures, and one timed run of each candidate."""
    benchmark = BENCHMARKS[name]
    measured = benchmark.measure(benchmark.settings(**SMALL[name]))
    limits, units = EXPECTED[name]
    assert [finding.limit for finding in measured.findings] == limits
    assert {figure.unit for figure in measured.figures} == units
    assert all(number.value > 0 for number in [*measured.findings, *measured.figures])
    assert len(measured.seconds) > 1
    assert all(len(times) == 1 for times in measured.seconds.values())


@pytest.mark.process
def test_processes_train_together() -> None:
    """Two processes share a batch; the main one times the second epoch."""
    settings = scaling.ScalingSettings(**TRAINING)
    assert scaling.parallel_epoch(settings, 2, small_images(8, 0)) > 0


def test_processes_on_gpus_need_one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting to change is named before anything is timed."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"num_processes asks for 2 GPUs, but there is 1"):
        scaling.measure(scaling.ScalingSettings(device="cuda"))


def test_our_views_are_the_recipes() -> None:
    """From pixels and from files, four or two normalised views; from crops of uint8."""
    pixels = torch.full((3, 3, 40, 30), 255, dtype=torch.uint8)
    four = OurViews("multi_stage", 32, "cpu", 0).of_pixels(pixels)
    assert [view.shape for view in four] == 4 * [(3, 3, 32, 32)]
    mean, std = torch.tensor(data_set("cifar10").normalisation)
    white = (1 - mean) / std
    torch.testing.assert_close(four[2], white[:, None, None].expand(3, 3, 32, 32))
    views = OurViews("aggressive_pair", 224, "cpu", 0)
    files = jpegs(2, 0).files
    assert [view.shape for view in views.of_files(files)] == 2 * [(2, 3, 224, 224)]
    crops = views.crops(files).pixels
    assert crops.keys() == {"", "'"}
    assert {crop.dtype for crop in crops.values()} == {torch.uint8}


def test_the_bare_passes_are_those_of_a_step() -> None:
    """Two views leave gradients of the online network, two run the target's BatchNorm."""
    backbone = build_backbone(BackboneConfig(arch="resnet18", stem="standard"))
    method = Method(backbone, RSAConfig(**RSA))
    views = [torch.randn(2, 3, 32, 32) for _ in range(4)]
    bare_passes(method, views, torch.randn(2, 128), "fp32")
    trained = [tensor for tensor in method.parameters() if tensor.requires_grad]
    assert all(tensor.grad is not None for tensor in trained)
    for network in (method.backbone, method.target_backbone):
        assert network.bn1.num_batches_tracked == 2


def test_the_step_of_the_view_costs_trains() -> None:
    """Online weights move by the optimizer, target weights by the average."""
    step = RSAStep(ViewCostSettings(batch_size=2))
    for network in (step.method.projector, step.method.target_projector):
        before = network[0].weight.clone()
        step([torch.randn(2, 3, 32, 32) for _ in range(4)])
        assert not torch.equal(network[0].weight, before)


def test_epochs_take_turns() -> None:
    """Each candidate's own seconds are kept, turn by turn."""
    calls: list[str] = []

    def train(name: str, seconds: float) -> float:
        calls.append(name)
        return seconds

    candidates = {"a": lambda: train("a", 2.0), "b": lambda: train("b", 1.0)}
    assert alternate_epochs(candidates, 2) == {"a": [2.0, 2.0], "b": [1.0, 1.0]}
    assert calls == ["a", "b", "a", "b"]


@pytest.mark.process
def test_startup_counts_cpu_time_and_checks_the_answer() -> None:
    """A child's computing time is counted; an unexpected exit code is an error."""
    before = startup._seconds_of_children()
    startup._run(0, "-c", "import time\nwhile time.process_time() < 0.3: pass")
    assert startup._seconds_of_children() - before >= 0.3
    with pytest.raises(RuntimeError, match="ended with 3"):
        startup._run(2, "-c", "raise SystemExit(3)")


def test_detectors_have_as_much_to_do() -> None:
    """Each finds as many objects as it may, and draws a mask of the image's size for each."""
    for detect in prepared_detections(DetectionSettings(**DETECTION)).values():
        found = detect()
        assert len(found["boxes"]) == len(found["scores"]) == 4
        assert found["masks"].squeeze(1).shape == (4, 64, 64)
