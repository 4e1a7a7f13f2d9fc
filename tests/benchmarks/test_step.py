import pytest
import torch

from benchmarks.measure import Figure, goals
from benchmarks.step import StepSettings, arithmetic, prepared_steps, repeated_passes


def test_arithmetic_per_second() -> None:
    """ResNet-50 at 224 pixels: 8.18 GFLOP a forward, eight of which make a step's passes."""
    settings = StepSettings(device="cuda", arch="resnet50", stem="standard", image_size=224)
    speed = Figure(what="RSA, captured", value=1000.0, unit="images/s")
    (figure,) = arithmetic(settings, [speed])
    assert (figure.what, figure.unit) == ("RSA, captured", "TFLOP/s")
    assert figure.value == pytest.approx(1000 * 8 * 8.18e9 / 1e12, rel=1e-3)
    assert arithmetic(StepSettings(), [speed]) == []


def test_a_gpu_has_other_defaults() -> None:
    """Those of the paper, with enough steps in a run; what is stated stays."""
    settings = StepSettings(device="cuda", stem="standard")
    assert (settings.steps_per_run, settings.batch_size, settings.precision) == (20, 256, "bf16")
    assert settings.modes == ("eager", "captured")
    assert settings.stem == "standard"
    assert StepSettings().steps_per_run == 1


@pytest.mark.parametrize(("card", "found"), [("NVIDIA H100 80GB HBM3", [1600.0]), ("Another", [])])
def test_speeds_have_a_goal_on_one_card(
    monkeypatch: pytest.MonkeyPatch, card: str, found: list[float]
) -> None:
    """Of ResNet-50 at 224 pixels an H100 should make 1,600 images a second."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: card)
    speed = Figure(what="RSA, captured", value=1590.0, unit="images/s")
    limits = {"RSA, captured": 1600.0, "RSA, compiled": 2000.0}
    assert [finding.limit for finding in goals([speed], limits, "cuda")] == found
    assert goals([speed], limits, "cpu") == []


def test_steps_train_and_bare_passes_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both send as many views through as many networks; only the steps change weights."""
    first_layers: list[torch.Tensor] = []
    forward = torch.nn.Conv2d.forward

    def noted(layer: torch.nn.Conv2d, maps: torch.Tensor) -> torch.Tensor:
        if layer.in_channels == 3:
            first_layers.append(layer.weight)
        return forward(layer, maps)

    monkeypatch.setattr(torch.nn.Conv2d, "forward", noted)
    settings = StepSettings(image_size=8, batch_size=2, steps_per_run=2)
    for run, trains in (
        (prepared_steps(settings, "RSA", "eager"), True),
        (repeated_passes(settings, "eager"), False),
    ):
        first_layers.clear()
        run()
        assert len(first_layers) == 2 * 4
        before = first_layers[0].detach().clone()
        run()
        assert torch.equal(before, first_layers[0]) is not trains
