from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.record import read_record

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = {
    "knn": "knn/digits.yaml",
    "linear": "linear/dinov2_digits.yaml",
    "logistic": "logistic/digits.yaml",
    "low-shot": "low_shot/digits.yaml",
    "finetune": "finetune/swav_10pct_digits.yaml",
    "svm": "svm/digits.yaml",
    "diagnostics": "diagnostics/digits.yaml",
}


@pytest.mark.gpu
@pytest.mark.parametrize("name", EVALUATORS)
def test_every_evaluator_runs_on_a_gpu(name: str, tmp_path: Path) -> None:
    """The digits config runs on CUDA from beginning to end, and its record has a headline."""
    out = tmp_path / "record.json"
    words = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cuda"]
    assert main([name, *words, "--config", str(CONFIGS / FILES[name]), "--out", str(out)]) == 0
    record = read_record(out)
    assert record.config["device"] == "cuda"
    assert record.headline in record.metrics
