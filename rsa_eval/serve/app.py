"""Answer the page's requests from the files below the given paths."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rsa_eval.report.artifacts import read_picture
from rsa_eval.report.environment import open_templates, read_asset
from rsa_eval.report.inputs import Inputs, TrainingRun
from rsa_eval.serve.comparer import Comparer
from rsa_eval.serve.live_curves import list_curves
from rsa_eval.serve.progress import RunProgress, find_stage, measure_progress
from rsa_eval.serve.sections import Report, key_of, render_record, render_report
from rsa_eval.serve.watch import Watch, stamp_of
from rsa_pretrain.plumbing.metrics_log import METRICS_FILE
from rsa_pretrain.plumbing.versions import VERSION

_PACKAGE = "rsa_eval.serve"
_SCRIPTS = ("charts.js", "sections.js", "live.js")
_HTML = "text/html; charset=utf-8"
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"

# Files are looked at again after a second, or after ten times the time that took.
_SECONDS_BETWEEN_LOOKS = 1.0
_REST = 9.0
# The table of training times changes with every line of a log; it is not needed as often.
_SECONDS_BETWEEN_REPORTS = 30.0
_MOST_RUNS = 1000
_MOST_OF_A_CONFIG = 2**20


@dataclass(frozen=True)
class Reply:
    """A page or a part of it."""

    kind: str
    """Its media type."""
    content: bytes
    tag: str = ""
    """Changes with the content of what a page asks for repeatedly; empty for other parts."""


@dataclass(frozen=True)
class _LiveRun:
    run: TrainingRun
    progress: RunProgress
    curves: bytes
    tag: str


class App:
    """The page and its parts, by their addresses; used by several threads.

    Args:
        paths: Run folders, record files, or folders of either.

    Raises:
        UserError: If a path does not exist.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._watch = Watch(paths)
        self._comparer = Comparer()
        self._lock = threading.Lock()
        self._next_look = 0.0
        self._runs: dict[str, _LiveRun] = {}
        self._report = Report({}, (), {}, {})
        self._report_of: Any = None
        self._logs_of: list[str] = []
        self._next_report = 0.0
        self._summary = b""
        self._assets = _assets(", ".join(str(path) for path in paths))
        self._parts: dict[str, Callable[[str], Reply | None]] = {
            "section": self._section,
            "record": self._record,
            "picture": self._picture,
            "curves": self._curves,
            "config": self._config,
        }

    def answer(self, path: str) -> Reply | None:
        """Return what is at an address; None if there is nothing."""
        if path in self._assets:
            return self._assets[path]
        if path == "/state":
            return self._state()
        _, _, rest = path.partition("/")
        part, _, key = rest.partition("/")
        return self._parts[part](key) if part in self._parts else None

    def _state(self) -> Reply:
        with self._lock:
            if time.monotonic() >= self._next_look:
                started = time.monotonic()
                self._look()
                ended = time.monotonic()
                rest = max(_SECONDS_BETWEEN_LOOKS, _REST * (ended - started))
                self._next_look = ended + rest
            return Reply(_JSON, self._summary, key_of(self._summary.decode()))

    def _look(self) -> None:
        inputs = self._watch.collect()
        self._update_runs(inputs.runs)
        states = [self._describe(key, live) for key, live in self._runs.items()]
        self._update_report(inputs, [(run["id"], run["state"]) for run in states])
        sections = [[name, part.tag] for name, part in self._report.sections.items()]
        unlisted = len(inputs.runs) - len(states)
        tree = {"runs": states, "num_unlisted": unlisted, "sections": sections}
        self._summary = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()

    def _update_runs(self, runs: Sequence[TrainingRun]) -> None:
        found = {}
        for run in runs[:_MOST_RUNS]:
            key = key_of(str(run.folder))
            live = self._runs.get(key)
            if live is None or live.run is not run:
                curves = {"curves": list_curves(run.metrics)}
                content = json.dumps(curves, separators=(",", ":")).encode()
                live = _LiveRun(run, measure_progress(run), content, key_of(content.decode()))
            found[key] = live
        self._runs = found  # at once, as other threads look runs up

    def _describe(self, key: str, live: _LiveRun) -> dict[str, Any]:
        stamp = stamp_of(live.run.folder / METRICS_FILE)
        changed = 0.0 if stamp is None else stamp[0] / 1e9
        return {
            "id": key,
            "name": live.run.name,
            "folder": str(live.run.folder),
            "state": find_stage(live.run.folder, live.progress, time.time() - changed),
            "changed": round(changed),
            "tag": live.tag,
            "has_config": live.run.config is not None,
            **asdict(live.progress),
        }

    def _update_report(self, inputs: Inputs, states: Sequence[tuple[str, str]]) -> None:
        stamps = self._watch.stamps()
        records = [(path, stamps.get(path)) for path, _ in inputs.records]
        report_of = (records, list(states), inputs.unreadable, self._comparer.num_found)
        logs_of = [live.tag for live in self._runs.values()]
        now = time.monotonic()
        have_grown = logs_of != self._logs_of and now >= self._next_report
        if report_of == self._report_of and not have_grown:
            return
        self._report = render_report(inputs, self._comparer.matrix_of)
        self._comparer.want(self._report.tables)
        self._report_of, self._logs_of = report_of, logs_of
        self._next_report = now + _SECONDS_BETWEEN_REPORTS

    def _section(self, key: str) -> Reply | None:
        section = self._report.sections.get(key)
        return None if section is None else Reply(_HTML, _encoded(section.html), section.tag)

    def _record(self, key: str) -> Reply | None:
        found = self._report.records.get(key)
        return None if found is None else Reply(_HTML, _encoded(render_record(*found)))

    def _picture(self, key: str) -> Reply | None:
        folder, path = self._report.pictures.get(key, (None, ""))
        if folder is None:
            return None
        content, reason = read_picture(path, folder)
        return None if reason else Reply("image/png", content)

    def _curves(self, key: str) -> Reply | None:
        live = self._runs.get(key)
        return None if live is None else Reply(_JSON, live.curves)

    def _config(self, key: str) -> Reply | None:
        live = self._runs.get(key)
        if live is None or live.run.config is None:
            return None
        return Reply(_TEXT, _encoded(live.run.config[:_MOST_OF_A_CONFIG]))


def _encoded(text: str) -> bytes:
    """Return text in UTF-8, what file names have that is none as question marks."""
    return text.encode(errors="replace")


def _assets(title: str) -> dict[str, Reply]:
    """Return the page, its style and its script."""
    templates = open_templates(autoescape=True, package=_PACKAGE)
    page = templates.get_template("live.html.jinja").render(title=title, version=VERSION)
    style = read_asset("page.css") + read_asset("live.css", _PACKAGE)
    scripts = [read_asset("page.js"), *(read_asset(name, _PACKAGE) for name in _SCRIPTS)]
    return {
        "/": Reply(_HTML, _encoded(page)),
        "/style.css": Reply("text/css; charset=utf-8", style.encode()),
        "/script.js": Reply("text/javascript; charset=utf-8", "\n".join(scripts).encode()),
    }
