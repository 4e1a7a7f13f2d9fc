"""Train and detect with detectron2 itself; skipped where it is not installed."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detection.coco.evaluation import evaluate, with_areas
from detection.coco.sets import indexed, open_coco, training_images
from detection.exchange.unconvert import unconvert
from detection.job.job import Job, open_job
from detection.job.trunk import Trunk, load_trunk, random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.metrics_log import read_metrics
from rsa_pretrain.weights.checkpoint import LoadedBackbone, load_backbone
from rsa_pretrain.weights.load import load_weights

MakeRecipe = Callable[..., Recipe]
COCO = Path(os.environ.get("RSA_DATA", "")) / "coco_mini"

pytestmark = pytest.mark.detectron2
needs_coco = [
    pytest.mark.real_data,
    pytest.mark.skipif("RSA_DATA" not in os.environ, reason="RSA_DATA is not set"),
]


@pytest.fixture
def make_run(make_recipe: MakeRecipe) -> MakeRecipe:
    """Return the small recipe for detectron2, with changes."""

    def make(**changes: Any) -> Recipe:
        return make_recipe(engine="detectron2", **changes)

    return make


@pytest.fixture
def trunk(write_checkpoint: Callable[..., LoadedBackbone], make_recipe: MakeRecipe) -> Trunk:
    """The ResNet-18 checkpoint as a trunk."""
    return load_trunk(write_checkpoint().path, make_recipe().model)


def _detector(job: Job) -> torch.nn.Module:
    from detection.engines.detectron2.detector import build_detector, make_config

    return build_detector(make_config(job), job.trunk)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_trunk_arrives_bitwise(make_run: MakeRecipe, trunk: Trunk, norm: str) -> None:
    """Each trunk tensor of detectron2's detector is the checkpoint's."""
    detector = _detector(open_job(make_run(model={"trunk_norm": norm}), trunk))
    found = detector.get_submodule("backbone.bottom_up").state_dict()
    assert torch.equal(found["stem.conv1.weight"], trunk.tensors["conv1.weight"])
    name = "downsample.1.running_var"
    assert torch.equal(found["res5.0.shortcut.norm.running_var"], trunk.tensors[f"layer4.0.{name}"])
    counts = [name for name in found if name.endswith("num_batches_tracked")]
    assert len(counts) == (20 if norm == "BN" else 0)
    assert len(found) - len(counts) == 100


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda tensors: dict(list(tensors.items())[:60]), "detector's do not match"),
        (
            lambda tensors: {k: v for k, v in tensors.items() if "running_" not in k},
            "detector's do not match",
        ),
        (lambda tensors: tensors | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "size mismatch"),
        (lambda tensors: tensors | {"fc.weight": torch.zeros(1)}, "not the name of a tensor"),
    ],
    ids=["half", "no statistics", "misshapen", "more"],
)
def test_half_a_trunk_is_refused(
    make_run: MakeRecipe, trunk: Trunk, spoil: Callable[..., Any], message: str
) -> None:
    """Training does not start unless every tensor was loaded; detectron2 would only warn."""
    half = replace(trunk, tensors=spoil(trunk.tensors))
    with pytest.raises((RuntimeError, ValueError), match=message):
        run_recipe(make_run(), half, resume=False)


def test_changed_tensor_is_noticed(make_run: MakeRecipe, trunk: Trunk) -> None:
    """The check compares values, one by one."""
    from detection.engines.detectron2.detector import check_trunk

    detector = _detector(open_job(make_run(), trunk))
    with torch.no_grad():
        detector.get_submodule("backbone.bottom_up.res3.1.conv2").weight[0, 0, 0, 0] += 1
    with pytest.raises(
        RuntimeError, match=r"1 backbone tensors were not loaded: \S+\.res3\.1\.conv2"
    ):
        check_trunk(detector, trunk)


def test_colour_order_changes_the_features(make_run: MakeRecipe, trunk: Trunk) -> None:
    """Negative control: images read as BGR are other features; read as RGB, torchvision's."""
    from detection.engines.detectron2.data import evaluation_batches
    from detection.engines.detectron2.detector import build_detector, make_config
    from rsa_pretrain.components.backbone import build_backbone

    job = open_job(make_run(), trunk)
    config = make_config(job)
    detector = build_detector(config, trunk).eval()

    def res5_of(order: str) -> tuple[Any, torch.Tensor]:
        config.defrost()
        config.INPUT.FORMAT = order
        sample = next(evaluation_batches(config, job))
        with torch.no_grad():
            pixels = detector.preprocess_image(sample).tensor
            return sample, detector.get_submodule("backbone.bottom_up")(pixels)["res5"]

    sample, right = res5_of("RGB")
    _, wrong = res5_of("BGR")
    backbone = build_backbone(trunk.backbone).eval()
    backbone.load_state_dict(trunk.tensors)
    pixels = sample[0]["image"].float() / 255
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (trunk.mean, trunk.std))
    network = torch.nn.Sequential(*list(backbone.children())[:-2])
    with torch.no_grad():
        expected = network(((pixels - mean) / std)[None])
    assert (right - expected).abs().max() < 1e-4 * expected.abs().max()
    assert (wrong - expected).abs().max() > 0.01 * expected.abs().max()


