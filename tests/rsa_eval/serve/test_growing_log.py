"""A log that grows is read line by line, each once."""

import json
from pathlib import Path

import pytest

from rsa_eval.serve import growing_log
from rsa_eval.serve.growing_log import GrowingLog
from rsa_pretrain.plumbing.errors import UserError


def _line(step: int) -> str:
    return json.dumps({"step": step, "loss": 1.0}) + "\n"


def _steps(log: GrowingLog) -> list[int]:
    return [entry["step"] for entry in log.read()]


def test_each_line_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later reads parse only what was added; an earlier result does not grow."""
    parsed = []
    parse = growing_log.parse_metrics
    monkeypatch.setattr(
        growing_log, "parse_metrics", lambda line: parsed.append(line) or parse(line)
    )
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(1) + _line(2))
    log = GrowingLog(path)
    before = log.read()
    with path.open("a") as file:
        file.write(_line(3))
    assert _steps(log) == [1, 2, 3]
    assert [json.loads(line)["step"] for line in parsed] == [1, 2, 3]
    assert len(before) == 2


def test_a_line_being_written_waits_for_its_end(tmp_path: Path) -> None:
    """Half a line is none yet, wherever it is cut, also within a character."""
    path = tmp_path / "metrics.jsonl"
    whole = json.dumps({"step": 2, "é": 1.0}, ensure_ascii=False).encode() + b"\n"
    for cut in range(len(whole)):
        path.write_bytes(_line(1).encode() + whole[:cut])
        log = GrowingLog(path)
        assert _steps(log) == [1]
        with path.open("ab") as file:
            file.write(whole[cut:])
        assert _steps(log) == [1, 2]


@pytest.mark.parametrize("replaces", [False, True])
def test_a_resumed_run_starts_its_log_again(tmp_path: Path, replaces: bool) -> None:
    """A log rewritten in another file or in place is read from its start, also if it is longer."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(10) + _line(20))
    log = GrowingLog(path)
    assert _steps(log) == [10, 20]
    other = tmp_path / "other" if replaces else path
    other.write_text(_line(10) + _line(12) + _line(14) + _line(16))
    other.rename(path)
    assert _steps(log) == [10, 12, 14, 16]


def test_damage_is_named_by_its_line(tmp_path: Path) -> None:
    """A whole line that is no JSON object, or no text, is an error; so is an absent log."""
    path = tmp_path / "metrics.jsonl"
    path.write_text(_line(1))
    log = GrowingLog(path)
    log.read()
    path.write_text(_line(1) + "[]\n")
    with pytest.raises(UserError, match=r"metrics.jsonl' line 2 is not a JSON object with a step"):
        log.read()
    path.write_bytes(b"\xff\n")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        log.read()
    path.unlink()
    with pytest.raises(UserError, match="No such file"):
        log.read()
