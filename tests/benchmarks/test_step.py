import pytest
import torch

from benchmarks.gpu_peaks import matrix_peak
from benchmarks.step import StepSettings, prepared_passes, prepared_steps, share_of_peak


def test_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNet-50 at 224 pixels: 8.18 GFLOP a forward, eight of which make a step's passes."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA A100-SXM4-80GB")
    settings = StepSettings(
        device="cuda",
        arch="resnet50",
        image_size=224,
        batch_size=100,
        steps_per_run=3,
        precision="bf16",
    )
    (figure,) = share_of_peak(settings, [1.0, 2.0, 9.0])
    assert figure.value == pytest.approx(100 * 3 * 100 * 8 * 8.18e9 / 2.0 / 312e12, rel=1e-3)


def test_an_unknown_gpu_has_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is stated of it, nor of a CPU."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Another")
    assert matrix_peak("Another", "fp32") is None
    assert share_of_peak(StepSettings(device="cuda"), [1.0]) == []
    assert share_of_peak(StepSettings(), [1.0]) == []


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
        (prepared_steps(settings, "RSA"), True),
        (prepared_passes(settings), False),
    ):
        first_layers.clear()
        run()
        assert len(first_layers) == 2 * 4
        before = first_layers[0].detach().clone()
        run()
        assert torch.equal(before, first_layers[0]) is not trains
