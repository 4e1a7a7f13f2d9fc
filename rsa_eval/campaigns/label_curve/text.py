"""Describe label curves: tables, quotable sentences, and all numbers as JSON."""

import json
import math
from collections.abc import Sequence
from typing import Any

from rsa_eval.campaigns.label_curve.plan import CurveModel, CurveSize
from rsa_eval.campaigns.label_curve.results import CurvePoint, LabelCurves, LabelSaving, ModelCurve
from rsa_eval.config import RandomBackboneConfig
from rsa_eval.statistics.intervals import Interval
from rsa_pretrain.plumbing.text_table import NOTHING, TableFormat, escape_markdown, render_table

_QUOTED = 10  # Labels per class of the sentences, or the nearest measured number.

_BASELINES = {"random": "random weights", "supervised": "training from scratch"}


def model_name(model: CurveModel) -> str:
    """Return the model's name in tables and plots."""
    return model.trial.label


def curve_table(curves: LabelCurves, table_format: TableFormat = "text") -> str:
    """Format top-1 in percent with its interval: a row per model, a column per size."""
    sizes = curves.plan.sizes
    rows = []
    for curve in curves.curves:
        cells = {point.size: _cell(point) for point in curve.points}
        rows.append([model_name(curve.model), *(cells.get(size, NOTHING) for size in sizes)])
    columns = [size.name for size in sizes]
    return render_table(["top1 (%) by labels per class", *columns], rows, table_format, columns)


def savings_table(curves: LabelCurves, table_format: TableFormat = "text") -> str | None:
    """Format the labels that baselines need; None if there is nothing to compare."""
    if not curves.savings:
        return None
    sizes = curves.plan.sizes
    cells: dict[tuple[str, str], dict[CurveSize, str]] = {}
    for saving in curves.savings:
        pair = model_name(saving.checkpoint), model_name(saving.baseline)
        cells.setdefault(pair, {})[saving.point.size] = needed_text(saving)
    rows = [
        [f"{baseline} for {checkpoint}", *(own.get(size, NOTHING) for size in sizes)]
        for (checkpoint, baseline), own in cells.items()
    ]
    columns = [size.name for size in sizes]
    head = "labels per class needed by"
    return render_table([head, *columns], rows, table_format, columns)


def interval_note(curves: LabelCurves) -> str:
    """Say what the intervals cover."""
    draws = max(size.num_draws for size in curves.plan.sizes)
    text = f"95 % intervals over {curves.num_images} test images"
    drawn = f" and {draws} draws of the labels together" if draws > 1 else ""
    single = "; all labels, a single draw: over images" if draws > 1 and _has_all(curves) else ""
    return f"{text}{drawn}{single}; not over pretraining seeds"


def sentences(curves: LabelCurves) -> list[str]:
    """Return one sentence per checkpoint and baseline, with the measured number nearest to 10."""
    found: dict[tuple[str, str], list[LabelSaving]] = {}
    for saving in curves.savings:
        pair = saving.checkpoint.trial.name, saving.baseline.trial.name
        found.setdefault(pair, []).append(saving)
    return [sentence(min(several, key=_distance)) for several in found.values()]


def sentence(saving: LabelSaving) -> str:
    """Return the comparison in words, with the ratio of labels if it is distinguishable from 1."""
    point, checkpoint = saving.point, model_name(saving.checkpoint)
    count = _number(point.size.labels_per_class)
    unit = "label" if count == "1" else "labels"
    reached = (
        f"With {'all ' if point.size.is_all else ''}{count} {unit} per class, {checkpoint} reaches "
        f"{point.top1:.1f} % ({point.interval.low:.1f} to {point.interval.high:.1f})"
    )
    who = _BASELINES[saving.baseline.kind]
    verb = "need" if saving.baseline.kind == "random" else "needs"
    number = needed_text(saving).replace("> ", "more than ").replace("< ", "fewer than ")
    needs = f"{who} {verb} {number} labels per class for that"
    if saving.is_shown and saving.needed.labels == math.inf and _most_ratio(saving) <= 1:
        end = ""  # more than the most that was measured, which the checkpoint had, too
    elif saving.is_shown:
        end = f": {_times(saving)} as many"
    elif saving.is_reversed:
        end = ": fewer, so pretraining did not pay"
    else:
        end = ": no saving shown"
    return f"{reached}; {needs}{end}."


def needed_text(saving: LabelSaving) -> str:
    """Return the labels that the baseline needs as ``38 (25 to 60)``; open ends as ``> 100``."""
    interval = saving.needed.interval
    value, low, high = (
        _open(number, saving) for number in (saving.needed.labels, interval.low, interval.high)
    )
    if saving.needed.labels == math.inf and interval.low >= saving.most.labels_per_class:
        return value
    if saving.needed.labels == 0 and interval.high <= saving.least.labels_per_class:
        return value
    return f"{value} ({low} to {high})"


