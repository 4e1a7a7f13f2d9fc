"""Render the report in sections, of which the page fetches those that changed."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rsa_eval.records.record import Record
from rsa_eval.report.artifacts import Artifact
from rsa_eval.report.content import gather_content
from rsa_eval.report.environment import open_templates
from rsa_eval.report.inputs import Inputs
from rsa_eval.report.matrix import PairMatrix
from rsa_eval.report.record_pages import Gallery, describe_record, record_title
from rsa_eval.report.tables import Table, model_detail

_TEMPLATES = open_templates(autoescape=True, package="rsa_eval.serve")
_MOST_RECORDS = 2000
_DIGITS = 16


@dataclass(frozen=True)
class ReportSection:
    """One part of the page."""

    html: str
    tag: str
    """Changes with the content."""


@dataclass(frozen=True)
class Report:
    """The report of some inputs."""

    sections: dict[str, ReportSection]
    """By the id of its element, in their order."""
    tables: tuple[Table, ...]
    pictures: dict[str, tuple[Path, str]]
    """The record's folder and the path in it, by key."""
    records: dict[str, tuple[Path, Record]]
    """By key."""


def render_report(inputs: Inputs, compare: Callable[[Table], PairMatrix | None]) -> Report:
    """Render everything but the runs, which the page draws itself.

    Args:
        inputs: Records and runs.
        compare: Returns the comparison of a table's models.
    """
    content = gather_content(inputs, compare)
    pictures: dict[str, tuple[Path, str]] = {}
    content["galleries"] = {
        anchor: [_addressed(gallery, pictures) for gallery in galleries]
        for anchor, galleries in content["galleries"].items()
    }
    records = {key_of(str(path)): (path, record) for path, record in inputs.records}
    content["records"] = [
        {"key": key, "title": record_title(record), "detail": model_detail(record)}
        for key, (_, record) in list(records.items())[:_MOST_RECORDS]
    ]
    content["num_unlisted"] = len(records) - len(content["records"])
    content["runs"] = []
    sections = {
        name: ReportSection(html, key_of(html)) for name, html in _parts(content) if html.strip()
    }
    return Report(sections, tuple(content["tables"]), pictures, records)


def render_record(path: Path, record: Record) -> str:
    """Render what the page shows of a record once it is opened."""
    return _render("record.html.jinja", {"record": describe_record(path, record)})


def key_of(text: str) -> str:
    """Return a short name for a path or a content, for addresses."""
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:_DIGITS]


def _parts(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the id and the markup of each section in the order of the report."""
    if not (content["tables"] or content["timings"] or content["unreadable"]):
        return
    yield "contents", _render("contents.html.jinja", content)
    yield "summary", _render("summary.html.jinja", content)
    for part in content["parts"]:
        if part == "paper":
            yield part, _render("paper.html.jinja", content)
            continue
        for number, transfer in enumerate(content["transfers"], start=1):
            more = {"transfer": transfer, "number": number}
            yield f"transfer-{number}", _render("transfer.html.jinja", content | more)
        for table in content["tables"]:
            yield table.anchor, _render("table.html.jinja", content | {"table": table})
    for name in ("sweeps", "timing", "machines"):
        yield name, _render(f"{name}.html.jinja", content)
    yield "records", _render("live_records.html.jinja", content)


def _render(template: str, content: dict[str, Any]) -> str:
    return _TEMPLATES.get_template(template).render(content)


def _addressed(gallery: Gallery, pictures: dict[str, tuple[Path, str]]) -> Gallery:
    """Replace pictures by their addresses, and add where they are."""
    return replace(gallery, artifacts=tuple(_address(a, pictures) for a in gallery.artifacts))


def _address(artifact: Artifact, pictures: dict[str, tuple[Path, str]]) -> Artifact:
    if not artifact.source:
        return artifact
    key = key_of(artifact.source)
    pictures[key] = (artifact.folder, artifact.path)
    return replace(artifact, source=f"/picture/{key}")
