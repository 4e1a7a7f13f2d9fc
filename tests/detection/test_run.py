import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from detection.engines.torchvision import run_state, trainer
from detection.engines.torchvision.differences import DIFFERENCES_FROM_DETECTRON2
from detection.job.job import open_job
from detection.job.trunk import Trunk, load_trunk, random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_from_backbone, run_recipe
from rsa_eval.__main__ import main
from rsa_eval.records.detection_recipe import recipe_fingerprint
from rsa_eval.records.predictions import read_predictions
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.config.files import to_tree, write_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.folder_lock import LOCK_FILE
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.plumbing.stop_signal import StopSignal
from rsa_pretrain.weights.checkpoint import LoadedBackbone, list_checkpoints, load_checkpoint
from tests.support.held_folder import held_folder

pytestmark = pytest.mark.usefixtures("narrow_detector")

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def trunk(write_checkpoint: Callable[..., LoadedBackbone], make_recipe: MakeRecipe) -> Trunk:
    """The ResNet-18 checkpoint as a trunk."""
    return load_trunk(write_checkpoint().path, make_recipe().model)


def _send_signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: signal.Signals) -> None:
    """Let the process receive a real signal while step ``step`` is being taken."""
    train_step = trainer._Trainer._train_step

    def train_step_and_signal(self: Any, samples: Any) -> dict[str, float]:
        if self.state.step == step - 1:
            os.kill(os.getpid(), number)
        return train_step(self, samples)

    monkeypatch.setattr(trainer._Trainer, "_train_step", train_step_and_signal)


def _assert_same(first: Any, second: Any) -> None:
    """Compare nested states bitwise."""
    assert type(first) is type(second)
    if isinstance(first, Mapping):
        assert first.keys() == second.keys()
        for key in first:
            _assert_same(first[key], second[key])
    elif isinstance(first, list | tuple):
        assert len(first) == len(second)
        for left, right in zip(first, second, strict=True):
            _assert_same(left, right)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