def as_markdown(curves: LabelCurves, picture: str) -> str:
    """Return tables, sentences and plot as a page of Markdown."""
    tables = [curve_table(curves, "markdown"), savings_table(curves, "markdown")]
    lines = [*sentences(curves), interval_note(curves), *left_out_lines(curves)]
    parts = [*(table for table in tables if table), *map(escape_markdown, lines)]
    return "\n\n".join([*parts, f"![accuracy against labels per class]({picture})"]) + "\n"


def left_out_lines(curves: LabelCurves) -> list[str]:
    """Return a line for the requested numbers of labels that the images do not allow."""
    return [f"left out: {line}" for line in curves.plan.left_out]


def as_json(curves: LabelCurves) -> str:
    """Return all numbers as JSON; an open number of labels is null, its text says which way."""
    tree = {
        "intervals": interval_note(curves),
        "num_test_images": curves.num_images,
        "left_out": list(curves.plan.left_out),
        "models": [_curve_tree(curve) for curve in curves.curves],
        "labels_needed": [_saving_tree(saving) for saving in curves.savings],
        "summary": sentences(curves),
    }
    return json.dumps(tree, indent=2, allow_nan=False) + "\n"


def _cell(point: CurvePoint) -> str:
    return f"{point.top1:.1f} [{point.interval.low:.1f}, {point.interval.high:.1f}]"


def _has_all(curves: LabelCurves) -> bool:
    return any(size.is_all for size in curves.plan.sizes)


def _distance(saving: LabelSaving) -> float:
    return abs(math.log(saving.point.size.labels_per_class / _QUOTED))


def _times(saving: LabelSaving) -> str:
    """Return the ratio of labels as ``3.8 times (2.5 to 6.0)``."""
    own, most = saving.point.size.labels_per_class, _most_ratio(saving)
    low, high = saving.needed.interval.low / own, saving.needed.interval.high / own
    if saving.needed.labels == math.inf:
        least = "" if low >= most else f" (at least {_ratio(low)})"
        return f"more than {_ratio(most)} times{least}"
    end = f"{_ratio(low)} or more" if high == math.inf else f"{_ratio(low)} to {_ratio(high)}"
    return f"{_ratio(saving.needed.labels / own)} times ({end})"


def _most_ratio(saving: LabelSaving) -> float:
    """Return the most labels that the baseline had, divided by the checkpoint's."""
    return saving.most.labels_per_class / saving.point.size.labels_per_class


def _open(number: float, saving: LabelSaving) -> str:
    if number == math.inf:
        return f"> {_number(saving.most.labels_per_class)}"
    return f"< {_number(saving.least.labels_per_class)}" if number == 0 else _number(number)


def _number(count: float) -> str:
    """Round to a tenth below 10; whole numbers have no decimals."""
    return f"{count:.1f}".removesuffix(".0") if count < 10 else f"{count:.0f}"


def _ratio(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}"


def _interval_tree(interval: Interval) -> dict[str, float | None]:
    low = interval.low if interval.low > 0 else None
    return {"low": low, "high": interval.high if math.isfinite(interval.high) else None}


def _curve_tree(curve: ModelCurve) -> dict[str, Any]:
    model = curve.model
    return {
        "name": model_name(model),
        "kind": model.kind,
        "sha256": model.trial.sha256,
        "backbone": _network_tree(model),
        "records": f"{model.trial.folder.name}/records",
        "top1": [_point_tree(point) for point in curve.points],
    }


def _network_tree(model: CurveModel) -> dict[str, str | None]:
    if isinstance(model.network, RandomBackboneConfig):
        return {"arch": model.network.name, "stem": model.network.stem}
    return {"network": model.trial.other_network}


def _point_tree(point: CurvePoint) -> dict[str, Any]:
    return {
        "labels_per_class": point.size.labels_per_class,
        "all_labels": point.size.is_all,
        "num_labels": point.size.num_images,
        "top1": point.top1,
        "low": point.interval.low,
        "high": point.interval.high,
        "draws": list(point.by_draw),
    }


def _saving_tree(saving: LabelSaving) -> dict[str, Any]:
    needed = saving.needed.labels
    return {
        "checkpoint": model_name(saving.checkpoint),
        "baseline": model_name(saving.baseline),
        "labels_per_class": saving.point.size.labels_per_class,
        "needed": needed if 0 < needed < math.inf else None,
        **_interval_tree(saving.needed.interval),
        "text": needed_text(saving),
        "saving_shown": saving.is_shown,
    }


def result_lines(curves: LabelCurves) -> Sequence[str]:
    """Return all that the command prints of the curves."""
    table = savings_table(curves)
    return [
        curve_table(curves),
        *([] if table is None else [table]),
        interval_note(curves),
        *left_out_lines(curves),
        *sentences(curves),
    ]
