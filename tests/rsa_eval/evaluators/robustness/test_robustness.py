import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from rsa_eval.__main__ import main
from rsa_eval.evaluators import record_name
from rsa_eval.evaluators.finetune.tuning import Tuning
from rsa_eval.evaluators.robustness.calibration import calibration_error
from rsa_eval.evaluators.robustness.corrupted import CorruptedImages
from rsa_eval.evaluators.robustness.corruption_error import ALEXNET_ERRORS, CORRUPTIONS
from rsa_eval.evaluators.robustness.grading import Graded
from rsa_eval.evaluators.robustness.scores import score_corrupted
from rsa_eval.evaluators.robustness.settings import RobustnessConfig
from rsa_eval.evaluators.robustness.shifts import SHIFTS
from rsa_eval.evaluators.shared.metrics import Answers
from rsa_eval.records.class_predictions import ClassPredictions
from rsa_eval.records.predictions import read_predictions
from rsa_eval.records.record import Record, read_record
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.sets import DATA_SETS
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError

Pixels = npt.NDArray[np.uint8]

NETWORK = ["--random-init", "backbone.arch=resnet18", "backbone.stem=cifar", "device=cpu"]
SEARCH = ["search.num_values=3", "search.min_exponent=-1", "search.max_exponent=1"]
LOGISTIC = ["head.name=logistic", *(f"head.{word}" for word in SEARCH)]
NUM_TEST = 40


def _coloured(count: int, seed: int, side: int = 32) -> Pixels:
    """Images of class i % 10, whose brightness tells the classes apart, with noise."""
    noise = np.random.default_rng(seed).integers(-40, 41, (count, side, side, 3))
    noise += np.random.default_rng(seed + 1).integers(-25, 26, (count, 1, 1, 1))
    means = 60 + 13 * (np.arange(count) % 10)
    return np.clip(means[:, None, None, None] + noise, 0, 255).astype(np.uint8)


class FakeCifar:
    """Stand in for torchvision's CIFAR-10, without a download."""

    def __init__(self, root: str, train: bool) -> None:
        count = 100 if train else NUM_TEST
        self.data = _coloured(count, seed=int(train))
        self.targets = [index % 10 for index in range(count)]
        self.classes = [f"class {number}" for number in range(10)]


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Settings of forty test images; fog makes them black, all else leaves them as they are."""
    monkeypatch.setattr("torchvision.datasets.CIFAR10", FakeCifar)
    folder = tmp_path / "shifted" / "CIFAR-10-C"
    folder.mkdir(parents=True)
    clean = np.concatenate([FakeCifar("", False).data] * 5)
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", clean if name != "fog" else np.zeros_like(clean))
    np.save(folder / "labels.npy", np.tile(np.arange(NUM_TEST) % 10, 5).astype(np.uint8))
    images = ["data.name=cifar10", f"data.root={tmp_path}", "data.image_size=32"]
    return [*NETWORK, *images, "data.num_workers=0"]


def _run(kind: str, words: list[str], out: Path) -> Record:
    assert main([kind, *words, "--out", str(out)]) == 0
    return read_record(out)


def _answers(record: Record, out: Path) -> ClassPredictions:
    found = read_predictions(out, record).predictions
    assert isinstance(found, ClassPredictions)
    return found


def _keep(folder: Path, *names: str) -> None:
    """Delete all other corruptions, which takes less time."""
    for path in (folder / "shifted" / "CIFAR-10-C").iterdir():
        if path.stem not in (*names, "labels"):
            path.unlink()


PROBE = ["probe.epochs=10", "probe.milestones=[8]", "probe.batch_size=30"]
TUNING = ["tuning.epochs=5", "tuning.milestones=[4]", "tuning.batch_size=20"]
TUNING += ["tuning.backbone_base_lr=0.1", "tuning.head_base_lr=1"]


@pytest.mark.parametrize(
    ("head", "protocol", "words"),
    [
        ("logistic", "dinov2", SEARCH),
        ("logistic", "kornblith", SEARCH),
        ("linear", "moco_v2", [*PROBE, "probe.mode=cached", "probe.base_lr=[0.1,0.3]"]),
        ("linear", "mean_shift", [*PROBE, "probe.base_lr=1"]),
        ("finetune", "swav_10pct", [*TUNING, "subset.percent=null", "subset.per_class=6"]),
    ],
)
def test_a_head_is_that_of_its_own_evaluator(
    cifar: list[str], tmp_path: Path, head: str, protocol: str, words: list[str]
) -> None:
    """The clean images are classified as by `rsa-eval HEAD`, unchanged copies alike.

    Black images are all of one class, so that nine of ten are wrong.
    """
    _keep(tmp_path, "fog", "snow")
    out, other = tmp_path / "robustness.json", tmp_path / "other.json"
    words = [f"protocol={protocol}", *words]
    settings = [f"head.name={head}", *(f"head.{word}" for word in words)]
    record = _run("robustness", [*cifar, *settings, f"shifts.root={tmp_path / 'shifted'}"], out)
    theirs = _run(head, [*cifar, *words], other)
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert 10 < values["top1"] < 100
    assert record.metrics["top1"] == theirs.metrics["top1"]
    assert record.metrics["top5"] == theirs.metrics["top5"]
    answers, own = _answers(record, out), _answers(theirs, other)
    assert np.array_equal(answers.predicted[0], own.predicted[0])
    for key in theirs.details.keys() - {"num_published_validation_images"}:
        assert record.details[key] == theirs.details[key]
    assert record.deviations == theirs.deviations
    assert record.protocol == f"{head}_{protocol}"

    shift = record.details["shifts"]["cifar10_c"]
    assert shift["corruptions"]["fog"]["error"] == [90.0] * 5
    assert shift["corruptions"]["snow"]["error"] == pytest.approx([100 - values["top1"]] * 5)
    assert shift["corruptions"]["snow"]["ece"] == pytest.approx([values["ece"]] * 5)


def test_the_usual_metric_of_the_data_set_chooses_and_is_recorded(
    cifar: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is the mean over classes, as `rsa-eval logistic` does."""
    sets = [replace(own, metric="mean_per_class") for own in DATA_SETS if own.name == "cifar10"]
    monkeypatch.setattr("rsa_eval.evaluators.shared.labelled_images.DATA_SETS", sets)
    _keep(tmp_path, "fog")
    words = [*cifar, *LOGISTIC, f"shifts.root={tmp_path / 'shifted'}"]
    record = _run("robustness", words, tmp_path / "out.json")
    theirs = _run("logistic", [*cifar, *SEARCH], tmp_path / "other.json")
    assert record.metrics["mean_per_class"] == theirs.metrics["mean_per_class"]
    assert record.details["held_out"] == theirs.details["held_out"]