@needs_coco[0]
@needs_coco[1]
def test_entries_equal_detectron2_s_reader(tmp_path: Path) -> None:
    """On COCO, the training entries are those of detectron2, less what it drops later."""
    from detectron2.data.build import filter_images_with_only_crowd_annotations
    from detectron2.data.datasets import load_coco_json

    from detection.engines.detectron2.data import training_entries

    file, folder = COCO / "annotations/instances_train2017.json", COCO / "train2017"
    theirs = filter_images_with_only_crowd_annotations(
        load_coco_json(str(file), str(folder), "coco_mini_entries")
    )
    for entry in theirs:
        entry["annotations"] = [a for a in entry["annotations"] if not a["iscrowd"]]
    assert training_entries(training_images(open_coco(file, folder))) == theirs


def test_ten_iterations_lower_the_loss(
    make_run: MakeRecipe, trunk: Trunk, caplog: pytest.LogCaptureFixture
) -> None:
    """A run trains, is evaluated, and leaves record, metrics, config and checkpoint behind."""
    recipe = make_run(
        model={"trunk_norm": "SyncBN"},
        solver={"iterations": 10, "decay_at": [], "warmup_iterations": 2, "base_lr": 0.03},
        training={
            "precise_bn_iterations": 2,
            "evaluate_every_iterations": 9,
            "log_every_iterations": 2,
        },
    )
    with caplog.at_level(logging.INFO):
        assert run_recipe(recipe, trunk, resume=False)[0] == 0
    assert caplog.messages.count("one process: BN in place of SyncBN") == 1
    lines = read_metrics(recipe.output_dir / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 5
    assert losses[-1] < 0.8 * losses[0]
    assert [line["step"] for line in lines if "segm_AP" in line] == [9, 10]
    record = read_record(recipe.output_dir / "records" / "detection.json")
    assert record.details["engine"] == "detectron2"
    assert record.deviations == ["one process: BN in place of SyncBN"]
    written = (recipe.output_dir / "detectron2.yaml").read_text(encoding="utf-8")
    assert "FORMAT: RGB" in written
    assert (recipe.output_dir / "checkpoints" / "model_final.pth").is_file()


def test_detectron2_s_average_precision_is_ours(
    make_run: MakeRecipe, trunk: Trunk, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Its evaluator and this toolkit's give the same numbers for the same detections."""
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import COCOEvaluator

    from detection.engines.detectron2.predict import predict

    job = open_job(make_run(), trunk)
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(with_areas(job.test_set.tree)), encoding="utf-8")
    ids = {category: index for index, category in enumerate(job.test_set.category_ids)}
    MetadataCatalog.pop("shapes_test", None)
    MetadataCatalog.get("shapes_test").set(
        evaluator_type="coco", json_file=str(file), thing_dataset_id_to_contiguous_id=ids
    )
    truth = indexed(job.test_set.tree)
    found = []
    for entry in truth.dataset["annotations"]:
        code = truth.annToRLE(entry)
        x, y, width, height = entry["bbox"]
        moved = {"bbox": [x + 2, y, width, height], "score": 0.9}
        kept = {key: entry[key] for key in ("image_id", "category_id")}
        found.append({**kept, **moved, "segmentation": code | {"counts": code["counts"].decode()}})
    evaluator = COCOEvaluator("shapes_test", tasks=("bbox", "segm"), use_fast_impl=False)
    evaluator._predictions = [
        {"instances": [{**entry, "category_id": ids[entry["category_id"]]} for entry in found]}
    ]
    theirs = evaluator.evaluate()
    ours = evaluate(job.test_set.tree, found)
    assert 10 < ours["bbox_AP"] < ours["segm_AP"]
    for name, value in ours.items():
        kind, _, metric = name.partition("_")
        assert theirs[kind][metric] == pytest.approx(value)
    assert all(entry["category_id"] in ids for entry in predict(_detector(job), job))


def test_stopped_run_resumes(
    make_run: MakeRecipe, trunk: Trunk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM saves; --resume continues iteration, rate and momentum, of the same run alone."""
    from detectron2.engine import SimpleTrainer

    run_step = SimpleTrainer.run_step
    rates: list[tuple[int, float]] = []

    def run_step_and_signal(self: Any) -> None:
        run_step(self)
        rates.append((self.iter, self.optimizer.param_groups[0]["lr"]))
        if self.iter == 1 and len(rates) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(SimpleTrainer, "run_step", run_step_and_signal)
    recipe = make_run()
    assert run_recipe(recipe, trunk, resume=False) == (128 + signal.SIGTERM, None)
    saved = recipe.output_dir / "checkpoints" / "model_0000001.pth"
    state = torch.load(saved, weights_only=True)
    assert state["trainer"]["iteration"] == 1
    with pytest.raises(UserError, match=r"started from the backbone .* gives random weights"):
        run_recipe(recipe, random_trunk(recipe.model, 0), resume=True)
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-1000])
    with pytest.raises(UserError, match="model_0000001"):
        run_recipe(recipe, trunk, resume=True)
    saved.write_bytes(whole)
    assert run_recipe(recipe, trunk, resume=True)[0] == 0
    steps, found = zip(*rates, strict=True)
    assert steps == (0, 1, 2, 3)
    lr, factor = recipe.solver.base_lr, recipe.solver.warmup_factor
    assert found == pytest.approx([lr * factor, lr * (1 + factor) / 2, lr, lr / 10])
    steps_logged = [line["step"] for line in read_metrics(recipe.output_dir / "metrics.jsonl")]
    assert steps_logged == [2, 4, 4]
    assert run_recipe(recipe, trunk, resume=True)[0] == 0  # a finished run is only evaluated
    assert len(rates) == 4


@pytest.mark.parametrize(("num_workers", "arch"), [(0, "resnet18"), (2, "resnet18"), (0, "c4")])
def test_resumed_run_ends_as_the_uninterrupted(
    make_run: MakeRecipe,
    write_checkpoint: Callable[..., LoadedBackbone],
    c4: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_workers: int,
    arch: str,
) -> None:
    """Stopped after each of two steps and resumed, it sees the same images and ends bitwise equal.

    Checkpoints beyond those to be kept go, also of the interrupted parts.
    """
    from detectron2.engine import SimpleTrainer

    model = {**c4, "arch": "resnet50"} if arch == "c4" else {}
    changes: dict[str, Any] = {
        "data": {"num_workers": num_workers},
        "model": model,
        "training": {
            "precise_bn_iterations": 2,
            "checkpoint_every_iterations": 1,
            "keep_checkpoints": 2,
        },
    }
    whole = make_run(output_dir=str(tmp_path / "whole"), **changes)
    trunk = load_trunk(write_checkpoint(whole.model.arch).path, whole.model)
    assert run_recipe(whole, trunk, resume=False)[0] == 0
    run_step = SimpleTrainer.run_step
    interrupted = make_run(output_dir=str(tmp_path / "interrupted"), **changes)
    for stop_at in (0, 1, None):

        def run_step_and_stop(self: Any, stop_at: int | None = stop_at) -> None:
            run_step(self)
            if self.iter == stop_at:
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(SimpleTrainer, "run_step", run_step_and_stop)
        code, _ = run_recipe(interrupted, trunk, resume=stop_at != 0)
        assert code == (0 if stop_at is None else 128 + signal.SIGTERM)
    states = []
    for recipe in (whole, interrupted):
        checkpoints = recipe.output_dir / "checkpoints"
        files = sorted(path.name for path in checkpoints.iterdir())
        assert files == ["last_checkpoint", "model_0000003.pth", "model_final.pth"]
        states.append(torch.load(checkpoints / "model_final.pth", weights_only=True)["model"])
    differing = [name for name in states[0] if not torch.equal(states[0][name], states[1][name])]
    assert differing == []


@pytest.mark.parametrize("name", ["model_0000001.pth", "model_0000003.pth"])
def test_resuming_completes_what_follows_the_last_step(
    make_run: MakeRecipe, trunk: Trunk, name: str
) -> None:
    """A kill before an old checkpoint was deleted, or before the final one was written."""
    recipe = make_run(training={"keep_checkpoints": 1})
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    folder = recipe.output_dir / "checkpoints"
    final = folder / "model_final.pth"
    weights = torch.load(final, weights_only=True)["model"]
    shutil.copy(final, folder / name)
    if name == "model_0000003.pth":
        final.unlink()
    assert run_recipe(recipe, trunk, resume=True)[0] == 0
    assert {path.name for path in folder.iterdir()} == {"last_checkpoint", "model_final.pth"}
    assert (folder / "last_checkpoint").read_text() == "model_final.pth"
    resumed = torch.load(final, weights_only=True)["model"]
    assert [key for key in weights if not torch.equal(weights[key], resumed[key])] == []


@pytest.mark.parametrize(("split", "folder"), [("train", "train"), ("test", "val")])
def test_broken_image_is_named(
    make_run: MakeRecipe,
    trunk: Trunk,
    tmp_path: Path,
    shapes_folder: Path,
    split: str,
    folder: str,
) -> None:
    """An image that cannot be decoded ends the run with its name, out of a loader process too."""
    images = tmp_path / "images"
    images.mkdir()
    for path in (shapes_folder / folder).iterdir():
        (images / path.name).write_bytes(path.read_bytes()[:200])
    recipe = make_run(data={f"{split}_images": str(images), "num_workers": 1})
    with pytest.raises(UserError, match=r"^image '.*images/\S+' cannot be decoded: [^\n]*$"):
        run_recipe(recipe, trunk, resume=False)


def test_images_are_read_by_the_rules_of_all_engines(
    make_run: MakeRecipe, trunk: Trunk, tmp_path: Path, shapes_folder: Path
) -> None:
    """Deep grey is scaled, and photographs stay as stored where the config says so."""
    from detection.engines.detectron2.data import evaluation_batches
    from detection.engines.detectron2.detector import make_config

    images = tmp_path / "images"
    images.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in (shapes_folder / "val").iterdir():
        with Image.open(path) as image:
            deep = np.zeros((image.height, image.width), np.uint16)
        deep[: len(deep) // 2] = 30000
        Image.fromarray(deep).save(images / path.name, "PNG", exif=exif)
    for as_stored in (True, False):
        data = {"test_images": str(images), "num_workers": 0, "exif_orientation": not as_stored}
        job = open_job(make_run(data=data), trunk)
        pixels = next(evaluation_batches(make_config(job), job))[0]["image"]
        bright, dark = (pixels[:, 0, 0], pixels[:, -1, 0])[:: 1 if as_stored else -1]
        assert bright.tolist() == [117] * 3
        assert dark.tolist() == [0] * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training": {"precision": "bf16"}}, "precision 'bf16' needs a GPU in detectron2"),
        ({"input": {"flip_probability": 0.1}}, "detectron2 has 0 and 0.5 only"),
    ],
)
def test_what_detectron2_cannot_do_is_refused(
    make_run: MakeRecipe, trunk: Trunk, change: dict[str, Any], message: str
) -> None:
    """A setting without a counterpart is an error, not another run."""
    with pytest.raises(UserError, match=message):
        run_recipe(make_run(**change), trunk, resume=False)


def test_loss_that_breaks_down_is_one_error(make_run: MakeRecipe, trunk: Trunk) -> None:
    """detectron2's floating-point error becomes a user's, with advice."""
    recipe = make_run(solver={"base_lr": 1e12, "warmup_iterations": 0})
    with pytest.raises(UserError, match=r"lower solver\.base_lr or warm up longer"):
        run_recipe(recipe, trunk, resume=False)


@needs_coco[0]
@needs_coco[1]
def test_ten_iterations_on_coco_lower_the_loss(make_run: MakeRecipe, trunk: Trunk) -> None:
    """Photos, 80 categories whose ids have gaps: it trains, and detections have COCO's ids."""
    data = {
        "name": "coco_mini",
        "train_annotations": str(COCO / "annotations/instances_train2017.json"),
        "train_images": str(COCO / "train2017"),
        "test_annotations": str(COCO / "annotations/instances_val2017.json"),
        "test_images": str(COCO / "val2017"),
    }
    recipe = make_run(
        data=data,
        input={
            "train_short_sides_pixels": [128],
            "test_short_side_pixels": 128,
            "max_side_pixels": 192,
        },
        solver={"iterations": 10, "decay_at": [], "warmup_iterations": 2, "base_lr": 0.01},
        training={"log_every_iterations": 2},
    )
    assert run_recipe(recipe, trunk, resume=False)[0] == 0
    lines = read_metrics(recipe.output_dir / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.8 * losses[0]
    predictions = json.loads((recipe.output_dir / "predictions.json").read_text())
    known = {
        entry["id"]
        for entry in json.loads(Path(data["test_annotations"]).read_text())["categories"]
    }
    assert {entry["category_id"] for entry in predictions} <= known
    assert read_record(recipe.output_dir / "records" / "detection.json").num_samples == 44


def test_finished_run_gives_its_trunk_back(
    make_run: MakeRecipe, trunk: Trunk, tmp_path: Path
) -> None:
    """The fine-tuned trunk of a run folder computes in torchvision what it does in detectron2."""
    recipe = make_run(solver={"iterations": 2, "decay_at": [], "warmup_iterations": 0})
    run_recipe(recipe, trunk, resume=False)
    out = tmp_path / "trunk.safetensors"
    done = unconvert(recipe.output_dir, out, None)
    assert done.proof.feature_differences == {"res2": 0, "res3": 0, "res4": 0, "res5": 0}
    assert set(done.proof.dropped) == {"feature pyramid", "detection heads", "trainer state"}
    loaded = load_backbone(out)
    assert loaded.metadata.step == 2
    found = loaded.backbone.state_dict()
    assert not torch.equal(found["conv1.weight"], trunk.tensors["conv1.weight"])
    directly = load_weights(recipe.output_dir / "checkpoints" / "model_final.pth")
    for name, tensor in directly.backbone.state_dict().items():
        assert torch.equal(tensor, found[name]), name


@pytest.mark.process
@pytest.mark.parametrize(
    "start",
    [
        ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "detection"],
        ["-m", "detection"],
    ],
    ids=["torchrun", "launch"],
)
def test_two_processes_train_one_detector(
    make_run: MakeRecipe, tmp_path: Path, start: list[str]
) -> None:
    """Both ways of starting them give the same result, with one process's files."""
    recipe = make_run(training={"precise_bn_iterations": 1, "evaluate_every_iterations": 2})
    config = tmp_path / "recipe.yaml"
    write_config(recipe, config)
    command = [sys.executable, *start, "train", str(config), "--random-init"]
    if "torch.distributed.run" not in start:
        command += ["--num-gpus", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("bbox  AP ") == 1
    lines = read_metrics(recipe.output_dir / "metrics.jsonl")
    assert [line["step"] for line in lines if "segm_AP" in line] == [2, 4]
    record = read_record(recipe.output_dir / "records" / "detection.json")
    assert record.deviations == ["processes without GPUs: each its own BN in place of SyncBN"]
    assert record.num_samples == 3
