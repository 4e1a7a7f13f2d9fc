from pathlib import Path

import pytest

from benchmarks.card import BF16_PRODUCT
from benchmarks.gpu.items import Item
from benchmarks.gpu.outcome import Outcome, read_outcomes, write_outcome
from benchmarks.gpu.outcome_table import outcome_page, outcome_table
from benchmarks.measure import Figure, Finding, Result
from rsa_pretrain.plumbing.errors import UserError

ITEMS = [Item(name, name, 1) for name in ("card", "step", "slow", "never")]


def outcome(name: str, *figures: Figure, findings: tuple[Finding, ...] = ()) -> Outcome:
    """An item that was measured."""
    result = Result(
        benchmark=name,
        findings=list(findings),
        figures=list(figures),
        seconds={},
        facts={"commit": "abc"} if name == "card" else {},
        settings={"device": "cuda"},
        hardware="NVIDIA H100",
        library_versions={"torch": "2.11"},
        command=["python", "-m", "benchmarks", name],
        created="2026-11-29T10:00:00+00:00",
    )
    return Outcome(item=name, state="measured", seconds=21, result=result)


OUTCOMES = {
    "card": outcome("card", Figure(what=BF16_PRODUCT, value=800, unit="TFLOP/s")),
    "step": outcome(
        "step",
        Figure(what="RSA", value=160, unit="TFLOP/s"),
        findings=(Finding(what="time", value=1.2, unit="×", bound="at most", limit=1.05),),
    ),
    "slow": Outcome(item="slow", state="killed", reason="its 9 s were over", seconds=9),
}


def test_every_item_has_its_rows() -> None:
    """Numbers with their bounds, facts, reasons, and what was not measured."""
    page = outcome_page(ITEMS, OUTCOMES)
    assert "NVIDIA H100, torch 2.11" in page
    assert "| card | commit | abc |  | recorded |" in page
    assert "| step | time | 1.2 × | at most 1.05 | missed |" in page
    assert "| slow | its 9 s were over |  |  | killed |" in page
    assert "| never |  | not yet measured |  |  |" in page
    assert "    python -m benchmarks step" in page


def test_arithmetic_is_a_share_of_the_card_s() -> None:
    """As measured in the same run; without it there is no share."""
    assert "160 TFLOP/s, 20% of the bf16 product" in outcome_table(ITEMS, OUTCOMES)
    assert "%" not in outcome_table(ITEMS, {"step": OUTCOMES["step"]})
    assert "100%" not in outcome_table(ITEMS, OUTCOMES)


def test_nothing_measured_is_a_page_too() -> None:
    """Before the first run."""
    assert outcome_page(ITEMS, {}).count("not yet measured") == len(ITEMS)


def test_outcomes_come_back(tmp_path: Path) -> None:
    """A damaged file is named."""
    write_outcome(OUTCOMES["step"], tmp_path)
    write_outcome(OUTCOMES["slow"], tmp_path)
    assert read_outcomes(tmp_path) == {name: OUTCOMES[name] for name in ("slow", "step")}
    (tmp_path / "step.json").write_text("{}")
    with pytest.raises(UserError, match=r"step\.json' is not the outcome"):
        read_outcomes(tmp_path)
