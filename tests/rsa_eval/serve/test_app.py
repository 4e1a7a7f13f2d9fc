"""Every part of the page has its address."""

import http.client
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rsa_eval.records.record import Record, write_record
from rsa_eval.report.write import write_report
from rsa_eval.serve.app import App

MakeResult = Callable[..., Record]
WriteLog = Callable[..., None]
Serve = Callable[..., Any]
Get = Callable[..., http.client.HTTPResponse]
RSA = "cifar10/rsa"


def _state(app: App) -> dict[str, Any]:
    reply = app.answer("/state")
    assert reply is not None
    tree: dict[str, Any] = json.loads(reply.content)
    return tree


def _text(app: App, path: str) -> str:
    reply = app.answer(path)
    assert reply is not None
    return reply.content.decode()


def _settled(app: App) -> dict[str, Any]:
    """Wait for the comparisons of models."""
    end = time.monotonic() + 60
    while True:
        state = _state(app)
        pages = [_text(app, f"/section/{name}") for name, _ in state["sections"]]
        if not any("is being computed" in page for page in pages) or time.monotonic() > end:
            return state


@pytest.fixture
def tree(tmp_path: Path, make_trial: MakeResult, write_log: WriteLog) -> Path:
    """Two evaluated runs, one with a picture, and a damaged record."""
    for number, name in enumerate(("byol", "rsa")):
        folder = tmp_path / f"runs/{name}"
        write_log(folder, f"cifar10/{name}")
        pictures = {"The map": "map.png", "Stolen": "../../secret.png"} if number else {}
        record = make_trial(
            f"cifar10/{name}",
            values={"top1": 50.0 + number},
            artifacts=pictures,
            details={"votes": [{"k": 20, "top1": 41.25}]},
        )
        write_record(record, folder / "records/linear.json")
    Image.new("RGB", (4, 4)).save(tmp_path / "runs/rsa/records/map.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "runs/secret.png")
    (tmp_path / "runs/rsa/records/bad.json").write_text("{")
    return tmp_path / "runs"


def test_the_sections_are_those_of_the_report(tree: Path, tmp_path: Path) -> None:
    """Each stands in the static page too, character by character but for pictures' addresses."""
    app = App([tree])
    state = _settled(app)
    write_report([tree], tmp_path / "report.html")
    report = "".join((tmp_path / "report.html").read_text().split())
    names = [name for name, _ in state["sections"]]
    assert names == ["contents", "summary", "paper", "table-1", "machines", "records"]
    for name in set(names) - {"contents", "records", "table-1"}:
        assert "".join(_text(app, f"/section/{name}").split()) in report, name
    table = _text(app, "/section/table-1")
    before, _, after = "".join(table.split()).partition('<imgsrc="/picture/')
    assert before in report
    assert after.partition('"')[2] in report
    assert "bad.json" in _text(app, "/section/summary")


def test_the_state_names_what_changed(tree: Path, make_trial: MakeResult) -> None:
    """A record changes the tags of its sections alone, a line of a log those of its run."""
    app = App([tree])
    before = _settled(app)
    assert [run["name"] for run in before["runs"]] == ["byol", "rsa"]
    assert app.answer("/state") == app.answer("/state")
    with (tree / "rsa/metrics.jsonl").open("a") as file:
        file.write('{"step": 21, "loss": 0.25}\n')
    grown = _state(app)
    tags = [
        (old["tag"], new["tag"]) for old, new in zip(before["runs"], grown["runs"], strict=True)
    ]
    assert [old == new for old, new in tags] == [True, False]
    assert grown["runs"][1]["loss"] == 0.25
    assert grown["sections"] == before["sections"]
    write_record(make_trial(RSA, data_set="cifar100"), tree / "rsa/records/other.json")
    after = dict(_settled(app)["sections"])
    assert after.keys() - dict(before["sections"]) == {"table-2"}
    unchanged = [name for name, tag in before["sections"] if after[name] == tag]
    assert set(unchanged) >= {"table-1", "paper"}
    assert "records" not in unchanged


def test_curves_and_settings_of_a_run(tree: Path) -> None:
    """The points of the log, and the text of its config."""
    app = App([tree])
    run = _state(app)["runs"][1]
    curves = json.loads(_text(app, f"/curves/{run['id']}"))["curves"]
    assert [curve["key"] for curve in curves] == ["loss", "lr", "loss_weak", "beta"]
    assert curves[0]["values"][-1] == 1.8
    assert _text(app, f"/config/{run['id']}") == (tree / "rsa/config.yaml").read_text()


def test_a_record_is_fetched_when_it_is_opened(tree: Path) -> None:
    """The list has the title; its address gives the facts and the listings."""
    app = App([tree])
    _state(app)
    (first, second) = _text(app, "/section/records").split('data-part="')[1:]
    assert "RSA decay, seed 0" in second
    assert "41.25" not in second
    page = _text(app, second.partition('"')[0])
    assert "<dt>SHA-256</dt>" in page
    assert "41.25" in page
    assert first.partition('"')[0] != second.partition('"')[0]


def test_only_pictures_that_a_record_names_are_served(tree: Path) -> None:
    """Below the record's folder, while they are there; others are named with a reason."""
    app = App([tree])
    _state(app)
    table = _text(app, "/section/table-1")
    assert table.count("<img") == 1
    assert "outside the record&#39;s folder" in table
    address = table.partition('<img src="')[2].partition('"')[0]
    reply = app.answer(address)
    assert reply is not None
    assert (reply.kind, reply.content) == ("image/png", (tree / "rsa/records/map.png").read_bytes())
    (tree / "rsa/records/map.png").unlink()
    (tree / "rsa/records/map.png").symlink_to(tree / "secret.png")
    assert app.answer(address) is None


@pytest.mark.parametrize(
    "path",
    [
        *("/favicon.ico", "/index.html", "", "*", "/section", "/section/", "/section/nothing"),
        *("/../etc/passwd", "/picture/../../secret.png", "/picture/%2e%2e%2fsecret.png"),
        *("/config/../rsa/config.yaml", "/curves/", "/record/0", "//etc/passwd", "/style.css/"),
        *("http://elsewhere/", "/state/", "/page.js", "/templates/live.js"),
    ],
)
def test_there_is_nothing_else(tree: Path, path: str) -> None:
    """No address leads to a file that is not of the page."""
    app = App([tree])
    _state(app)
    assert app.answer(path) is None


def test_nothing_yet_is_an_empty_page(tmp_path: Path, write_log: WriteLog) -> None:
    """Runs and records appear in a folder that was empty."""
    app = App([tmp_path])
    assert _state(app) == {"runs": [], "num_unlisted": 0, "sections": []}
    assert "JavaScript" in _text(app, "/")
    write_log(tmp_path / "run")
    assert [run["name"] for run in _state(app)["runs"]] == ["run"]


def test_more_than_fit_are_counted(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page says how many runs and records it does not list; the tables have them all."""
    monkeypatch.setattr("rsa_eval.serve.app._MOST_RUNS", 1)
    monkeypatch.setattr("rsa_eval.serve.sections._MOST_RECORDS", 1)
    app = App([tree])
    state = _state(app)
    assert ([run["name"] for run in state["runs"]], state["num_unlisted"]) == (["byol"], 1)
    records = _text(app, "/section/records")
    assert records.count("<details") == 1
    assert "1 more are not listed" in records
    assert _text(app, "/section/table-1").count('<td class="model"><span>') >= 2


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def test_nothing_from_outside_becomes_markup(
    tmp_path: Path, make_trial: MakeResult, write_log: WriteLog
) -> None:
    """Names, settings, metrics and paths stay text in every part that is markup."""
    record = make_trial(RSA, data_set=EVIL, protocol=EVIL, deviations=[EVIL], config={EVIL: EVIL})
    write_record(record, tmp_path / '"><b>x' / "records/a.json")
    write_log(tmp_path / "<b>run", lines=[{"step": 1, EVIL: 1.0}])
    (tmp_path / "<b>run/config.yaml").write_text(EVIL)
    app = App([tmp_path / '"><b>x', tmp_path / "<b>run"])
    state = _settled(app)
    addresses = ["/", *(f"/section/{name}" for name, _ in state["sections"])]
    records = _text(app, "/section/records").split('data-part="')[1:]
    addresses += [part.partition('"')[0] for part in records]
    for address in addresses:
        page = _text(app, address)
        assert "<script>" not in page
        assert "<b>" not in page
        assert "<img" not in page
    run = state["runs"][0]["id"]
    assert app.answer(f"/config/{run}").kind.startswith("text/plain")  # type: ignore[union-attr]
    assert app.answer(f"/curves/{run}").kind == "application/json"  # type: ignore[union-attr]


def test_file_names_need_not_be_text(tmp_path: Path, write_log: WriteLog) -> None:
    """A folder whose name is not UTF-8 is served all the same."""
    folder = Path(str(tmp_path), b"run-\xff".decode(errors="surrogateescape"))
    write_log(folder, RSA)
    app = App([folder])
    (run,) = _state(app)["runs"]
    assert run["name"].startswith("run-")
    assert "run-?" in _text(app, "/")
