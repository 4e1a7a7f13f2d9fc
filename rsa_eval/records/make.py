"""Make a record of a result: add intervals, provenance and the file of its predictions."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rsa_eval.records.predictions import file_of
from rsa_eval.records.record import (
    GIVEN_FEATURES,
    SCHEMA_VERSION,
    Kind,
    Metric,
    MetricInterval,
    Model,
    Record,
    Result,
    write_record,
)
from rsa_pretrain.plumbing.config.files import Section, to_tree
from rsa_pretrain.plumbing.distributed import is_main
from rsa_pretrain.plumbing.user_paths import as_text
from rsa_pretrain.plumbing.versions import installed_versions
from rsa_pretrain.weights.metadata import library_versions


def save_record(
    result: Result,
    path: Path,
    *,
    kind: Kind,
    protocol: str,
    data_set: str,
    model: Model,
    config: Section,
    seed: int,
    hardware: str,
    seconds: float,
) -> Record:
    """Write a result as a record, with intervals, settings, code, library and machine details.

    The main process writes it, after the file of its predictions; every process receives it.
    """
    predictions, content = None, None
    if result.predictions is not None:
        predictions, content = file_of(result.test_keys, result.predictions, path)
    commit, dirty = _git_state()
    record = Record(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        protocol=protocol,
        deviations=result.deviations,
        metrics=_with_intervals(result),
        headline=result.headline,
        num_samples=result.num_samples,
        data_set=data_set,
        model=model,
        config=to_tree(config),
        seeds=[seed],
        details=result.details,
        artifacts=result.artifacts,
        command=[*_program(), *map(as_text, sys.argv[1:])],
        git_commit=commit,
        git_dirty=dirty,
        library_versions=library_versions()
        | {"python": platform.python_version()}
        | installed_versions("pycocotools", "faster-coco-eval", *_libraries(model)),
        hardware=hardware,
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        predictions=predictions,
    )
    if is_main():
        write_record(record, path, content)
    return record


def _libraries(model: Model) -> tuple[str, ...]:
    """Return the packages that another library's network may come from."""
    return () if model.other_network in (None, GIVEN_FEATURES) else ("timm", "transformers")


def _with_intervals(result: Result) -> dict[str, Metric]:
    """Return the metrics with their intervals over images, where these are defined."""
    metrics = dict(result.metrics)
    for name, metric in result.metrics.items():
        found = None if result.predictions is None else result.predictions.interval(name)
        if found is not None:
            interval = MetricInterval(low=found[0].low, high=found[0].high, method=found[1])
            metrics[name] = metric.model_copy(update={"interval": interval})
    return metrics


def _program() -> list[str]:
    """Return the command that started this process, without the program's folder."""
    path = Path(sys.argv[0])
    return ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name]


def _git_state() -> tuple[str | None, bool | None]:
    """Return the commit of the checkout this code runs from, and whether it has changes."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.CalledProcessError):
        return None, None
