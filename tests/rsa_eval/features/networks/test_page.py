"""The example of docs/backbones.md, run as it stands."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rsa_eval.__main__ import main
from rsa_eval.records.record import read_record

PAGE = Path(__file__).parents[4] / "docs" / "backbones.md"


@pytest.mark.parametrize("settings", [[], ["data.image_size=16"]])
def test_the_function_of_the_page_is_evaluated(
    settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Saved under the page's name, beside weights, it is taken by the page's command."""
    text = PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^    rsa-eval (.* python:.*)$", text, re.MULTILINE)
    assert "`my_networks.py`" in text
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    Path("my_networks.py").write_text(code)
    names: dict[str, Any] = {}
    exec(code, names)
    torch.save(names["Encoder"]().state_dict(), "encoder.pt")
    few = ["data.num_train_images=60", "data.num_test_images=30", "data.num_workers=0"]
    try:
        assert main([*shlex.split(command), *few, "device=cpu", *settings]) == 0
    finally:
        sys.modules.pop("my_networks", None)
    record = read_record(Path("runs/mine/records/knn.json"))
    assert record.model.network == "python:my_networks:make"
    assert 0 < record.metrics["top1"].value < 100