def test_stopped_and_resumed_run_equals_a_straight_one(
    make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four steps, and two, SIGTERM, two more with a loader process: same tensors, same results."""
    straight = make_recipe(output_dir=tmp_path / "straight")
    exit_code, record = run_recipe(straight, trunk, resume=False)
    assert exit_code == 0
    assert record is not None

    halved = make_recipe(output_dir=tmp_path / "halved")
    with monkeypatch.context() as patch:
        _send_signal_at(patch, 2, signal.SIGTERM)
        assert run_recipe(halved, trunk, resume=False) == (128 + signal.SIGTERM, None)
    assert [path.name for path in list_checkpoints(tmp_path / "halved")] == ["step-00000002"]
    resumed = make_recipe(output_dir=tmp_path / "halved", data={"num_workers": 1})
    assert run_recipe(resumed, trunk, resume=True)[0] == 0

    last = [tmp_path / name / "checkpoints" / "last" for name in ("straight", "halved")]
    (tensors, metadata, state), (tensors_2, metadata_2, state_2) = map(load_checkpoint, last)
    _assert_same(tensors, tensors_2)
    _assert_same(state, state_2)
    assert metadata.step == metadata_2.step == 4
    predictions = [(tmp_path / n / "predictions.json").read_text() for n in ("straight", "halved")]
    assert predictions[0] == predictions[1]
    lines = read_metrics(tmp_path / "halved" / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [2, 4]
    assert [line["step"] for line in lines if "segm_AP" in line] == [4]


def test_resuming_completes_a_deletion(make_recipe: MakeRecipe, trunk: Trunk) -> None:
    """The checkpoint that a kill kept from being deleted goes, though no other is written."""
    recipe = make_recipe(training={"keep_checkpoints": 1})
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    folder = recipe.output_dir / "checkpoints"
    shutil.copytree(folder / "step-00000004", folder / "step-00000002")
    assert run_recipe(recipe, trunk, resume=True)[0] == 0
    assert {path.name for path in folder.iterdir()} == {"step-00000004", "last"}


def test_finished_run_holds_its_result(
    make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path
) -> None:
    """Record, predictions, metrics and checkpoint metadata are there and say what was done."""
    recipe = make_recipe(
        solver={"iterations": 2, "decay_at": [], "warmup_iterations": 0}, model={"arch": None}
    )
    recipe = recipe.model_copy(
        update={"training": recipe.training.model_copy(update={"evaluate_every_iterations": 1})}
    )
    run_recipe(recipe, trunk, resume=False)
    run_dir = recipe.output_dir
    record = read_record(run_dir / "records" / "detection.json")
    assert record.kind == "detection"
    assert record.headline == "segm_AP"
    assert {"bbox_AP", "bbox_AP50", "segm_AP", "segm_AP75"} <= set(record.metrics)
    assert {metric.unit for metric in record.metrics.values()} == {"%"}
    assert record.num_samples == 3
    assert record.model.sha256 == trunk.subject.sha256
    assert DIFFERENCES_FROM_DETECTRON2[0] in record.deviations
    assert record.details["engine"] == "torchvision"
    written = to_tree(recipe)
    written["model"]["arch"] = "resnet18"  # the checkpoint's
    assert record.details["recipe_fingerprint"] == recipe_fingerprint(written)
    predictions = json.loads((run_dir / "predictions.json").read_text(encoding="utf-8"))
    assert record.details["num_predictions"] == len(predictions)
    assert {entry["category_id"] for entry in predictions} <= {1, 2, 3}
    categories = record.details["categories"]
    assert [entry["name"] for entry in categories] == ["circle", "rectangle", "triangle"]
    values = [entry["segm_AP"] for entry in categories if entry["num_objects"]]
    assert record.metrics["segm_AP"].value == pytest.approx(sum(values) / len(values))
    lines = read_metrics(run_dir / "metrics.jsonl")
    curve = [(line["step"], line["segm_AP"]) for line in lines if "segm_AP" in line]
    assert [step for step, _ in curve] == [1, 2]
    assert curve[-1][1] == record.metrics["segm_AP"].value
    assert {"loss", "loss_mask", "lr"} <= set(lines[-2])
    _, metadata, _ = load_checkpoint(run_dir / "checkpoints" / "last")
    assert (metadata.step, metadata.method, metadata.parent) == (
        2,
        "mask_rcnn",
        trunk.subject.sha256,
    )
    assert metadata.mean == trunk.mean

    assert run_recipe(recipe, trunk, resume=True)[0] == 0
    assert read_metrics(run_dir / "metrics.jsonl") == lines


def test_detections_are_kept_and_compared_by_image(
    make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kept matches give the record's AP to the last digit; a copy shows no difference."""
    recipe = make_recipe(output_dir=tmp_path / "run")
    _, record = run_recipe(recipe, trunk, resume=False)
    assert record is not None
    path = tmp_path / "run" / "records" / "detection.json"
    kept = read_predictions(path, record)
    tree = json.loads(recipe.data.test_annotations.read_text())
    assert list(kept.keys) == [image["file_name"] for image in tree["images"]]
    for name, metric in record.metrics.items():
        assert kept.predictions.value(name) == metric.value
        assert metric.interval is not None
        assert metric.interval.low <= metric.value <= metric.interval.high
    other = shutil.copytree(tmp_path / "run" / "records", tmp_path / "copy" / "records")
    words = [str(path.parent), str(other), "--margin", "1", "--metric", "bbox_AP50"]
    assert main(["compare", *words]) == 0
    printed = capsys.readouterr().out  # three images on which they agree prove nothing
    assert "No difference between" in printed
    reach = 100 * (1 - 0.05 ** (1 / kept.predictions.smallest_group("bbox_AP50")))
    assert f"95 % interval −{reach:.2f} to +{reach:.2f}; paired bootstrap, p = 1.0" in printed


def test_non_finite_loss_keeps_the_last_checkpoint(
    make_recipe: MakeRecipe, trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is not a number ends the run with an error; the checkpoint before it stays."""
    recipe = make_recipe(training={"checkpoint_every_iterations": 1})
    build = run_state.build_detector

    def build_failing(*arguments: Any) -> torch.nn.Module:
        detector = build(*arguments)
        calls: list[None] = []

        def spoil(_module: Any, _inputs: Any, losses: dict[str, torch.Tensor]) -> Any:
            calls.append(None)
            return {k: v * (float("nan") if len(calls) > 1 else 1) for k, v in losses.items()}

        detector.register_forward_hook(spoil)
        return detector

    monkeypatch.setattr(run_state, "build_detector", build_failing)
    with pytest.raises(UserError, match=r"the loss is nan at iteration 1.*lower solver\.base_lr"):
        run_recipe(recipe, trunk, resume=False)
    tensors, metadata, _ = load_checkpoint(recipe.output_dir / "checkpoints" / "last")
    assert metadata.step == 1
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_not_finite_end_the_run_at_the_next_line(
    make_recipe: MakeRecipe, trunk: Trunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then steps pass; the error names the first iteration, and nothing is saved."""
    recipe = make_recipe()
    build = run_state.build_detector

    def build_failing(*arguments: Any) -> torch.nn.Module:
        detector = build(*arguments)

        def spoil(*_: Any) -> None:
            detector.get_parameter("backbone.body.conv1.weight").data.fill_(float("nan"))

        detector.register_forward_hook(spoil)
        return detector

    monkeypatch.setattr(run_state, "build_detector", build_failing)
    with pytest.raises(UserError, match=r"the loss is nan at iteration 1; earlier checkpoints"):
        run_recipe(recipe, trunk, resume=False)
    (line,) = read_metrics(recipe.output_dir / "metrics.jsonl")
    assert line["step"] == 1
    assert not (recipe.output_dir / "checkpoints").exists()


def test_folders_are_protected(make_recipe: MakeRecipe, trunk: Trunk) -> None:
    """A new run needs an empty folder, even with --resume; settings may not change midway."""
    recipe = make_recipe()
    one_step = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    exit_code, _ = run_recipe(one_step, trunk, resume=True)
    assert exit_code == 0
    with pytest.raises(UserError, match="add --resume"):
        run_recipe(one_step, trunk, resume=False)
    with pytest.raises(UserError, match=r"solver\.iterations \(was 1, now 4\).*; restore"):
        run_recipe(recipe, trunk, resume=True)
    with pytest.raises(UserError, match=r"'seed': .*greater than or equal to 0"):
        make_recipe(seed=-1)
    sha256 = trunk.subject.sha256
    with pytest.raises(UserError, match=f"SHA-256 {sha256}, this command gives random weights; "):
        run_recipe(one_step, random_trunk(recipe.model, 0), resume=True)
    val = one_step.data.test_annotations, one_step.data.test_images
    swapped = one_step.data.model_copy(update={"train_annotations": val[0], "train_images": val[1]})
    with pytest.raises(UserError, match=r"was trained on annotations with .*_val\.json' has "):
        run_recipe(one_step.model_copy(update={"data": swapped}), trunk, resume=True)


def test_a_recipe_is_run_as_written_and_once(
    make_recipe: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A recorded run is left alone, a damaged record is made again; other settings are refused."""
    path, start = tmp_path / "recipe.yaml", write_checkpoint().path
    one_step = {"iterations": 1, "decay_at": [], "warmup_iterations": 0}
    write_config(make_recipe(solver=one_step), path)
    assert run_from_backbone(path, ["seed=5", "data.num_workers=0"], start) == 0
    record_path = tmp_path / "run" / "records" / "detection.json"
    record = read_record(record_path)
    assert record.seeds == [5]
    written = record_path.stat().st_mtime_ns
    assert run_from_backbone(path, ["seed=5"], start) == 0
    assert record_path.stat().st_mtime_ns == written
    record_path.write_text("{")
    assert run_from_backbone(path, ["seed=5"], start) == 0
    assert "is not JSON; the record is made again" in caplog.text
    assert read_record(record_path).metrics == record.metrics
    with pytest.raises(UserError, match=r"another run with solver\.base_lr \(was 0\.0025, now 1"):
        run_from_backbone(path, ["seed=5", "solver.base_lr=1.0"], start)
    with pytest.raises(UserError, match=r"other settings: seed \(was 5, now 6\)"):
        run_from_backbone(path, ["seed=6"], start)
    with pytest.raises(UserError, match=r"started from the backbone .* gives random weights"):
        run_from_backbone(path, ["seed=5"], None)


def test_speed_settings_are_noted_and_kept_to(
    make_recipe: MakeRecipe, write_checkpoint: Callable[..., LoadedBackbone], tmp_path: Path
) -> None:
    """A recipe may be trained in another precision; the record says so, and resuming refuses it."""
    recipe = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    path, start = tmp_path / "recipe.yaml", write_checkpoint().path
    write_config(recipe, path)
    plain, fast = tmp_path / "plain", tmp_path / "fast"
    for folder, words in ((plain, []), (fast, ["training.precision=bf16"])):
        assert run_from_backbone(path, [*words, f"output_dir={folder}"], start) == 0
    departures, noted = (
        read_record(folder / "records" / "detection.json").deviations for folder in (plain, fast)
    )
    assert noted == ["training.precision bf16 (recipe: fp32)", *departures]
    with pytest.raises(UserError, match=r"training\.precision \(was 'bf16', now 'fp32'\); restore"):
        run_from_backbone(path, [f"output_dir={fast}"], start)


def test_a_record_of_other_places_is_taken_with_a_warning(
    make_recipe: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Annotations may have moved or changed; a warning names the run's paths."""
    recipe = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    path, start = tmp_path / "recipe.yaml", write_checkpoint().path
    write_config(recipe, path)
    for _ in range(2):
        assert run_from_backbone(path, [], start) == 0
    assert "was made with" not in caplog.text
    assert run_from_backbone(path, ["data.test_images=elsewhere"], start) == 0
    assert f"was made with data.test_images '{recipe.data.test_images}'" in caplog.text


@pytest.mark.process
def test_a_folder_takes_one_run_at_a_time(make_recipe: MakeRecipe, trunk: Trunk) -> None:
    """A second run is refused; one killed at its start keeps nobody out."""
    recipe = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    with held_folder(recipe.output_dir):
        with pytest.raises(UserError, match=r"another run is writing to .*; wait until it ends"):
            run_recipe(recipe, trunk, resume=False)
        assert [path.name for path in recipe.output_dir.iterdir()] == [LOCK_FILE]
    assert run_recipe(recipe, trunk, resume=False)[0] == 0


def test_a_finished_run_without_checkpoints_is_kept(
    make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path
) -> None:
    """Resuming it, from whatever trunk, would train a new one over its record."""
    recipe = make_recipe(solver={"iterations": 1, "decay_at": [], "warmup_iterations": 0})
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    shutil.rmtree(recipe.output_dir / "checkpoints")
    record = (recipe.output_dir / "records" / "detection.json").read_bytes()
    for given in (trunk, random_trunk(recipe.model, 0)):
        with pytest.raises(UserError, match=r"contains a finished run .* without its checkpoints"):
            run_recipe(recipe, given, resume=True)
    assert (recipe.output_dir / "records" / "detection.json").read_bytes() == record


def test_categories_must_agree(make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path) -> None:
    """Training and test sets of other categories are refused before the run folder is made."""
    recipe = make_recipe()
    tree = json.loads(recipe.data.test_annotations.read_text(encoding="utf-8"))
    tree["categories"].append({"id": 9, "name": "star"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(UserError, match=r"differ: 3 and 4 ids; only one has 9 \('star'\)"):
        run_recipe(make_recipe(data={"test_annotations": str(other)}), trunk, resume=False)
    assert not recipe.output_dir.exists()


def test_an_id_is_one_category_in_both_sets(
    make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path
) -> None:
    """Other names are refused, which would score right detections as wrong; spelling is not."""
    tree = json.loads(make_recipe().data.test_annotations.read_text(encoding="utf-8"))
    other = tmp_path / "other.json"
    recipe = make_recipe(data={"test_annotations": str(other)})
    for names, message in (
        (("rectangle", "circle", "triangle"), "1 is 'circle' and 'rectangle', 2 is 'rectangle' "),
        (("circle", "rectangle", "star"), "'triangle' and 'star'; both ids and names must agree"),
    ):
        for entry, name in zip(tree["categories"], names, strict=True):
            entry["name"] = name
        other.write_text(json.dumps(tree), encoding="utf-8")
        with pytest.raises(UserError, match=message):
            open_job(recipe, trunk)
    tree["categories"][2]["name"] = "Triangle "
    other.write_text(json.dumps(tree), encoding="utf-8")
    assert open_job(recipe, trunk).num_classes == 3


def test_bf16_trains_on_the_cpu(make_recipe: MakeRecipe, trunk: Trunk, tmp_path: Path) -> None:
    """Autocast forward passes leave float32 weights and a finite loss."""
    recipe = make_recipe(
        input={"train_short_sides_pixels": [64]},
        solver={
            "iterations": 1,
            "decay_at": [],
            "warmup_iterations": 0,
            "batch_size": 1,
            "reference_batch_size": 1,
        },
        training={"precision": "bf16"},
    )
    tmp_path.joinpath("run").mkdir()
    detector = trainer.train(open_job(recipe, trunk), tmp_path / "run", None, StopSignal())
    assert {parameter.dtype for parameter in detector.parameters()} == {torch.float32}
    (line,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert 0 < line["loss"] < 100
