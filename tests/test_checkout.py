"""A checkout works where it is not installed."""

import shutil
from collections.abc import Callable
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path

import pytest

from benchmarks.measure import Benchmark, BenchmarkSettings, Measurement, run_benchmark
from rsa_eval.__main__ import main as rsa_eval
from rsa_eval.records.record import read_record
from rsa_pretrain.__main__ import main as rsa_pretrain
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.plumbing.versions import VERSION, installed_versions
from rsa_pretrain.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("narrow_resnets", "_not_installed")

# Pillow's modules also come with other distributions.
ABSENT = {"rsa-toolkit", "pillow", "pycocotools"}


@pytest.fixture
def _not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no metadata of this toolkit be found, nor of some of the libraries."""
    find: Callable[[str], Distribution] = Distribution.from_name

    def find_others(name: str) -> Distribution:
        if name in ABSENT:
            raise PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(Distribution, "from_name", find_others)
    with pytest.raises(PackageNotFoundError, match="rsa-toolkit"):
        version("rsa-toolkit")


def test_a_run_is_saved_resumed_evaluated_exported_and_reported(
    tiny_config: PretrainConfig, tmp_path: Path
) -> None:
    """Each file states the toolkit's version, and none of what is not installed."""
    run = tiny_config.output_dir
    write_config(tiny_config, tmp_path / "config.yaml")
    words = ["run", str(tmp_path / "config.yaml"), "training.epochs=2"]
    assert rsa_pretrain(words) == 0
    (run / "backbone.safetensors").unlink()
    shutil.rmtree(run / "checkpoints/step-00000008")
    assert rsa_pretrain([*words, "--resume"]) == 0
    _, metadata, _ = load_checkpoint(run / "checkpoints/last")
    assert metadata.step == 8
    record_path = run / "records/knn.json"
    few = ["data.num_test_images=20"]
    assert rsa_eval(["knn", str(run), *few, "--out", str(record_path)]) == 0
    record = read_record(record_path)
    for versions in (metadata.library_versions, record.library_versions):
        assert versions["rsa-toolkit"] == VERSION
        assert versions["torch"] == version("torch")
        assert not versions.keys() & (ABSENT - {"rsa-toolkit"})
    assert rsa_eval(["features", str(run), *few, f"cache_dir={tmp_path / 'features'}"]) == 0
    page = tmp_path / "report.html"
    assert rsa_eval(["report", str(run), "--out", str(page)]) == 0
    assert f"by rsa-toolkit {VERSION}" in page.read_text()
    exported = tmp_path / "exported.pth"
    assert rsa_pretrain(["export", str(run), str(exported), "--to", "torchvision"]) == 0


def test_a_benchmark_is_recorded() -> None:
    """Its result states the toolkit's version."""
    nothing = Measurement(findings=[], seconds={})
    benchmark = Benchmark(BenchmarkSettings, lambda settings: nothing, "Measure nothing.")
    result = run_benchmark("nothing", benchmark, BenchmarkSettings(device="cpu"))
    assert result.library_versions["rsa-toolkit"] == VERSION


def test_versions_of_what_is_installed() -> None:
    """Others are left out."""
    assert installed_versions("pillow", "torch") == {"torch": version("torch")}
