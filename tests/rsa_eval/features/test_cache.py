import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from rsa_eval.__main__ import main
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn.evaluator import evaluate_knn
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.cache import CacheEntry
from rsa_eval.features.extract import (
    cache_entry,
    evaluation_features,
    extract_features,
    feature_batches,
    stored_features,
)
from rsa_eval.features.share import Share
from rsa_eval.features.subject import Subject
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import to_tree
from rsa_pretrain.plumbing.errors import UserError

COUNTS = {"num_train_images": 60, "num_test_images": 30}
DATA = {"name": "digits", "image_size": 32, "num_workers": 0} | COUNTS
PROGRAM = Path(__file__).parents[1] / "two_processes.py"
PEAK_PROGRAM = Path(__file__).with_name("extraction_peak.py")


def _only_file(config: KNNConfig) -> Path:
    assert config.cache_dir is not None
    (path,) = config.cache_dir.iterdir()
    return path


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_a_cache_changes_no_result(
    subject: Subject, knn_config: KNNConfig, cached: KNNConfig, images: ImageSet, dtype: str
) -> None:
    """Extracted in memory, written, and read again the features are the same bit for bit."""
    plain, kept = (c.model_copy(update={"feature_dtype": dtype}) for c in (knn_config, cached))
    expected = evaluation_features(subject, images, plain, "test")
    for _ in ("written", "read"):
        found = evaluation_features(subject, images, kept, "test")
        assert found.features.dtype == torch.float32
        assert torch.equal(found.features, expected.features)
        assert torch.equal(found.labels, expected.labels)
    stored = stored_features(subject, images, kept, "test").features
    assert stored.dtype == (torch.float16 if dtype == "fp16" else torch.float32)


def test_each_image_is_seen_once_and_only_the_first_time(
    subject: Subject, cached: KNNConfig, images: ImageSet, num_forwards: list[int]
) -> None:
    """Thirty images in batches of 16 and 14; the second evaluation reads the file."""
    evaluation_features(subject, images, cached, "test")
    assert num_forwards == [16, 14]
    evaluation_features(subject, images, cached, "test")
    assert num_forwards == [16, 14]


def test_the_file_is_safetensors(subject: Subject, cached: KNNConfig, images: ImageSet) -> None:
    """Any reader of the format finds features, labels and what they are of."""
    found = evaluation_features(subject, images, cached, "test")
    with safe_open(_only_file(cached), framework="pt") as file:
        assert torch.equal(file.get_tensor("features"), found.features)
        assert file.get_tensor("labels").tolist() == images.labels
        identity = json.loads(file.metadata()["rsa_features"])
    assert identity["images"] == images.fingerprint()
    assert identity["layers"] == ["layer4"]


def test_memory_mapped_features_can_be_changed_without_harm(
    subject: Subject, cached: KNNConfig, images: ImageSet
) -> None:
    """Normalising in place changes neither the file nor the next evaluation."""
    first = evaluation_features(subject, images, cached, "test").features
    before = first.clone()
    first.mul_(2)
    assert torch.equal(evaluation_features(subject, images, cached, "test").features, before)


@contextmanager
def failing_in_batch(subject: Subject, number: int) -> Iterator[None]:
    """Let the backbone refuse a batch, counted from 1."""
    seen: list[Tensor] = []

    def fail(module: object, inputs: object, output: Tensor) -> None:
        seen.append(output)
        if len(seen) == number:
            raise UserError("cannot decode")

    handle = subject.backbone.get_submodule("conv1").register_forward_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def _entry(subject: Subject, images: ImageSet, config: KNNConfig) -> CacheEntry:
    assert config.cache_dir is not None
    return cache_entry(subject, images, config, config.cache_dir)


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 100)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0" * 8)


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def _swap_for_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_cut, "bytes, expected"),
        (_grow, "bytes, expected"),
        (lambda path: path.write_bytes(b""), "it has 0 bytes"),
        (_swap_for_pipe, "it cannot be read: is a pipe or a device"),
        (lambda path: _flip(path, -1), "content differs from its checksum"),
        (lambda path: _flip(path, -(30 * 32 * 4) - 8), "content differs from its checksum"),
        (lambda path: _flip(path, 40), "header describes other features"),
    ],
)
def test_a_damaged_file_is_written_anew(
    subject: Subject,
    cached: KNNConfig,
    images: ImageSet,
    num_forwards: list[int],
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    reason: str,
) -> None:
    """Cut, lengthened, emptied, or a bit of a feature, a label or the header changed."""
    expected = evaluation_features(subject, images, cached, "test").features.clone()
    damage(_only_file(cached))
    with caplog.at_level(logging.WARNING):
        again = evaluation_features(subject, images, cached, "test").features
    assert reason in caplog.text
    assert "extracting the features again" in caplog.text
    assert torch.equal(again, expected)
    assert len(num_forwards) == 4
    evaluation_features(subject, images, cached, "test")
    assert len(num_forwards) == 4


