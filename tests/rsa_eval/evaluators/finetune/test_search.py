"""The search over a grid: what it chooses, on which images, and how it resumes."""

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transfer_trees

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.finetune import evaluator, search
from rsa_eval.evaluators.finetune.evaluator import evaluate_finetune
from rsa_eval.evaluators.finetune.settings import FinetuneConfig
from rsa_eval.evaluators.finetune.task import ClassTask
from rsa_eval.evaluators.finetune.tuning import Diverged, Tuning
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import Subject, load_subject
from rsa_eval.records.record import WARNINGS, Result, Scores
from rsa_pretrain.data.image_folder import ImageFiles
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.stop_signal import Stopped

pytestmark = pytest.mark.usefixtures("small_counts")

# 24 digits, of which 5 are held out, in three steps an epoch: the last epoch has two.
SHORT = {"steps": 5, "batch_size": 8}
GRID = {"base_lr": [0.01, 0.1], "decays": [0.0, 0.001]}


def _digits(knn_config: KNNConfig, **changes: Any) -> FinetuneConfig:
    data = to_tree(knn_config.data) | {"image_size": 16, "num_train_images": 24}
    tree = {"data": data, "device": "cpu", "batch_size": 16, "protocol": "byol"}
    return parse_tree(FinetuneConfig, tree | {"tuning": SHORT, "grid": GRID} | changes, "test")


def _tree_of(name: str, root: Path, **changes: Any) -> FinetuneConfig:
    transfer_trees.WRITERS[name](root)
    data = {"name": name, "root": str(root), "image_size": 16, "num_workers": 0}
    tree = {"data": data, "device": "cpu", "batch_size": 64, "protocol": "byol"}
    settings = {"tuning": {"steps": 2, "batch_size": 64}, "grid": GRID}
    return parse_tree(FinetuneConfig, tree | settings | changes, "test")


class _FakeTraining:
    """Trainings that are not carried out, and answers by a table of rates and decays.

    Args:
        right: Validation images that a pair answers rightly; a pair that is missing diverges.
    """

    def __init__(self, right: dict[tuple[float, float], list[int]]) -> None:
        self.right = right
        self.sets: list[ImageSet] = []

    def fine_tune(self, _: Subject, task: ClassTask, config: FinetuneConfig, *__: Any) -> Any:
        """Note the images, and return the settings as the trained network."""
        self.sets.append(task.images)
        return config

    def classify(self, _: Subject, config: Any, task: ClassTask, __: str) -> Scores:
        """Answer by the table: class 0 wherever wrong, or class 1 where that is right."""
        tuning = config.tuning
        decay = round(tuning.weight_decay * tuning.head_base_lr * tuning.batch_size / 256, 9)
        numbers = self.right.get((tuning.head_base_lr, decay))
        if numbers is None:
            raise Diverged("the loss of fine-tuning is nan in epoch 0", config)
        labels = task.images.labels_of(range(len(task.images)))
        predicted = (labels == 0).long()
        predicted[numbers] = labels[numbers]
        return _scored(task, predicted)


def _scored(task: ClassTask, predicted: torch.Tensor) -> Scores:
    """Return the scores of a network that predicts these classes."""
    labels = task.images.labels_of(range(len(task.images)))
    logits = torch.nn.functional.one_hot(predicted, task.num_outputs).float()
    scores = task.scores([(logits, labels)])
    assert scores is not None
    return scores


def _choose(
    fake: _FakeTraining, config: FinetuneConfig, images: ImageSet, monkeypatch: Any, folder: Path
) -> search.ChosenCell:
    monkeypatch.setattr(search, "fine_tune", fake.fine_tune)
    monkeypatch.setattr(search, "classify", fake.classify)
    monkeypatch.setattr(search, "task_fingerprint", lambda *_: "same")
    return search.choose_cell(None, ClassTask(images), config, Workspace(folder / "record.json"))  # type: ignore[arg-type]


