"""Fine-tuning for images with several classes: its loss, its choice, and the command."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transfer_trees
from resampling import voc_average_precision
from torch import Tensor

from rsa_eval.__main__ import main
from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.finetune import search
from rsa_eval.evaluators.finetune.evaluator import evaluate_finetune, finetune_deviations
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import MultiLabelTask, open_tasks
from rsa_eval.evaluators.finetune.tuning import Tuning
from rsa_eval.evaluators.logistic.objective import sigmoid_loss
from rsa_eval.evaluators.shared.multi_label import MultiLabelSet
from rsa_eval.features.subject import Subject
from rsa_eval.records.ranking_predictions import RankingPredictions
from rsa_eval.records.record import Scores, read_record
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

pytestmark = pytest.mark.usefixtures("small_counts")

GRID = {"base_lr": [0.01, 0.1], "decays": [0.0]}
# Two images of cats and dogs, one left out of dogs, one of neither.
TRUTH = np.array([[1, 1], [1, 0], [-1, -1]], np.int8)


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """Settings for a small tree of VOC2007."""
    transfer_trees.voc2007(tmp_path / "data")
    return {
        "data": {
            "name": "imagefolder",
            "root": str(tmp_path / "data" / "VOCdevkit" / "VOC2007"),
            "image_size": 16,
            "num_workers": 0,
        },
        "multi_label": {"name": "voc2007", "layout": "voc"},
        "device": "cpu",
        "protocol": "byol",
        "tuning": {"steps": 3, "batch_size": 16},
        "grid": GRID,
    }


def _config(tree: dict[str, Any], **changes: Any) -> FinetuneConfig:
    return parse_tree(FinetuneConfig, tree | changes, "test")


def _task(labels: list[int]) -> MultiLabelTask:
    pixels = np.zeros((len(labels), 8, 8, 3), np.uint8)
    images = ImageSet.from_array("made up", pixels, labels, ["both", "cat", "none"])
    return MultiLabelTask(MultiLabelSet(images, TRUTH, ["cat", "dog"]))


def test_the_loss_by_hand() -> None:
    """The mean over both classes of log(1 + exp(-x)) for present and of log(1 + exp(x)) for absent.

    Logits of 0 and ln 3 for the first image, ln 3 for the cat of the second, -ln 3 and 0 for the
    third: ln 2 + ln 4/3, ln 4/3, and ln 4/3 + ln 2.
    """
    log3 = float(np.log(3))
    logits = torch.tensor([[0.0, log3], [log3, 77.0], [-log3, 0.0]], requires_grad=True)
    loss = _task([0, 1, 2]).loss(logits, torch.tensor([0, 1, 2]))
    expected = (2 * np.log(2) + 3 * np.log(4 / 3)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[1, 1] == 0
    np.testing.assert_allclose(
        gradient, [[-1 / 4, -1 / 8], [-1 / 8, 0], [1 / 8, 1 / 4]], rtol=1e-6, atol=1e-9
    )


def test_the_loss_is_that_of_the_logistic_regression() -> None:
    """Divided by the number of classes, on random logits."""
    labels = torch.arange(30) % 3
    logits = 5 * torch.randn(30, 2, dtype=torch.float64)
    found = _task(labels.tolist()).loss(logits, labels)
    expected = sigmoid_loss(logits, torch.from_numpy(TRUTH)[labels]).loss / 2
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def _eleven_points(logits: Tensor, truth: Any) -> float:
    columns = zip(logits.double().numpy().T, truth.T, strict=True)
    return float(
        np.mean([voc_average_precision(s[t != 0], t[t != 0] == 1, True) for s, t in columns])
    )


def test_scores_are_mean_average_precisions() -> None:
    """Against the literal definition; the answers are kept, and NaN is no answer."""
    labels = [0, 1, 2, 2, 1, 0, 2]
    task, logits = _task(labels), torch.randn(7, 2)
    blocks = [(logits[:4], torch.tensor(labels[:4])), (logits[4:], torch.tensor(labels[4:]))]
    scores = task.scores(blocks)
    assert scores is not None
    assert scores.value == pytest.approx(_eleven_points(logits, TRUTH[labels]))
    assert scores.headline == "mAP_11_points"
    assert isinstance(scores.predictions, RankingPredictions)
    assert np.array_equal(scores.predictions.truth, TRUTH[labels])
    assert scores.predictions.interval("mAP_11_points") is not None
    assert task.scores([(logits * torch.nan, torch.tensor(labels))]) is None


def test_eleven_points_on_the_published_images_choose(
    tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second pair ranks them rightly, the first wrongly; the others of trainval train."""
    trained: list[list[str]] = []
    ranked: list[list[str]] = []

    def fine_tune(_: Any, task: MultiLabelTask, config: FinetuneConfig, *__: Any) -> Any:
        trained.append(task.images.keys())
        return config

    def classify(_: Any, own: Any, task: MultiLabelTask, __: str) -> Scores:
        ranked.append(task.images.keys())
        sign = 1 if own.tuning.head_base_lr == 0.1 else -1
        logits = sign * torch.from_numpy(task.labelled.every_truth).float()
        scores = task.scores([(logits, task.images.labels_of(range(len(task.images))))])
        assert scores is not None
        return scores

    monkeypatch.setattr(search, "fine_tune", fine_tune)
    monkeypatch.setattr(search, "classify", classify)
    monkeypatch.setattr(search, "task_fingerprint", lambda *_: "same")
    config = _config(tree)
    train, _ = open_tasks(config)
    choice = search.choose_cell(None, train, config, Workspace(tmp_path / "r.json"))  # type: ignore[arg-type]
    assert choice.config.tuning.head_base_lr == 0.1
    values = [each["value"] for each in choice.details["grid"]]
    assert values[1] == 100 > values[0]
    assert choice.details["validation"]["metric"] == "mAP_11_points"
    assert choice.details["validation"]["split"] == "published"
    expected = [f"JPEGImages/{number:06}.jpg" for number in range(24)]
    assert trained == [expected[:12]] * 2
    assert ranked == [expected[12:]] * 2


