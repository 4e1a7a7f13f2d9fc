import sys
from pathlib import Path

import numpy as np
import pytest

from rsa_eval.__main__ import main
from rsa_eval.evaluators.robustness import generated
from rsa_eval.evaluators.robustness.corrupted import CorruptedImages
from rsa_eval.evaluators.robustness.corruption_error import CORRUPTIONS
from rsa_eval.evaluators.robustness.generated import generate_corrupted
from rsa_eval.features.transforms import evaluation_transform
from rsa_eval.records.record import read_record
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig

NETWORK = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cpu"]
DIGITS = ["data.name=digits", "data.image_size=32", "data.num_workers=0"]
COUNTS = ["data.num_train_images=60", "data.num_test_images=30"]
WORDS = [*NETWORK, *DIGITS, *COUNTS, "shifts.generate=true"]
WORDS += ["head.name=logistic", "head.search.num_values=2"]


def _generated(size: int = 32, **settings: int) -> CorruptedImages:
    config = DataConfig(name="digits", image_size=size, num_test_images=3, **settings)
    geometry = evaluation_transform(config, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).geometry
    return generate_corrupted(open_images(config, "test"), geometry, size)


def test_without_the_library_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    assert main(["robustness", *WORDS, "--out", str(tmp_path / "out.json")]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: shifts.generate needs the package imagecorruptions")
    assert "pip install 'rsa-toolkit[robustness]'" in error


def test_the_same_image_is_corrupted_alike() -> None:
    """At any time and in any order, with NumPy's global generator left as it was."""
    pytest.importorskip("imagecorruptions", reason="extra robustness")
    images = _generated().by_corruption
    assert list(images) == list(CORRUPTIONS)
    for name, several in images.items():
        clean = several[0].sources
        first = [np.asarray(several[4][index]) for index in range(3)]
        np.random.seed(1)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        again = [np.asarray(several[4][index]) for index in (2, 1, 0)][::-1]
        assert np.array_equal(first, again), name
        assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
        assert first[0].shape == (32, 32, 3)
        assert len(clean) == 360


def test_fingerprints_differ_by_corruption_and_severity() -> None:
    """A cache of features never takes one for another, or one size for another."""
    pytest.importorskip("imagecorruptions", reason="extra robustness")
    sets = [*_generated().by_corruption.values(), *_generated(size=40).by_corruption.values()]
    assert len({images.fingerprint() for several in sets for images in several}) == 150


def test_another_numba_draws_other_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its generator draws glass blur, so a cache keeps features of two versions apart."""
    pytest.importorskip("imagecorruptions", reason="extra robustness")
    before = _generated().by_corruption["glass_blur"][0].fingerprint()
    versions = generated.installed_versions
    monkeypatch.setattr(
        generated,
        "installed_versions",
        lambda *names: versions(*names) | ({"numba": "0"} if "numba" in names else {}),
    )
    assert _generated().by_corruption["glass_blur"][0].fingerprint() != before


def test_digits_end_to_end(tmp_path: Path) -> None:
    """A data set without published files has the same metrics, and the departure is on record."""
    pytest.importorskip("imagecorruptions", reason="extra robustness")
    out = tmp_path / "out.json"
    assert main(["robustness", *WORDS, "--out", str(out)]) == 0
    record = read_record(out)
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert record.headline == "top1_generated"
    assert values["mean_corruption_error"] == pytest.approx(100 - values["top1_generated"])
    assert values["top1_generated"] < values["top1"]
    assert any("imagecorruptions" in text and "32 px" in text for text in record.deviations)
    errors = record.details["shifts"]["generated"]["corruptions"]
    assert len(errors) == 15
    assert errors["gaussian_noise"]["error"][4] > errors["gaussian_noise"]["error"][0]
