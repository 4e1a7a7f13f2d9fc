"""Records and runs to one self-contained HTML page, and its tables as Markdown."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from rsa_eval.record import Record
from rsa_eval.report_curves import draw_curves
from rsa_eval.report_inputs import Run, collect
from rsa_eval.report_tables import build_tables, model_detail, model_name
from rsa_pretrain.atomic_files import write_text


def write_report(paths: Sequence[Path], out: Path) -> list[str]:
    """Write the page to ``out`` and the Markdown tables beside it, with the suffix ``.md``.

    Every number comes from a record or a log; what no record holds stays empty.

    Args:
        paths: Run folders, record files, or folders of either.
        out: HTML file.

    Returns:
        What is wrong with each file that could not be read; the page names them too.

    Raises:
        UserError: If a path does not exist or has nothing to report in it.
    """
    inputs = collect(paths)
    content = {
        "tables": build_tables([record for _, record in inputs.records]),
        "runs": [_describe_run(run) for run in inputs.runs],
        "records": [_describe_record(path, record) for path, record in inputs.records],
        "unreadable": inputs.unreadable,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": version("rsa-toolkit"),
    }
    environment = Environment(
        loader=PackageLoader("rsa_eval", "."),
        autoescape=lambda name: name is not None and name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = _escape_markdown
    write_text(out, environment.get_template("report.html.jinja").render(content))
    write_text(out.with_suffix(".md"), environment.get_template("report.md.jinja").render(content))
    return inputs.unreadable


def _describe_run(run: Run) -> dict[str, Any]:
    last = run.metrics[-1] if run.metrics else {}
    facts = {"last step": f"{last['step']}"} if last else {}
    if isinstance(last.get("epoch"), int | float):
        facts["epochs"] = f"{last['epoch']:.4g}"
    return {
        "name": run.folder.name or str(run.folder),
        "folder": str(run.folder),
        "facts": facts,
        "pictures": draw_curves(run.metrics),
        "config": run.config,
    }


def _describe_record(path: Path, record: Record) -> dict[str, Any]:
    commit = "unknown" if record.git_commit is None else record.git_commit[:12]
    if record.git_dirty:
        commit += ", with uncommitted changes"
    versions = ", ".join(f"{name} {number}" for name, number in record.library_versions.items())
    facts = {
        "file": str(path),
        "checkpoint": record.model.checkpoint or "none: random weights",
        "SHA-256": record.model.sha256 or "",
        "seeds": ", ".join(str(seed) for seed in record.seeds),
        "test images": str(record.num_samples),
        "deviations": "; ".join(record.deviations) or "none",
        "date": record.created,
        "time": f"{record.seconds:.1f} s",
        "hardware": record.hardware,
        "versions": versions,
        "commit": commit,
        "command": " ".join(record.command),
    }
    return {
        "title": f"{record.kind} on {record.data_set}: {model_name(record)}",
        "detail": model_detail(record),
        "facts": facts,
        "votes": record.details.get("votes", []),
        "config": yaml.safe_dump(record.config, sort_keys=False, allow_unicode=True),
    }


def _escape_markdown(text: str) -> str:
    """Keep text from breaking out of a table cell or into markup."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "\\`*_[]|":
        escaped = escaped.replace(character, f"\\{character}")
    return " ".join(escaped.split())
