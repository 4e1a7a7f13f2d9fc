from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.record import read_record


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_runs_on_a_gpu(name: str, tmp_path: Path) -> None:
    """Each runs on CUDA from beginning to end, and its record has a headline."""
    out = tmp_path / "record.json"
    words = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cuda"]
    assert main([name, *words, "--config", "data/digits", "--out", str(out)]) == 0
    record = read_record(out)
    assert record.config["device"] == "cuda"
    assert record.headline in record.metrics