def test_a_stopped_training_ends_as_an_undisturbed_one(
    subject: Subject, tree: dict[str, Any], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second pair; scores, loss and choice are the same, the annotation counts."""
    config = _config(tree)
    whole = evaluate_finetune(subject, config, workspace)
    workspace.remove_states()
    taken: list[int] = []
    take_step = Tuning._take_step

    def counting(self: Tuning, *words: Any) -> None:
        taken.append(self.step)
        if len(taken) == 5:
            signal.raise_signal(signal.SIGTERM)
        take_step(self, *words)

    monkeypatch.setattr(Tuning, "_take_step", counting)
    with pytest.raises(Stopped, match="after step 2 of 3, saved"):
        evaluate_finetune(subject, config, workspace)
    resumed = evaluate_finetune(subject, config, workspace)
    assert len(taken) == 9
    assert resumed.details == whole.details
    assert resumed.metrics == whole.metrics
    assert isinstance(whole.predictions, RankingPredictions)
    assert isinstance(resumed.predictions, RankingPredictions)
    assert np.array_equal(resumed.predictions.scores, whole.predictions.scores)
    assert (whole.num_samples, len(whole.test_keys)) == (12, 12)
    assert whole.details["labelled"]["count"] == 24
    assert whole.details["num_labels_left_out"] == {"train": 6, "test": 2}
    assert not any("drawn" in text for text in whole.deviations)


def test_other_validation_images_start_the_search_over(
    subject: Subject,
    tree: dict[str, Any],
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Pairs are compared on the same images: one less in the list of val, and none is kept."""
    config = _config(tree, multi_label={"name": "mine", "layout": "voc"})
    trained: list[int] = []
    fine_tune = search.fine_tune

    def dying(subject: Subject, task: MultiLabelTask, *words: Any) -> Tuning:
        trained.append(len(task.images))
        if len(trained) == 2:
            raise KeyboardInterrupt
        return fine_tune(subject, task, *words)

    monkeypatch.setattr(search, "fine_tune", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_finetune(subject, config, workspace)
    for path in (Path(tree["data"]["root"]) / "ImageSets" / "Main").glob("*_val.txt"):
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    evaluate_finetune(subject, config, workspace)
    assert trained == [12, 12, 13, 13]
    assert (
        "belongs to other weights, images or settings; training starts from pair 0" in caplog.text
    )


def test_other_annotation_is_another_training(
    subject: Subject,
    tree: dict[str, Any],
    workspace: Workspace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Difficult dogs that become dogs leave as many combinations of classes, and another state."""
    config = _config(tree, grid={"base_lr": [0.1], "decays": [0.0]})
    evaluate_finetune(subject, config, workspace)
    for path in (Path(tree["data"]["root"]) / "ImageSets" / "Main").glob("dog_*.txt"):
        path.write_text(path.read_text().replace("  0", "  1"))
    evaluate_finetune(subject, config, workspace)
    assert "belongs to other weights, images or settings" in caplog.text


def test_the_command(run_folder: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    """A table without published validation images draws some; the record lists what differs."""
    root = Path(tree["data"]["root"])
    names = sorted(path.name for path in (root / "JPEGImages").iterdir())
    for split, own in (("train", names[:24]), ("test", names[24:])):
        rows = [
            f"JPEGImages/{name},{1 - 2 * (number % 2)},{1 - 2 * (number % 3 > 0)}"
            for number, name in enumerate(own)
        ]
        (root / f"{split}.csv").write_text("\n".join(["image,cat,dog", *rows]) + "\n")
    labels = {"name": "photos", "layout": "csv", "train_split": "train"}
    changed = tree | {"multi_label": labels, "grid": GRID | {"held_out_percent": 50}}
    words = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    out = tmp_path / "record.json"
    assert main(["finetune", str(run_folder), "--out", str(out), *words]) == 0
    record = read_record(out)
    assert (record.data_set, record.headline) == ("photos", "mAP_11_points")
    assert record.details["validation"] | {"sha256": ""} == {
        "metric": "mAP_11_points",
        "split": "drawn",
        "count": 12,
        "sha256": "",
    }
    assert [own["class"] for own in record.details["classes"]] == ["cat", "dog"]
    assert record.metrics["mAP_11_points"].interval is not None
    drawn = "50 % of all images drawn for validation (protocol: its authors' own draw)"
    assert drawn in record.deviations


def test_departures_of_voc(tree: dict[str, Any]) -> None:
    """None in images, labels and validation: val is published."""
    data = tree["data"] | {"image_size": 224, "eval_resize": 256, "eval_interpolation": "bicubic"}
    published = {key: tree[key] for key in ("multi_label", "protocol")}
    assert finetune_deviations(_config({"data": data, **published})) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "swav_10pct"}, "takes no subset by class, found 10pct; set subset=null"),
        (
            {
                "multi_label": {"name": "x", "layout": "csv", "val_split": "val"},
                "grid": {"base_lr": [], "decays": []},
            },
            r"val_split chooses rate and decay, and there is no search",
        ),
        ({"data": {"name": "digits", "image_size": 32}}, r"needs data\.name=imagefolder"),
    ],
)
def test_invalid_settings(tree: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    """A contradiction is found when the config is loaded."""
    with pytest.raises(UserError, match=message):
        _config({key: tree[key] for key in ("data", "multi_label", "protocol")}, **changes)


def test_a_class_without_positives(tree: dict[str, Any]) -> None:
    """The error names the class and the split before anything is trained."""
    lists = Path(tree["data"]["root"]) / "ImageSets" / "Main"
    for split, images in (("test", "12 test images"), ("trainval", "24 training images")):
        path = lists / f"dog_{split}.txt"
        before = path.read_text()
        path.write_text(before.replace("  1", " -1"))
        with pytest.raises(UserError, match=f"none of the {images} is of class dog"):
            open_tasks(_config(tree))
        path.write_text(before)
