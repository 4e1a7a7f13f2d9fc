"""``rsa-eval transfer protocol=finetune``: the search, the final training, a stop and the table."""

import signal
from pathlib import Path
from typing import Any

import pytest
import transfer_trees

from rsa_eval.__main__ import main
from rsa_eval.evaluators.finetune.tuning import Tuning
from rsa_eval.records.record import Record, read_record
from rsa_eval.report.write import write_report

pytestmark = pytest.mark.usefixtures("small_counts")

# Two pairs of two steps each, then a training of two more.
QUICK = [
    *("backbone.arch=resnet18", "backbone.stem=cifar", "image_size=16", "num_workers=0"),
    *("settings.tuning.steps=2", "settings.grid.base_lr=[0.01,0.1]", "settings.grid.decays=[0]"),
    *("device=cpu", "protocol=finetune"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with VOC2007 and Flowers, which publish validation images."""
    transfer_trees.flowers102(tmp_path / "data")
    transfer_trees.voc2007(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the steps taken; a signal arrives before the fourth of all."""
    taken: list[int] = []
    take_step = Tuning._take_step

    def counting(self: Tuning, *words: Any) -> None:
        taken.append(self.step)
        if len(taken) == 4:
            signal.raise_signal(signal.SIGTERM)
        take_step(self, *words)

    monkeypatch.setattr(Tuning, "_take_step", counting)
    return taken


def _run(root: Path, out: Path, sets: str) -> int:
    words = ["transfer", "--random-init", f"root={root}", "--out", str(out), "--sets", sets]
    return main([*words, *QUICK])


def _records(out: Path) -> dict[str, Record]:
    return {path.stem: read_record(path) for path in sorted(out.rglob("records/*.json"))}


def test_each_set_is_searched_and_tested_by_its_measure(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On published validation images; BYOL's row of fine-tuning stands below, with VOC2007."""
    assert _run(root, tmp_path / "out", "voc2007,flowers102") == 0
    assert "absent" not in capsys.readouterr().out
    records = _records(tmp_path / "out")
    assert list(records) == ["finetune-flowers102", "finetune-voc2007"]
    measures = {"finetune-flowers102": "mean_per_class", "finetune-voc2007": "mAP_11_points"}
    for name, record in records.items():
        assert (record.protocol, record.headline) == ("byol", measures[name])
        assert record.details["validation"]["metric"] == measures[name]
        assert record.details["validation"]["split"] == "published"
        assert [pair["base_lr"] for pair in record.details["grid"]] == [0.01, 0.1]
        assert record.metrics[record.headline].interval is not None
    assert records["finetune-voc2007"].details["labelled"]["count"] == 24
    table = (tmp_path / "out" / "transfer.md").read_text(encoding="utf-8").splitlines()
    (byol,) = [line for line in table if line.startswith("| BYOL, ResNet-50 (BYOL, Table 3)")]
    (heads,) = [line for line in table if "voc2007 (mAP)" in line]
    cells = dict(zip(heads.split("|"), byol.split("|"), strict=True))
    assert {head.strip(): cell.strip() for head, cell in cells.items()}["voc2007 (mAP)"] == "85.4"
    write_report([tmp_path / "out"], tmp_path / "report.html")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"{records['finetune-voc2007'].metrics['mAP_11_points'].value:.1f} [" in page
    assert "| BYOL, ResNet-50 (BYOL, Table 3) | 97.0 | 85.4 | – | – |" in page.splitlines()


def test_a_stopped_suite_resumes_inside_the_search(
    root: Path, tmp_path: Path, steps: list[int]
) -> None:
    """The fourth of six steps is the second pair's last; none is taken twice."""
    out, name = tmp_path / "out", "finetune-voc2007"
    assert _run(root, out, "voc2007") == 143
    assert not _records(out)
    assert len(steps) == 4
    assert _run(root, out, "voc2007") == 0
    assert steps == [0, 1] * 3
    assert _run(root, tmp_path / "whole", "voc2007") == 0
    assert len(steps) == 12
    found, expected = _records(out)[name], _records(tmp_path / "whole")[name]
    assert found.metrics == expected.metrics
    assert found.details == expected.details
    assert not list((tmp_path / "out").rglob("*.pt"))
