"""What a sweep found: mean ± standard deviation per cell, as data, as a table and as a picture."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rsa_pretrain.atomic_files import atomic_file, write_text
from rsa_pretrain.config_files import Section
from rsa_pretrain.sweep import Cell, Outcome, Sweep
from rsa_pretrain.text_table import render_table

SCHEMA_VERSION = 1


class RunSummary(Section):
    """One run."""

    seed: int
    folder: str
    """Below the sweep's folder."""
    metrics: dict[str, dict[str, float]]
    """By evaluator and metric, in percent; empty if the run failed."""
    failure: str | None
    """What went wrong."""


class Spread(Section):
    """One metric of one cell over its seeds."""

    evaluator: str
    metric: str
    mean: float
    """In percent."""
    std: float | None
    """Sample standard deviation (n - 1); null for a single run."""
    n: int
    """Runs counted; failed ones are left out."""


class CellSummary(Section):
    """One combination of swept values."""

    values: dict[str, Any]
    """By dotted key."""
    runs: tuple[RunSummary, ...]
    spreads: tuple[Spread, ...]
    """One per evaluator and metric, the headline of each evaluator first."""


class SweepSummary(Section):
    """A finished sweep."""

    schema_version: int
    keys: tuple[str, ...]
    """What was swept."""
    cells: tuple[CellSummary, ...]


def summarise(sweep: Sweep, outcome: Outcome) -> SweepSummary:
    """Gather the outcome of every run, cell by cell."""
    cells = tuple(_summarise_cell(cell, sweep, outcome) for cell in sweep.cells)
    return SweepSummary(schema_version=SCHEMA_VERSION, keys=sweep.keys, cells=cells)


def write_summary(summary: SweepSummary, path: Path) -> None:
    """Write a summary as JSON, atomically."""
    write_text(path, summary.model_dump_json(indent=2) + "\n")


def summary_table(summary: SweepSummary) -> str:
    """Return one line per cell and metric: mean ± std, n, and the number of every seed."""
    seeds = [run.seed for run in summary.cells[0].runs]
    columns = [*summary.keys, "metric", "mean ± std", "n", *(f"seed {seed}" for seed in seeds)]
    rows: list[list[Any]] = []
    for cell in summary.cells:
        values = [cell.values[key] for key in summary.keys]
        for spread in cell.spreads:
            each = [
                "failed" if run.failure else f"{run.metrics[spread.evaluator][spread.metric]:.2f}"
                for run in cell.runs
            ]
            metric = f"{spread.evaluator} {spread.metric} %"
            rows.append([*values, metric, _mean_and_std(spread), spread.n, *each])
        if not cell.spreads:
            rows.append([*values, None, None, 0, *("failed" for _ in seeds)])
    return render_table(columns, rows)


def is_plottable(summary: SweepSummary) -> bool:
    """Whether one numeric key was swept and any run gave a number."""
    values = [value for cell in summary.cells for value in cell.values.values()]
    numeric = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    return len(summary.keys) == 1 and numeric and any(cell.spreads for cell in summary.cells)


def draw_summary(summary: SweepSummary, path: Path) -> None:
    """Draw each evaluator's headline against the swept value, with error bars (paper, Fig. 3).

    Args:
        summary: A plottable one.
        path: PNG to write, atomically.
    """
    (key,) = summary.keys
    figure = Figure(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for (evaluator, metric), points in _curves(summary.cells, key).items():
        values, means, stds = zip(*sorted(points), strict=True)
        axes.errorbar(
            values, means, yerr=stds, marker="o", capsize=3, label=f"{evaluator} {metric}"
        )
    axes.set_xlabel(key)
    axes.set_ylabel("%")
    axes.legend()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


def _summarise_cell(cell: Cell, sweep: Sweep, outcome: Outcome) -> CellSummary:
    runs = tuple(
        RunSummary(
            seed=run.seed,
            folder=run.output_dir.relative_to(sweep.folder).as_posix(),
            metrics={
                evaluator: dict(metrics)
                for evaluator, metrics in outcome.metrics.get(run.output_dir, {}).items()
            },
            failure=outcome.failures.get(run.output_dir),
        )
        for run in cell.runs
    )
    finished = [run for run in runs if run.failure is None]
    spreads = tuple(
        _spread(evaluator, metric, [run.metrics[evaluator][metric] for run in finished])
        for evaluator, metrics in (finished[0].metrics.items() if finished else ())
        for metric in metrics
    )
    return CellSummary(values=dict(cell.values), runs=runs, spreads=spreads)


def _spread(evaluator: str, metric: str, numbers: Sequence[float]) -> Spread:
    return Spread(
        evaluator=evaluator,
        metric=metric,
        mean=statistics.fmean(numbers),
        std=statistics.stdev(numbers) if len(numbers) > 1 else None,
        n=len(numbers),
    )


def _mean_and_std(spread: Spread) -> str:
    return f"{spread.mean:.2f}" + ("" if spread.std is None else f" ± {spread.std:.2f}")


def _curves(
    cells: Sequence[CellSummary], key: str
) -> dict[tuple[str, str], list[tuple[float, float, float]]]:
    """Return (value, mean, std) of each evaluator's first metric; a single run has std 0."""
    curves: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for cell in cells:
        headlines: dict[str, Spread] = {}
        for spread in cell.spreads:
            headlines.setdefault(spread.evaluator, spread)
        for spread in headlines.values():
            point = (cell.values[key], spread.mean, spread.std or 0.0)
            curves.setdefault((spread.evaluator, spread.metric), []).append(point)
    return curves