def test_the_file_of_other_features_is_not_used(
    subject: Subject, cached: KNNConfig, images: ImageSet, caplog: pytest.LogCaptureFixture
) -> None:
    """A file under the right name, whole, but of other weights, is stale."""
    path = _entry(subject, images, cached).path
    expected = evaluation_features(subject, images, cached, "test").features.clone()
    with torch.no_grad():
        subject.backbone.get_parameter("bn1.weight").mul_(1.5)
    evaluation_features(subject, images, cached, "test")
    other = _entry(subject, images, cached).path
    shutil.copy(path, other)
    found = evaluation_features(subject, images, cached, "test").features
    assert "header describes other features" in caplog.text
    assert not torch.allclose(found, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": ("layer3",)},
        {"feature_dtype": "fp16"},
        {"precision": "bf16"},
        {"data": {"image_size": 24}},
        {"data": {"eval_resize": 40}},
        {"data": {"eval_interpolation": "bicubic"}},
    ],
)
def test_what_decides_features_decides_the_file(
    subject: Subject, cached: KNNConfig, images: ImageSet, change: dict[str, Any]
) -> None:
    """Each setting has a separate file."""
    data = cached.data.model_copy(update=change.get("data", {}))
    other = cached.model_copy(update=change | {"data": data})
    assert _entry(subject, images, cached).path != _entry(subject, images, other).path


def test_weights_and_images_decide_the_file(
    subject: Subject, cached: KNNConfig, images: ImageSet
) -> None:
    """One bit of one buffer, one label or the order of two images: another file."""
    paths = {_entry(subject, images, cached).path}
    reordered = ImageSet(
        images.name, images.sources, images.labels, images.class_names, images.rows[::-1]
    )
    assert images.labels is not None
    labels = [*images.labels[:-1], (images.labels[-1] + 1) % 10]
    relabelled = ImageSet(images.name, images.sources, labels, images.class_names, images.rows)
    paths |= {_entry(subject, other, cached).path for other in (reordered, relabelled)}
    with torch.no_grad():
        subject.backbone.get_buffer("bn1.running_mean")[0].mul_(-1)
    paths.add(_entry(subject, images, cached).path)
    assert len(paths) == 4


def test_settings_of_machine_and_speed_do_not(
    subject: Subject, cached: KNNConfig, images: ImageSet
) -> None:
    """Features extracted on a GPU in large batches are found by an evaluation on a CPU."""
    other = cached.model_copy(update={"device": "cuda", "batch_size": 999, "seed": 5})
    assert _entry(subject, images, cached).path == _entry(subject, images, other).path


def test_features_that_are_not_finite_are_not_kept(
    subject: Subject, cached: KNNConfig, images: ImageSet
) -> None:
    """Features beyond fp16's range are refused, and no file is left."""
    config = cached.model_copy(update={"feature_dtype": "fp16"})
    with torch.no_grad():
        subject.backbone.get_parameter("layer4.0.bn2.weight").fill_(1e6)
    with pytest.raises(UserError, match=r"of 30 digits images .* kept in fp16"):
        evaluation_features(subject, images, config, "test")
    assert config.cache_dir is not None
    assert list(config.cache_dir.iterdir()) == []


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("size", [4, 7, 30, 64])
def test_shares_cover_every_image_once(count: int, size: int) -> None:
    """Batches and rows of all processes, with numbers that do not divide, make up the whole."""
    shares = [Share(rank, count) for rank in range(count)]
    batches = sorted((b for s in shares for b in s.batches(30, size)), key=lambda b: b.start)
    assert [row for batch in batches for row in batch] == list(range(30))
    assert batches == Share(0, 1).batches(30, size)
    assert [row for share in shares for row in share.rows(31)] == list(range(31))


def test_the_knn_record_is_the_same_with_a_cache(
    subject: Subject, knn_config: KNNConfig, cached: KNNConfig, workspace: Workspace
) -> None:
    """Without a cache, with an empty one and with a filled one."""
    results = [
        evaluate_knn(subject, config, workspace).details for config in (knn_config, cached, cached)
    ]
    assert results[0] == results[1] == results[2]


def test_two_processes_equal_one(
    subject: Subject,
    finished_run: Path,
    cached: KNNConfig,
    images: ImageSet,
    tmp_path: Path,
    run_two_processes: Any,
) -> None:
    """Cached or in memory, each process receives the features one process extracts."""
    transform = evaluation_transform(cached.data, subject.mean, subject.std)
    config = cached.model_copy(update={"batch_size": 7})  # five batches, the last one partial
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"run": str(finished_run), "config": to_tree(config)}))
    run_two_processes(PROGRAM, "features", task).check_returncode()
    outcomes = [json.loads((tmp_path / f"features-{rank}.json").read_text()) for rank in (0, 1)]
    expected = extract_features(subject.backbone, images, transform, config, "test").features
    for outcome in outcomes:
        assert torch.equal(torch.tensor(outcome["memory"]), expected)
        assert torch.equal(torch.tensor(outcome["cache"]), expected)
    assert sum(outcome["forwards_memory"] for outcome in outcomes) == 5
    assert [outcome["forwards_cache"] for outcome in outcomes] == [3, 2]
    assert [outcome["forwards_again"] for outcome in outcomes] == [0, 0]