def test_a_stopped_training_is_resumed(
    cifar: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after a step, the rerun takes the others and ends as a run that was not stopped."""
    _keep(tmp_path, "fog")
    words = [*cifar, "head.name=finetune", *(f"head.{word}" for word in TUNING)]
    words += ["head.subset=null", f"shifts.root={tmp_path / 'shifted'}"]
    whole = _run("robustness", words, tmp_path / "whole.json")
    take_step, taken = Tuning._take_step, []

    def stopping(self: Tuning, *arguments: Any) -> None:
        taken.append(self.step)
        take_step(self, *arguments)
        if len(taken) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Tuning, "_take_step", stopping)
    out = tmp_path / "out.json"
    assert main(["robustness", *words, "--out", str(out)]) == 128 + signal.SIGTERM
    assert not out.exists()
    assert _run("robustness", words, out).metrics == whole.metrics
    assert taken == list(range(25))
    assert not list(tmp_path.glob("*.state*"))


def test_records_of_two_heads_lie_side_by_side() -> None:
    """The record's name has the head's, and one head's settings are not another's."""
    data = {"name": "cifar10", "root": "x", "image_size": 32}
    heads = [{"name": "logistic"}, {"name": "linear", "protocol": "dinov2"}, {"name": "finetune"}]
    configs = [parse_tree(RobustnessConfig, {"data": data, "head": head}, None) for head in heads]
    assert [record_name("robustness", config) for config in configs] == [
        "robustness-logistic_dinov2-cifar10.json",
        "robustness-linear_dinov2-cifar10.json",
        "robustness-finetune_swav_10pct-cifar10.json",
    ]
    assert len(configs[1].head_evaluation().probe.base_lr) == 13
    tree: dict[str, Any] = {"data": data, "head": {"name": "linear", "tuning": {"epochs": 3}}}
    with pytest.raises(UserError, match=r"'head\.tuning' is not .* but of another 'head\.name'"):
        parse_tree(RobustnessConfig, tree, None)
    tree = {"data": data, "head": {"name": "knn"}}
    with pytest.raises(UserError, match=r"'head\.name' is 'knn', expected one of 'logistic', "):
        parse_tree(RobustnessConfig, tree, None)
    tree = {"data": data, "head": {"search": {"num_values": 3}}}
    assert parse_tree(RobustnessConfig, tree, None).head.name == "logistic"
    tree = {"data": data, "head": {"name": "finetune"}, "layers": ["layer3"]}
    with pytest.raises(UserError, match=r"^fine-tuning trains the whole backbone"):
        parse_tree(RobustnessConfig, tree, None)


def test_cifar_c_end_to_end(cifar: list[str], tmp_path: Path) -> None:
    """The means are over the 75 sets, each in its record and its file of answers."""
    out = tmp_path / "robustness.json"
    record = _run("robustness", [*cifar, *LOGISTIC, f"shifts.root={tmp_path / 'shifted'}"], out)
    values = {name: metric.value for name, metric in record.metrics.items()}
    kept = _answers(record, out)
    error = (14 * (100 - values["top1"]) + 90) / 15
    assert values["mean_corruption_error"] == pytest.approx(error)
    assert values["top1_cifar10_c"] == pytest.approx(100 - error)
    assert kept.value("top1_cifar10_c") == pytest.approx(100 - error)
    assert record.headline == "top1_cifar10_c"
    assert record.metrics["top1_cifar10_c"].interval is not None
    assert "mce" not in values
    assert sum(each["count"] for each in record.details["bins"]) == NUM_TEST
    assert record.details["left_out"] == []


def test_a_subset_is_corrupted_alike(cifar: list[str], tmp_path: Path) -> None:
    """Corrupted images are those of the subset of the clean ones, also from a cache."""
    words = [*cifar, *LOGISTIC, f"shifts.cifar10_c={tmp_path / 'shifted' / 'CIFAR-10-C'}"]
    words += ["data.num_test_images=20", f"cache_dir={tmp_path / 'cache'}"]
    first = _run("robustness", words, tmp_path / "first.json")
    second = _run("robustness", words, tmp_path / "second.json")
    assert first.metrics == second.metrics
    own = first.details["shifts"]["cifar10_c"]["corruptions"]["snow"]["error"]
    assert own == pytest.approx([100 - first.metrics["top1"].value] * 5)
    assert len(list((tmp_path / "cache").glob("cifar10_c_*"))) == 75


def test_an_incomplete_set_has_no_mean(cifar: list[str], tmp_path: Path) -> None:
    """Without snow there is no mean over 15; the record says what to fetch and keeps the others."""
    (tmp_path / "shifted" / "CIFAR-10-C" / "snow.npy").unlink()
    words = [*cifar, *LOGISTIC, f"shifts.root={tmp_path / 'shifted'}"]
    record = _run("robustness", words, tmp_path / "out.json")
    assert set(record.metrics) == {"top1", "top5", "ece"}
    assert record.headline == "top1"
    (left_out,) = record.details["left_out"]
    assert left_out.startswith("means over the corruptions of cifar10_c: no snow; fetch CIFAR-10-C")
    assert len(record.details["shifts"]["cifar10_c"]["corruptions"]) == 14


def test_nothing_to_test_on_is_one_line(
    cifar: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says which setting names which folder, before it extracts anything."""
    assert main(["robustness", *cifar, "--out", str(tmp_path / "out.json")]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("error: no shifted test images of cifar10 are present; set shifts.root")
    )


IDS = [f"n{number:08d}" for number in range(1000)]
WANTED = [IDS[0], IDS[3], IDS[7]]


def _save(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG")  # lossless, whatever the name


@pytest.fixture
def imagenet(tmp_path: Path) -> list[str]:
    """Settings of three classes of ImageNet; the corrupted images are the clean ones' centres."""
    for split, seed, per_class in (("train", 0, 12), ("val", 2, 4)):
        pixels = _coloured(10 * per_class, seed, side=40)
        for place, name in enumerate(WANTED):
            for image in range(per_class):
                own = pixels[10 * image + 4 * place]
                _save(tmp_path / split / name / f"{image}.JPEG", own)
                for corruption in CORRUPTIONS if split == "val" else ():
                    for severity in "12345":
                        folder = tmp_path / "shifted" / "ImageNet-C" / corruption / severity
                        _save(folder / name / f"{image}.JPEG", own[4:36, 4:36])
    for folder, names in (("imagenet-r", IDS[1:201]), ("sketch", IDS)):
        for name in names:
            (tmp_path / "shifted" / folder / name).mkdir(parents=True)
            if name in WANTED:
                grey = np.full((50, 40, 3), 60 + 52 * WANTED.index(name), np.uint8)
                _save(tmp_path / "shifted" / folder / name / "0.jpg", grey)
    (tmp_path / "classes.txt").write_text("\n".join(WANTED))
    images = ["data.name=imagenet100", f"data.root={tmp_path}", "data.image_size=32"]
    crop = ["data.eval_resize=40", f"data.class_list={tmp_path / 'classes.txt'}"]
    return [*NETWORK, *images, *crop, "data.num_workers=0"]


def test_imagenet_sets_end_to_end(imagenet: list[str], tmp_path: Path) -> None:
    """ImageNet-C is not cropped again; the renditions have two of the three classes."""
    words = [*imagenet, *LOGISTIC, f"shifts.root={tmp_path / 'shifted'}"]
    record = _run("robustness", words, tmp_path / "out.json")
    values = {name: metric.value for name, metric in record.metrics.items()}
    assert values["top1_imagenet_c"] == pytest.approx(values["top1"])
    assert values["ece_imagenet_c"] == pytest.approx(values["ece"])
    assert values["mean_corruption_error"] == pytest.approx(100 - values["top1"])
    renditions, sketches = (record.details["shifts"][f"imagenet_{own}"] for own in ("r", "sketch"))
    assert (renditions["count"], renditions["classes"]) == (2, 2)
    assert (sketches["count"], sketches["classes"]) == (3, 3)
    assert min(each["low"] for each in renditions["bins"] if each["count"]) >= 0.4
    assert record.metrics["top1_imagenet_r"].interval is not None
    (left_out,) = record.details["left_out"]
    assert left_out.startswith("imagenet_a: fetch imagenet-a.tar")
    assert "ImageNet-C resized to 32 px (protocol: 224)" in record.deviations
    assert "2 classes of ImageNet-R (protocol: 200)" in record.deviations
    assert "3 classes of ImageNet-Sketch (protocol: 1,000)" in record.deviations


def test_a_damaged_image_is_named(
    imagenet: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is no image ends the evaluation in one line, without a record."""
    path = tmp_path / "shifted" / "imagenet-r" / WANTED[1] / "0.jpg"
    path.write_bytes(path.read_bytes()[:60])
    words = [*imagenet, *LOGISTIC, f"shifts.imagenet_r={path.parents[1]}"]
    assert main(["robustness", *words, "--out", str(tmp_path / "out.json")]) == 2
    assert f"'{path}'" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out.json").exists()


def test_mce_of_1000_classes() -> None:
    """With ImageNet-C's classes each error is relative to AlexNet's, and extras do not count."""
    images = ImageSet.from_array("x", np.zeros((4, 8, 8, 3), np.uint8), [0] * 4, ["a"])
    names = [*CORRUPTIONS, "spatter"]
    found = CorruptedImages({name: [images] * 5 for name in names}, [])
    ranks = iter([[1, 1, 0, 0]] * 75 + [[0, 0, 0, 0]] * 5)

    def grade_images(_: ImageSet) -> Graded:
        own: Any = np.array(next(ranks), np.int32)
        right = own == 0
        return Graded(Answers(own, own), calibration_error(right.astype(np.float64), right, 15))

    (shift,) = [each for each in SHIFTS if each.name == "imagenet_c"]
    scores = score_corrupted(shift, found, 1000, grade_images)
    expected = np.mean([100 * 50 / own for own in ALEXNET_ERRORS.values()])
    assert scores.metrics["mce"].value == pytest.approx(expected)
    assert scores.metrics["top1_imagenet_c"].value == pytest.approx(50)
    assert "mean_corruption_error" not in scores.metrics
    fog = scores.details["corruptions"]["fog"]
    assert fog["corruption_error"] == pytest.approx(5000 / 81.9324)
    assert scores.details["extra_corruptions"]["spatter"]["error"] == [0.0] * 5
    assert "corruption_error" not in scores.details["extra_corruptions"]["spatter"]
    assert len(scores.answers) == 75
