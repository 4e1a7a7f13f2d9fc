"""Commands in a process whose address space is limited end in one line, at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.process

_LIMITED = """
import resource, sys
from importlib import import_module
words = sys.argv[1:]
with open("/proc/self/status") as status:
    size = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, size + 2**28))
raise SystemExit(import_module(f"{words[0]}.__main__").main(words[1:]))
"""


def _ends_in(python: Any, *words: object) -> str:
    done = python.run("-c", _LIMITED, *words)
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert [line.startswith("error: ") for line in lines] == [False] * (len(lines) - 1) + [True]
    assert "Traceback" not in done.stderr
    found: str = lines[-1]
    return found


def test_given_features_beyond_the_limit(python: Any, tmp_path: Path) -> None:
    """300 MiB of zeros, which take 300 kB in the file."""
    features, labels = np.broadcast_to(np.float32(0), (150_000, 512)), np.arange(150_000) % 2
    for name in ("train", "test"):
        np.savez_compressed(tmp_path / f"{name}.npz", features=features, labels=labels)
    files = [tmp_path / "train.npz", tmp_path / "test.npz"]
    line = _ends_in(python, "rsa_eval", "knn", "--features", *files, "--out", tmp_path / "a.json")
    assert "take 293 MiB of memory" in line
    assert line.endswith("store it as .npy files, which are mapped into memory if they are float32")


def test_a_set_in_memory_beyond_the_limit(python: Any, tmp_path: Path) -> None:
    """STL-10's 2.7 GiB of empty images, which take nothing on the disk."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    for part, count in (("train", 5_000), ("unlabeled", 100_000)):
        with (folder / f"{part}_X.bin").open("wb") as file:
            file.truncate(count * 3 * 96**2)
    (folder / "train_y.bin").write_bytes(b"\1" * 5_000)
    config = Path(__file__).parents[2] / "configs" / "pretrain" / "stl10" / "simsiam.yaml"
    words = [f"data.root={tmp_path}", f"output_dir={tmp_path / 'run'}", "training.device=cpu"]
    words += ["training.global_batch_size=8", "views.implementation=batched"]
    line = _ends_in(python, "rsa_pretrain", "run", config, *words, "backbone.arch=resnet18")
    assert "105,000 stl10 images take 2.7 GiB of memory" in line
    assert "views.implementation=pillow" in line