def test_another_number_of_processes_resumes(
    subject: Subject,
    finished_run: Path,
    cached: KNNConfig,
    images: ImageSet,
    num_forwards: list[int],
    tmp_path: Path,
    run_two_processes: Any,
) -> None:
    """A process that fails ends the other, with all batches kept; one process does the last one.

    Two processes share what one has left.
    """
    config = cached.model_copy(update={"batch_size": 7})
    task = tmp_path / "task.json"
    tree = {"run": str(finished_run), "config": to_tree(config)}
    task.write_text(json.dumps(tree | {"good": 1}))
    run_two_processes(PROGRAM, "failing", task, timeout=60).check_returncode()
    told = [json.loads((tmp_path / f"failing-{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == ["another process failed; see its error"] * 2
    assert told[1] == ["cannot decode 'a.png'"] * 2
    path = _entry(subject, images, config).path
    assert not path.exists()
    features = evaluation_features(subject, images, config, "test").features
    assert num_forwards == [7]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match="cannot decode"), failing_in_batch(subject, 3):
        evaluation_features(subject, images, config, "test")
    run_two_processes(PROGRAM, "features", task).check_returncode()
    outcomes = [json.loads((tmp_path / f"features-{rank}.json").read_text()) for rank in (0, 1)]
    assert [outcome["forwards_cache"] for outcome in outcomes] == [2, 1]
    assert all(torch.equal(torch.tensor(one["memory"]), features) for one in outcomes)
    assert _only_file(config).read_bytes() == content


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, python: Any) -> None:
    """Writing 300 MiB of features takes less than 60 MiB beyond what a few images take."""
    done = python.run(PEAK_PROGRAM, tmp_path)
    done.check_returncode()
    peak_before, peak_after, num_bytes = map(int, done.stdout.split())
    assert num_bytes > 300 * 2**20
    assert peak_after - peak_before < 60 * 2**20


def test_the_command_extracts_what_evaluations_read(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two files, named in the output; kNN with the same settings leaves them as they are."""
    words = [str(run_folder), "device=cpu", "layers=[layer2,layer4]", f"cache_dir={tmp_path}"]
    assert main(["features", *words, "feature_dtype=fp16"]) == 0
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in lines] == [
        "train: 60 x 40, fp16",
        "test: 30 x 40, fp16",
    ]
    assert {line.rpartition(": ")[2] for line in lines} == {str(path) for path in files}
    assert main(["knn", *words, "feature_dtype=fp16"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert main(["features", *words, "splits=[test]"]) == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_the_command_resumes(
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SIGTERM ends it after the batch with its exit code; a rerun makes the file of a whole run."""
    words = ["features", str(run_folder), "device=cpu", "batch_size=8", "splits=[train]"]
    assert main([*words, f"cache_dir={tmp_path / 'whole'}"]) == 0

    def signalled(*given: Any) -> Iterator[tuple[int, Tensor]]:
        for batch in feature_batches(*given):
            yield batch
            os.kill(os.getpid(), signal.SIGTERM)

    interrupted = f"cache_dir={tmp_path / 'interrupted'}"
    with monkeypatch.context() as patch:
        patch.setattr("rsa_eval.features.extract.feature_batches", signalled)
        assert main([*words, interrupted]) == 128 + signal.SIGTERM
    assert "stopped by SIGTERM with 16 of 60 images extracted; rerun the command" in caplog.text
    assert not list(tmp_path.glob("interrupted/*.safetensors"))
    with caplog.at_level(logging.INFO):
        assert main([*words, interrupted]) == 0
    assert "with 16 of 60 images extracted" in caplog.messages[-1]
    (whole,), (found,) = (list((tmp_path / name).iterdir()) for name in ("whole", "interrupted"))
    assert found.read_bytes() == whole.read_bytes()


def test_the_command_takes_random_weights_and_needs_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another seed is another file; without cache_dir there is nowhere to write."""
    words = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cpu"]
    words += [f"data.{key}={value}" for key, value in DATA.items()] + ["splits=[test]"]
    for seed in (1, 2, 1):
        assert main(["features", *words, f"cache_dir={tmp_path}", f"seed={seed}"]) == 0
    assert len(list(tmp_path.iterdir())) == 2
    assert main(["features", *words]) == 2
    assert "error: 'cache_dir' is required and not set" in capsys.readouterr().err


def test_a_run_keeps_its_features(run_folder: Path, tmp_path: Path) -> None:
    """In its folder, if no other is named."""
    run = shutil.copytree(run_folder, tmp_path / "run")
    words = ["features", str(run), "device=cpu"]
    assert main(words) == 0
    assert len(list((run / "features").glob("*.safetensors"))) == 2
    assert main([*words, f"cache_dir={tmp_path / 'other'}"]) == 0
    assert len(list((tmp_path / "other").glob("*.safetensors"))) == 2
