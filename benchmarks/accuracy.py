"""Train RSA and BYOL for equally many epochs, and compare their accuracy.

The number of epochs follows from the measured speed and the time that there is, so the result is a
study of that many epochs and no row of the paper's tables. Runs and records are kept.
"""

import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from benchmarks.images import CIFAR_BATCHES, unpack_cifar
from benchmarks.measure import Benchmark, BenchmarkSettings, Figure, Measurement
from rsa_eval.__main__ import main as evaluate
from rsa_eval.campaigns.settings import SuiteConfig
from rsa_eval.records.record import read_record
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import load_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.machines import MACHINES_FILE
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE, read_metrics
from rsa_pretrain.training.pretraining import pretrain

_METHODS = {"rsa": "RSA", "byol": "BYOL"}
_FIRST, _DIAGNOSTICS = "knn", "diagnostics"
# Of the time for training; the rest is for its start, checkpoints and slower stretches.
_SPENT = 0.9


class AccuracySettings(BenchmarkSettings):
    """The paper's recipes on CIFAR-10, with another number of epochs."""

    on_gpu: ClassVar[dict[str, Any]] = {"precision": "bf16"}

    data_root: Path | None = None
    """Folder with cifar-10-batches-py, compressed batches among it; null: the recipe's."""
    out: Path = Path("runs/accuracy")
    """Receives a new folder with both runs and the evaluations."""
    minutes: Annotated[float, Field(gt=0)] = 10.0
    """Time for everything."""
    evaluation_minutes: Annotated[float, Field(ge=0)] = 1.0
    """Time of it that is left for evaluating each method."""
    max_epochs: Annotated[int, Field(ge=1)] = 200
    """Epochs, if the time allows more."""
    num_timed_images: Annotated[int, Field(ge=2)] = 25_600
    """Training images of the epoch by which the speed is measured."""
    precision: str = "fp32"
    """Autocast type of the forward passes."""
    suite: str = "cifar10_quick"
    """Evaluations, without diagnostics."""
    changes: tuple[str, ...] = ()
    """Further settings of both runs, as key=value."""
    suite_changes: tuple[str, ...] = ()
    """Further settings of the suite, as key=value."""


def measure(settings: AccuracySettings) -> Measurement:
    """Measure the speed, plan, train and evaluate.

    Raises:
        UserError: If there are no images, or the time is too short for an epoch of both methods.
    """
    end = time.monotonic() + 60 * settings.minutes
    out = settings.out / time.strftime("%Y%m%d-%H%M%S")
    with _unpacked(settings.data_root) as root:
        rate, num_images = _speed(settings, root)
        left = end - time.monotonic() - 2 * 60 * settings.evaluation_minutes
        epochs = planned_epochs(rate, num_images, left, settings.max_epochs)
        seconds = {}
        for method, name in _METHODS.items():
            started = time.monotonic()
            _train(_run(settings, root, method, out / method, epochs))
            seconds[name] = [time.monotonic() - started]
        _evaluate(settings, root, out, end)
    figures = [
        Figure(what="epochs of each method", value=epochs, unit="epochs"),
        Figure(what="speed by which they were planned", value=rate, unit="images/s"),
        *(
            Figure(
                what=f"{name}: the whole training",
                value=epochs * num_images / took,
                unit="images/s",
            )
            for name, (took,) in seconds.items()
        ),
        *_accuracies(out),
    ]
    return Measurement([], seconds, figures, {"runs and records": str(out)} | _steps(out))


def planned_epochs(rate: float, num_images: int, seconds: float, most: int) -> int:
    """Return how many epochs both methods can be trained for.

    Args:
        rate: Images per second.
        num_images: Images of an epoch.
        seconds: Time for both methods together.
        most: Upper limit.

    Raises:
        UserError: If not one epoch fits.
    """
    epochs = math.floor(_SPENT * seconds * rate / (len(_METHODS) * num_images))
    if epochs < 1:
        raise UserError(
            f"{seconds:.0f} s are too short for an epoch of both methods at {rate:.0f} images/s; "
            "raise minutes"
        )
    return min(epochs, most)


