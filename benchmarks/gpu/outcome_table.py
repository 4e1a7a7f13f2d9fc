"""Show the outcomes of a GPU's time as a table."""

from collections.abc import Mapping, Sequence

from benchmarks.card import BF16_PRODUCT
from benchmarks.gpu.items import Item
from benchmarks.gpu.outcome import Outcome
from benchmarks.measure import Result
from rsa_pretrain.plumbing.text_table import TableFormat, render_table

_COLUMNS = ("item", "what", "measured", "required", "verdict")


def outcome_table(
    items: Sequence[Item], outcomes: Mapping[str, Outcome], table_format: TableFormat = "text"
) -> str:
    """Return every number of every item, and why there are none.

    Operations per second are also stated as a share of the product of bf16 matrices that was
    measured in the same run.
    """
    ceiling = _ceiling(outcomes)
    rows: list[list[object]] = []
    for item in items:
        outcome = outcomes.get(item.name)
        if outcome is None:
            rows.append([item.name, "", "not yet measured", "", ""])
        elif outcome.result is None:
            rows.append([item.name, outcome.reason, "", "", outcome.state])
        else:
            rows.append([item.name, "time, its start included", f"{outcome.seconds:.0f} s", "", ""])
            rows += _rows_of(item.name, outcome.result, ceiling)
    return render_table(_COLUMNS, rows, table_format, ("measured", "required"))


def outcome_page(items: Sequence[Item], outcomes: Mapping[str, Outcome]) -> str:
    """Return the table as a Markdown page that names machine, versions and dates."""
    results = [outcome.result for outcome in outcomes.values() if outcome.result is not None]
    described = sorted({f"{result.hardware}, torch {_torch(result)}" for result in results})
    dates = sorted(outcome.created[:10] for outcome in outcomes.values())
    when = " to ".join(sorted({dates[0], dates[-1]})) if dates else "not yet"
    lines = ["# A GPU's time", f"{'; '.join(described) or 'Nothing measured'}; {when}."]
    lines.append(outcome_table(items, outcomes, "markdown"))
    lines += [f"    {' '.join(result.command)}" for result in results]
    return "\n\n".join(lines) + "\n"


def _rows_of(item: str, result: Result, ceiling: float | None) -> list[list[object]]:
    rows: list[list[object]] = [
        [
            item,
            finding.what,
            f"{finding.value:.4g} {finding.unit}",
            f"{finding.bound} {finding.limit:g}",
            "met" if finding.met else "missed",
        ]
        for finding in result.findings
    ]
    for figure in result.figures:
        value = f"{figure.value:.4g} {figure.unit}"
        if figure.unit == "TFLOP/s" and ceiling and result.benchmark != "card":
            value += f", {figure.value / ceiling:.0%} of the bf16 product"
        rows.append([item, figure.what, value, "", "recorded"])
    rows += [[item, name, text, "", "recorded"] for name, text in result.facts.items()]
    return rows


def _ceiling(outcomes: Mapping[str, Outcome]) -> float | None:
    """Return the TFLOP/s of the product of bf16 matrices, if it was measured."""
    card = outcomes.get("card")
    figures = card.result.figures if card is not None and card.result is not None else []
    return next((figure.value for figure in figures if figure.what == BF16_PRODUCT), None)


def _torch(result: Result) -> str:
    return result.library_versions["torch"]
