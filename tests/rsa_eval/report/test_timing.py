from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.report.inputs import collect
from rsa_eval.report.timing import Timing, published_ratio, time_runs

WriteLog = Callable[..., None]
RSA, BYOL = "cifar100/rsa", "cifar100/byol"


def _lines(*rates: float) -> list[dict[str, Any]]:
    """Four steps an epoch, one line every two steps."""
    return [
        {"step": 2 * n, "epoch": n / 2, "loss": 1.0, "images_per_second": rate}
        for n, rate in enumerate(rates, start=1)
    ]


def _timed(folder: Path) -> dict[str, Timing]:
    return {timing.name: timing for timing in time_runs(collect([folder]).runs)}


def test_seconds_are_summed_over_the_log(tmp_path: Path, write_log: WriteLog) -> None:
    """Two steps of 256 at 256 images/s and two at 128 take 2 + 4 s: an epoch of 6 s."""
    write_log(tmp_path / "run", RSA, lines=_lines(256.0, 128.0))
    timing = _timed(tmp_path)["run"]
    assert timing.seconds_per_epoch == pytest.approx(6)
    assert timing.images_per_second == pytest.approx(4 * 256 / 6)
    assert timing.hours == pytest.approx(6 / 3600)
    assert timing.epochs == 1
    assert timing.machine == ""
    assert timing.relative is None
    assert timing.published == pytest.approx(11.5 / 11.3)


def test_relative_to_the_mean_of_byol_on_the_same_machine(
    tmp_path: Path, write_log: WriteLog
) -> None:
    """BYOL takes 4 s an epoch, RSA 5 s; a GPU's BYOL is no reference for a CPU's RSA."""
    write_log(tmp_path / "byol", BYOL, lines=_lines(256.0, 256.0), machines=("A",))
    write_log(tmp_path / "rsa", RSA, "seed=3", lines=_lines(204.8, 204.8), machines=("A",))
    write_log(tmp_path / "other", RSA, lines=_lines(1000.0, 1000.0), machines=("B",))
    timed = _timed(tmp_path)
    assert timed["byol"].relative == pytest.approx(1)
    assert timed["rsa"].relative == pytest.approx(1.25)
    assert timed["other"].relative is None


@pytest.mark.parametrize(
    ("words", "machines"),
    [
        (["data.num_workers=1"], ("A",)),
        (["training.global_batch_size=128"], ("A",)),
        (["training.precision=bf16"], ("A",)),
        ([], ("A", "B")),
        ([], ()),
    ],
)
def test_unlike_runs_are_not_compared(
    tmp_path: Path, write_log: WriteLog, words: list[str], machines: tuple[str, ...]
) -> None:
    """Another loader, batch, precision, or a machine that changed or is unknown."""
    write_log(tmp_path / "byol", BYOL, lines=_lines(256.0, 256.0), machines=("A",))
    write_log(tmp_path / "rsa", RSA, *words, lines=_lines(200.0, 200.0), machines=machines)
    assert _timed(tmp_path)["rsa"].relative is None


@pytest.mark.parametrize(("root", "is_equal"), [("/scratch/land", True), ("data/cats", False)])
def test_folders_of_other_images_are_not_compared(
    tmp_path: Path, write_log: WriteLog, root: str, is_equal: bool
) -> None:
    """All are called imagefolder; one folder may be stored in two places."""
    for method, place in (("byol", "data/land"), ("rsa", root)):
        words = ["data.name=imagefolder", f"data.root={place}"]
        lines = _lines(200.0, 200.0)
        write_log(tmp_path / method, f"cifar10/{method}", *words, lines=lines, machines=("A",))
    assert (_timed(tmp_path)["rsa"].relative is not None) == is_equal


def test_logs_that_tell_no_rate_are_left_out(tmp_path: Path, write_log: WriteLog) -> None:
    """An empty log, one without rates and one of another kind of run have no time."""
    write_log(tmp_path / "empty", RSA, lines=[])
    write_log(tmp_path / "plain", RSA)
    write_log(tmp_path / "detection", lines=_lines(256.0))
    assert _timed(tmp_path) == {}


def test_published_ratios() -> None:
    """Table 7: 79.6 over 77.6 hours on STL-10; nothing for other methods or sets."""
    assert published_ratio("rsa", "stl10") == pytest.approx(79.6 / 77.6)
    assert published_ratio("byol", "imagenet100") == 1
    assert published_ratio("simclr", "stl10") is None
    assert published_ratio("rsa", "cifar10") is None


def test_the_steps_of_an_extended_run_are_not_counted_again(
    tmp_path: Path, write_log: WriteLog, extending: Callable[..., list[str]]
) -> None:
    """From step 4 on, two steps at 256 images/s take 2 s: half an epoch, at BYOL's pace."""
    write_log(tmp_path / "byol", BYOL, lines=_lines(256.0, 256.0), machines=("A",))
    lines = _lines(1.0, 1.0, 256.0)[2:]
    write_log(tmp_path / "long", RSA, *extending(400, step=4), lines=lines, machines=("A",))
    timing = _timed(tmp_path)["long"]
    assert timing.hours == pytest.approx(2 / 3600)
    assert timing.epochs == pytest.approx(0.5)
    assert timing.seconds_per_epoch == pytest.approx(4)
    assert timing.relative == pytest.approx(1)