def _speed(settings: AccuracySettings, root: Path | None) -> tuple[float, int]:
    """Train RSA for an epoch of some images; return images per second, and those of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        whole = _run(settings, root, "rsa", Path(folder, "run"), 1)
        batch_size = whole.training.global_batch_size
        wanted = len(open_images(whole.data, "pretrain"))
        few = min(wanted, settings.num_timed_images)
        steps = few // batch_size
        timed = _run(
            settings,
            root,
            "rsa",
            Path(folder, "run"),
            1,
            f"data.num_train_images={few}",
            f"monitor.log_every_steps={max(1, steps // 2)}",
        )
        _train(timed)
        rate = read_metrics(timed.output_dir / METRICS_FILE)[-1]["images_per_second"]
    return rate, wanted // batch_size * batch_size


def _run(
    settings: AccuracySettings,
    root: Path | None,
    method: str,
    folder: Path,
    epochs: int,
    *more: str,
) -> PretrainConfig:
    changes = {
        "seed": settings.seed,
        "output_dir": str(folder),
        "views.implementation": "batched",
        "training.device": settings.device,
        "training.precision": settings.precision,
        "training.epochs": epochs,
        "training.checkpoint_every_epochs": epochs,
    }
    if root is not None:
        changes["data.root"] = str(root)
    words = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return load_config(PretrainConfig, f"cifar10/{method}", [*words, *settings.changes, *more])


def _train(run: PretrainConfig) -> None:
    code = pretrain(run)
    if code != 0:
        raise UserError(f"the training in '{run.output_dir}' was stopped")


def _evaluate(settings: AccuracySettings, root: Path | None, out: Path, end: float) -> None:
    """Evaluate both methods, first by nearest neighbours, which take the least time."""
    names = load_config(SuiteConfig, settings.suite, settings.suite_changes).evaluations
    slow = [f"evaluations.{name}=null" for name in names if name != _FIRST]
    for dropped in (slow, [f"evaluations.{_DIAGNOSTICS}=null"]):
        words = ["suite", *(str(out / method) for method in _METHODS), "--suite", settings.suite]
        words += ["--out", str(out / "evaluation"), f"device={settings.device}"]
        words += [] if root is None else [f"data.root={root}"]
        minutes = max((end - time.monotonic()) / 60, 0.01)
        evaluate([*words, "--budget-minutes", f"{minutes:.2f}", *settings.suite_changes, *dropped])


def _accuracies(out: Path) -> list[Figure]:
    """Return the headline of each record, and RSA's lead."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted((out / "evaluation").glob("*/records/*.json")):
        record = read_record(path)
        method = path.parents[1].name.partition("-")[0]
        found.setdefault(path.stem, {})[method] = record.metrics[record.headline].value
    figures = []
    for evaluation, values in found.items():
        figures += [
            Figure(what=f"{name}: {evaluation}", value=values[method], unit="%")
            for method, name in _METHODS.items()
            if method in values
        ]
        if len(values) == len(_METHODS):
            lead = values["rsa"] - values["byol"]
            figures.append(Figure(what=f"RSA - BYOL: {evaluation}", value=lead, unit="points"))
    return figures


def _steps(out: Path) -> dict[str, str]:
    """Return how the steps were run, as the runs state it."""
    facts = {}
    for method, name in _METHODS.items():
        machines = json.loads((out / method / MACHINES_FILE).read_text(encoding="utf-8"))
        facts[f"{name}'s steps"] = str(machines[-1].get("steps"))
    return facts


@contextmanager
def _unpacked(root: Path | None) -> Iterator[Path | None]:
    """Yield a folder with CIFAR-10's batches as they were published."""
    if root is None or not list(Path(root, CIFAR_BATCHES).glob("*.xz")):
        yield root
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack_cifar(root / CIFAR_BATCHES, Path(folder, CIFAR_BATCHES))
        yield Path(folder)


BENCHMARK = Benchmark(
    settings=AccuracySettings,
    measure=measure,
    summary="RSA compared with BYOL after equally many epochs on CIFAR-10.",
)
