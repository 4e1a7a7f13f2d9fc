"""Write a report of records and runs as a self-contained HTML page, and its tables as text."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from rsa_eval.records.groups import group_records
from rsa_eval.report.comparison import compare_runs
from rsa_eval.report.csv_file import render_csv
from rsa_eval.report.curves import draw_curves
from rsa_eval.report.escaping import escape_latex
from rsa_eval.report.inputs import Inputs, TrainingRun, collect
from rsa_eval.report.learning import describe_learning
from rsa_eval.report.matrix import MATRIX_CAPTION, build_matrix
from rsa_eval.report.paper_tables import build_paper_tables
from rsa_eval.report.record_pages import describe_record, galleries_by_table, list_environments
from rsa_eval.report.results_page import render_page
from rsa_eval.report.summary import describe_coverage, describe_extent, find_best
from rsa_eval.report.sweeps import find_sweeps
from rsa_eval.report.tables import build_tables
from rsa_eval.report.timing import time_runs
from rsa_eval.report.transfer import TRANSFER_CAPTION
from rsa_eval.report.transfer_rows import find_transfers
from rsa_pretrain.plumbing.atomic_files import write_text
from rsa_pretrain.plumbing.versions import VERSION

_TEMPLATES = ("rsa_eval.report", "templates")


def write_report(
    paths: Sequence[Path],
    html: Path | None,
    markdown: Path | None = None,
    notes: Path | None = None,
) -> list[str]:
    """Write an HTML page with its tables as ``.tex`` and ``.csv`` beside it, and a Markdown page.

    Every number comes from a record or a log; cells without one stay empty.

    Args:
        paths: Run folders, record files, or folders of either.
        html: HTML file; None writes only the Markdown.
        markdown: Markdown file; None puts it beside the HTML.
        notes: Prose for the Markdown; see ``render_page``.

    Returns:
        A description of each unreadable file; the pages include them too.

    Raises:
        UserError: If a path does not exist or contains nothing to report, or the notes lack a
            marker for the tables.
    """
    inputs = collect(paths)
    page = render_page(inputs, paths, notes)
    if html is not None:
        _write_html(inputs, html)
        markdown = markdown or html.with_suffix(".md")
    if markdown is not None:
        write_text(markdown, page)
    return inputs.unreadable


def _write_html(inputs: Inputs, out: Path) -> None:
    content = _gather(inputs)
    html = _environment(autoescape=True)
    write_text(out, html.get_template("page.html.jinja").render(content | _style_and_script()))
    latex = _environment(
        autoescape=False,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    latex.filters["latex"] = escape_latex
    write_text(out.with_suffix(".tex"), latex.get_template("tables.tex.jinja").render(content))
    write_text(out.with_suffix(".csv"), render_csv(content["tables"], content["paper"]))


def _gather(inputs: Inputs) -> dict[str, Any]:
    """Compute everything the page shows."""
    groups = group_records(inputs.records)
    tables, paper = build_tables(groups), build_paper_tables(groups)
    matrices = {table.anchor: build_matrix(table) for table in tables}
    return {
        "extent": describe_extent(tables, len(inputs.records), len(inputs.runs)),
        "coverage": describe_coverage(paper),
        "best": find_best(tables),
        "tables": tables,
        "transfers": find_transfers(tables),
        "transfer_caption": TRANSFER_CAPTION,
        "galleries": galleries_by_table(tables),
        "matrices": matrices,
        "learning": {
            table.anchor: describe_learning(table, matrices[table.anchor]) for table in tables
        },
        "matrix_caption": MATRIX_CAPTION,
        "paper": paper,
        "sweeps": find_sweeps(groups),
        "timings": time_runs(inputs.runs),
        "comparisons": compare_runs(inputs.runs),
        "runs": [_describe_run(run) for run in inputs.runs],
        "machines": list_environments([record for _, record in inputs.records]),
        "records": [describe_record(path, record) for path, record in inputs.records],
        "unreadable": inputs.unreadable,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": VERSION,
    }


def _describe_run(run: TrainingRun) -> dict[str, Any]:
    last = run.metrics[-1] if run.metrics else {}
    facts = {"last step": f"{last['step']}"} if last else {}
    if isinstance(last.get("epoch"), int | float):
        facts["epochs"] = f"{last['epoch']:.4g}"
    if run.machine:
        facts["on"] = run.machine
    return {
        "name": run.name,
        "folder": str(run.folder),
        "facts": facts,
        "pictures": draw_curves(run.metrics),
        "config": run.config,
    }


def _environment(*, autoescape: bool, **syntax: str) -> Environment:
    return Environment(
        loader=PackageLoader(*_TEMPLATES),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **syntax,  # type: ignore[arg-type]
    )


def _style_and_script() -> dict[str, str]:
    """Return the page's style and script; its policy blocks any script with another hash."""
    package, folder = _TEMPLATES
    style, script = (
        files(package).joinpath(folder, name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
