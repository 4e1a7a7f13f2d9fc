"""Write findings as text, Markdown and plain values for JSON."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rsa_eval.audit.finding import SEVERITIES, FindingGroup, num_findings
from rsa_pretrain.plumbing.text_table import escape_markdown, render_table

_WIDTH = 100
_INDENT = 11  # columns of the severity


def text_lines(groups: Sequence[FindingGroup]) -> list[str]:
    """Return the findings as text, most severe first in each group."""
    lines = []
    for group in groups:
        count = f" ({len(group.records)} record{'s' * (len(group.records) != 1)})"
        lines.append(f"{group.title}{count if group.records else ''}")
        if not group.findings:
            lines.append("  nothing found")
        for finding in group.findings:
            lines += _wrapped(f"  {finding.severity}", f"{finding.topic}: {finding.statement}")
            lines += _wrapped("", f"→ {finding.remedy}")
    return [*lines, summary(groups)]


def summary(groups: Sequence[FindingGroup]) -> str:
    """Return the number of findings by severity."""
    numbers = {severity: num_findings(list(groups), severity) for severity in SEVERITIES}
    return (
        f"{numbers['unfair']} unfair, {numbers['caution']} to be careful about, "
        f"{numbers['note']} to note"
    )


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=head.ljust(_INDENT),
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def markdown(groups: Sequence[FindingGroup]) -> str:
    """Return the findings as a Markdown page with a table for each group."""
    parts = [f"# Audit\n\n{summary(groups)}."]
    for group in groups:
        parts.append(f"## {escape_markdown(group.title)}")
        if group.records:
            parts.append(f"Records: {', '.join(map(escape_markdown, group.records))}.")
        if not group.findings:
            parts.append("Nothing found.")
            continue
        rows = [
            [finding.severity, finding.topic, finding.statement, finding.remedy]
            for finding in group.findings
        ]
        columns = ["severity", "topic", "finding", "remedy"]
        parts.append(render_table(columns, rows, "markdown"))
    return "\n\n".join(parts) + "\n"


def as_tree(groups: Sequence[FindingGroup]) -> list[dict[str, Any]]:
    """Return the findings as plain values."""
    return [asdict(group) for group in groups]
