"""Write a report of records and runs as a self-contained HTML page, and its tables as text."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsa_eval.report.comparison import compare_runs
from rsa_eval.report.content import gather_content
from rsa_eval.report.csv_file import render_csv
from rsa_eval.report.curves import draw_curves
from rsa_eval.report.environment import open_templates, read_asset
from rsa_eval.report.escaping import escape_latex
from rsa_eval.report.inputs import Inputs, TrainingRun, collect
from rsa_eval.report.record_pages import describe_record
from rsa_eval.report.results_page import render_page
from rsa_pretrain.plumbing.atomic_files import write_text


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
    content = gather_content(inputs) | {
        "comparisons": compare_runs(inputs.runs),
        "runs": [_describe_run(run) for run in inputs.runs],
        "records": [describe_record(path, record) for path, record in inputs.records],
    }
    html = open_templates(autoescape=True)
    write_text(out, html.get_template("page.html.jinja").render(content | _style_and_script()))
    latex = open_templates(
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


def _style_and_script() -> dict[str, str]:
    """Return the page's style and script; its policy blocks any script with another hash."""
    style, script = read_asset("page.css"), read_asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"style": style, "script": script, "script_hash": f"sha256-{digest}"}