def test_validation_decides(
    knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of 5 validation images 2, 4, 4 and 3 are right: the first pair with 4 is chosen."""
    config = _digits(knn_config, tuning=SHORT | {"batch_size": 128})
    images = open_images(config.data, "train")
    right = {(0.01, 0.0): 2, (0.01, 0.001): 4, (0.1, 0.0): 4, (0.1, 0.001): 3}
    fake = _FakeTraining({pair: list(range(count)) for pair, count in right.items()})
    choice = _choose(fake, config, images, monkeypatch, tmp_path)
    assert [(each["base_lr"], each["decay"], each["value"]) for each in choice.details["grid"]] == [
        (*pair, 20.0 * count) for pair, count in right.items()
    ]
    tuning = choice.config.tuning
    assert (tuning.backbone_base_lr, tuning.head_base_lr) == (0.01, 0.01)
    assert tuning.weight_decay == pytest.approx(0.001 / 0.005)  # the rate at batch 128 is half
    assert choice.details["chosen"]["weight_decay"] == tuning.weight_decay
    assert choice.details["validation"]["metric"] == "top1"
    assert choice.details["validation"]["split"] == "drawn"
    assert choice.details[WARNINGS] == [
        "the best grid.base_lr of 2, 0.01, is the lowest tried; another may be better"
    ]
    assert {len(each) for each in fake.sets} == {19}


def test_a_rate_inside_the_grid_is_no_warning(
    knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The best of three rates is the middle one; the highest diverges and says why."""
    config = _digits(knn_config, grid={"base_lr": [0.01, 0.1, 1.0], "decays": [0.0]})
    images = open_images(config.data, "train")
    fake = _FakeTraining({(0.01, 0.0): [0], (0.1, 0.0): [0, 1]})
    choice = _choose(fake, config, images, monkeypatch, tmp_path)
    assert choice.config.tuning.head_base_lr == 0.1
    assert choice.details["grid"][2]["value"] is None
    assert choice.details["grid"][2]["failure"] == "the loss of fine-tuning is nan in epoch 0"
    assert WARNINGS not in choice.details


def test_a_single_pair_is_not_searched(
    knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It is what will be trained, and no image is held out."""
    config = _digits(knn_config, grid={"base_lr": [0.5], "decays": [0.01]})
    fake = _FakeTraining({})
    images = open_images(config.data, "train")
    choice = _choose(fake, config, images, monkeypatch, tmp_path)
    assert (choice.config.tuning.backbone_base_lr, choice.details) == (0.5, {})
    assert not fake.sets


def test_the_data_sets_metric_chooses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Pets: five right of one breed are worth less than one right of each of three."""
    config = _tree_of("oxford_pets", tmp_path / "data", grid=GRID | {"held_out_percent": 50})
    images = open_images(config.data, "train")
    names = np.flatnonzero(np.asarray(images.labels) < 4)
    few = images.select(np.concatenate([names, np.repeat(names[:1], 8)]))
    fake = _FakeTraining({})

    def classify(_: Any, own: Any, task: ClassTask, __: str) -> Scores:
        labels = task.images.labels_of(range(len(task.images)))
        is_first = own.tuning.head_base_lr == 0.01
        predicted = torch.where((labels == 0) == is_first, labels, (labels + 1) % 4)
        return _scored(task, predicted)

    fake.classify = classify  # type: ignore[method-assign]
    choice = _choose(fake, config, few, monkeypatch, tmp_path)
    assert choice.details["validation"]["metric"] == "mean_per_class"
    assert [each["value"] for each in choice.details["grid"]] == [25.0, 25.0, 75.0, 75.0]
    assert choice.config.tuning.head_base_lr == 0.1


@pytest.mark.parametrize("data_set", ["dtd", "flowers102"])
def test_the_published_validation_split_is_taken(
    data_set: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Trained is on the other images of the training split, in their order."""
    config = _tree_of(data_set, tmp_path / "data")
    images = open_images(config.data, "train")
    published = open_images(config.data, "val")
    fake = _FakeTraining({(0.01, 0.0): [0], (0.1, 0.0): [0]})
    choice = _choose(fake, config, images, monkeypatch, tmp_path)
    names, set_aside = images.keys(), set(published.keys())
    expected = [name for name in names if name not in set_aside]
    assert 0 < len(expected) < len(images)
    assert all(each.keys() == expected for each in fake.sets)
    assert choice.details["validation"]["split"] == "published"
    assert choice.details["validation"]["count"] == len(published)
    assert choice.details["validation"]["sha256"] == published.fingerprint()


def test_a_subset_without_validation_images_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says how many of the labelled images are in the split."""
    config = _tree_of("dtd", tmp_path / "data")
    only = open_images(config.data, "val")
    with pytest.raises(
        UserError, match=r"47 of 47 training images of dtd are .* expected some and others"
    ):
        _choose(_FakeTraining({}), config, only, monkeypatch, tmp_path)


def test_test_images_are_read_after_the_last_training(
    knn_config: KNNConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished_run: Path
) -> None:
    """Until the final network is tested nobody decodes one; then each is decoded once."""
    config = _tree_of("dtd", tmp_path / "data")
    subject = load_subject(finished_run, config)
    read: list[str] = []
    read_file = ImageFiles.read
    monkeypatch.setattr(
        ImageFiles, "read", lambda self, row: read.append(self.key(row)) or read_file(self, row)
    )
    before: list[int] = []
    classify = evaluator.classify
    monkeypatch.setattr(
        evaluator, "classify", lambda *words: before.append(len(read)) or classify(*words)
    )
    result = evaluate_finetune(subject, config, Workspace(tmp_path / "record.json"))
    test = set(open_images(config.data, "test").keys())
    assert len(before) == 1
    assert before[0] > 0
    assert not test & set(read[: before[0]])
    assert sorted(read[before[0] :]) == sorted(test)
    assert (result.num_samples, result.headline) == (47, "top1")
    assert result.details["labelled"]["count"] == 94
    assert len(result.details["grid"]) == 4


def _states(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Return a list that receives the tensors of each final network."""
    found: list[dict[str, torch.Tensor]] = []
    fine_tune = evaluator.fine_tune

    def keeping(*words: Any) -> Tuning:
        tuning = fine_tune(*words)
        found.append(tuning.classifier.state_dict())
        return tuning

    monkeypatch.setattr(evaluator, "fine_tune", keeping)
    return found


def _is_same(first: Result, second: Result) -> bool:
    assert first.predictions is not None
    assert second.predictions is not None
    ones, others = first.predictions.arrays(), second.predictions.arrays()
    return all(np.array_equal(one, others[name]) for name, one in ones.items())


# Pairs take 5 steps each: the third training is stopped in its middle, the fifth is the final one.
@pytest.mark.parametrize("step", [12, 15, 23])
def test_a_stopped_search_ends_as_an_undisturbed_one(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    """Inside a pair, at its end or in the final training: finished pairs are not trained again."""
    config, states = _digits(knn_config), _states(monkeypatch)
    whole = evaluate_finetune(subject, config, workspace)
    workspace.remove_states()
    taken: list[int] = []
    take_step = Tuning._take_step

    def counting(self: Tuning, *words: Any) -> None:
        taken.append(self.step)
        if len(taken) == step:
            signal.raise_signal(signal.SIGTERM)
        take_step(self, *words)

    monkeypatch.setattr(Tuning, "_take_step", counting)
    with pytest.raises(Stopped, match=rf"after step {(step - 1) % 5 + 1} of 5, saved"):
        evaluate_finetune(subject, config, workspace)
    assert workspace.grid_state.exists()
    resumed = evaluate_finetune(subject, config, workspace)
    assert len(taken) == 25
    assert resumed.details == whole.details
    assert resumed.metrics == whole.metrics
    assert _is_same(resumed, whole)
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    workspace.remove_states()
    assert not list(workspace.record.parent.glob("*.pt"))


def test_killed_between_two_pairs_it_skips_the_finished_ones(
    subject: Subject,
    knn_config: KNNConfig,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two pairs are done when the process dies; two trainings and the final one are left."""
    config, states = _digits(knn_config), _states(monkeypatch)
    whole = evaluate_finetune(subject, config, workspace)
    workspace.remove_states()
    labels: list[str] = []
    fine_tune = search.fine_tune

    def dying(*words: Any) -> Tuning:
        labels.append(words[-1])
        if len(labels) == 3:
            raise KeyboardInterrupt
        return fine_tune(*words)

    monkeypatch.setattr(search, "fine_tune", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_finetune(subject, config, workspace)
    resumed = evaluate_finetune(subject, config, workspace)
    assert [label.split()[2] for label in labels] == ["1", "2", "3", "3", "4"]
    assert resumed.details == whole.details
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_other_settings_start_the_search_over(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """Results of another seed are not taken for this one's."""
    evaluate_finetune(subject, _digits(knn_config), workspace)
    other = evaluate_finetune(subject, _digits(knn_config, seed=1), workspace)
    assert "belongs to other weights, images or settings" in caplog.text
    workspace.remove_states()
    fresh = evaluate_finetune(subject, _digits(knn_config, seed=1), workspace)
    assert other.details == fresh.details


def test_a_pair_that_diverges_is_a_result(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """The reason is in the details, and the other rate is trained with."""
    config = _digits(knn_config, grid={"base_lr": [0.01, 1e30], "decays": [0.0]})
    result = evaluate_finetune(subject, config, workspace)
    kept, failed = result.details["grid"]
    assert kept["failure"] is None
    assert failed["value"] is None
    assert "loss of fine-tuning is" in failed["failure"]
    assert result.details["chosen"]["base_lr"] == 0.01
    assert len(result.details["loss_by_epoch"]) == 2  # 5 steps of 3 an epoch


def test_nothing_to_choose_is_an_error(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """If every pair diverges the first reason is given."""
    config = _digits(knn_config, grid={"base_lr": [1e29, 1e30], "decays": [0.0]})
    with pytest.raises(UserError, match=r"each of the 2 pairs .*the loss of .*lower grid\.base_lr"):
        evaluate_finetune(subject, config, workspace)
