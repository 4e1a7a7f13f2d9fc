from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import probe_heads, probe_modes, probe_views
from benchmarks.probe_task import ProbeTask, ProbeTaskSettings
from rsa_eval.evaluators.shared.metrics import Answers
from rsa_pretrain.plumbing.errors import UserError


@pytest.fixture
def task_of_noise(tmp_path: Path) -> Callable[..., object]:
    """A stand-in for ``probe_task``: 20 training and 10 test images of noise in two classes."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 5)):
        for name in ("a", "b"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")

    @contextmanager
    def lay_out(settings: ProbeTaskSettings) -> Iterator[ProbeTask]:
        yield ProbeTask(settings, tmp_path)

    return lay_out


def test_the_modes_are_compared_on_equal_terms(
    task_of_noise: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are timed, and without augmentation both come to the same accuracy."""
    monkeypatch.setattr(probe_modes, "probe_task", task_of_noise)
    measured = probe_modes.measure(probe_modes.ProbeModesSettings(epochs=3))
    speed, difference = measured.findings
    assert "3 epochs" in speed.what
    (online,), (cached,) = measured.seconds["online"], measured.seconds["cached"]
    assert speed.value == pytest.approx(online / cached)
    assert difference.value == 0


def test_a_difference_in_accuracy_is_found(
    task_of_noise: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of ten test images more in one mode are twenty points."""
    monkeypatch.setattr(probe_modes, "probe_task", task_of_noise)
    right = iter([5, 5, 5, 7])  # online and cached, untimed and timed

    def answers(*_: object) -> Answers:
        ranks = (np.arange(10) >= next(right)).astype(np.int32)
        return Answers(ranks, ranks)

    monkeypatch.setattr("rsa_eval.evaluators.linear.choice.Probe.test", answers)
    measured = probe_modes.measure(probe_modes.ProbeModesSettings(epochs=1))
    assert measured.findings[1].value == pytest.approx(20)
    assert not measured.findings[1].met


def test_heads_are_compared_in_both_modes(
    task_of_noise: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirteen heads and one are timed online, cached and without a backbone."""
    monkeypatch.setattr(probe_heads, "probe_task", task_of_noise)
    settings = probe_heads.ProbeHeadsSettings(epochs=1, repeats=1, num_steps=2)
    measured = probe_heads.measure(settings)
    assert [finding.limit for finding in measured.findings] == [0.5, 2, 2]
    assert len(measured.seconds) == 6
    assert all(len(runs) == 1 for runs in measured.seconds.values())


@pytest.mark.usefixtures("narrow_resnets")
def test_views_are_compared_alone_and_in_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way of making them is timed, and given as images per second."""
    monkeypatch.delenv("RSA_DATA", raising=False)
    measured = probe_views.measure(probe_views.ProbeViewsSettings(num_images=10, repeats=1))
    assert list(measured.seconds) == [
        f"{what}, {way}" for what in ("views", "epoch") for way in ("pillow", "batched")
    ]
    pillow, batched = (measured.seconds[f"views, {way}"][0] for way in ("pillow", "batched"))
    assert measured.findings[0].value == pytest.approx(pillow / batched)
    assert measured.figures[3].value == pytest.approx(10 / measured.seconds["epoch, batched"][0])


def test_without_images_it_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """RSA_DATA is named before anything is timed."""
    monkeypatch.setenv("RSA_DATA", str(tmp_path))
    with pytest.raises(UserError, match="RSA_DATA should name a folder"):
        probe_modes.measure(probe_modes.ProbeModesSettings())
