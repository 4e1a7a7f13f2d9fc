import json
from pathlib import Path

import pytest
import torch

from rsa_pretrain.components.optim import build_optimizer
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.methods.registry import METHODS
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.training.trainer import Trainer

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("name", METHODS)
def test_golden_losses(name, small_methods, tiny_tree, monkeypatch, request):
    """Twenty seeded steps of the trainer in float64 repeat the committed losses.

    Regenerate, only after a change of arithmetic that is meant and described in the changelog,
    with ``pytest tests/rsa_pretrain/training/test_golden.py --regenerate-golden``. Twenty steps
    amplify rounding about a millionfold, hence float64; the logged means are float32.
    """
    tiny_tree["training"] |= {"epochs": 5, "checkpoint_every_epochs": 5}
    tiny_tree["method"] = {"name": name} | small_methods[name]
    config = parse_tree(PretrainConfig, tiny_tree, "golden run")
    trainer = Trainer(config, open_images(config.data, "train"), resume=False)
    method = trainer.state.method.double()
    trainer.state.optimizer = build_optimizer(method, config.optimizer)  # its momentum too
    in_float32 = trainer._batches
    in_float64 = (([view.double() for view in views], labels) for views, labels in in_float32())
    monkeypatch.setattr(trainer, "_batches", lambda: in_float64)
    trainer.run()
    losses = [line["loss"] for line in read_metrics(config.output_dir / "metrics.jsonl")]
    assert len(losses) == 20
    assert trainer.state.method.backbone.conv1.weight.dtype == torch.float64
    path = GOLDEN / f"{name}_losses.json"
    if request.config.getoption("--regenerate-golden"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(losses, indent=1) + "\n")
    assert losses == pytest.approx(json.loads(path.read_text()), rel=1e-5)
